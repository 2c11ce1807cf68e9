"""`cost`: what a run takes to serve on this machine.

A process of its own measures it, so that the memory is that of serving and of nothing else:
``python -m kclassify.evaluation.cost PATH SECONDS BATCH_SIZE ...``.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError, check_number, is_whole
from kclassify.runs import Run

runtime.prepare()

from kclassify.models.cost import count_macs, count_parameters  # noqa: E402
from kclassify.models.saved import load_network  # noqa: E402
from kclassify.serving.classifier import Classifier, load  # noqa: E402
from kclassify.serving.saved_model import versions  # noqa: E402

BATCH_SIZES = (1, 64, 256)
SECONDS = 1.5
# The first calls at a new batch size are slower.
WARM_UP_CALLS, LEAST_CALLS = 3, 10
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """What a network takes.

    Attributes:
        served: what was measured, a path within the run: its newest export, or ``model.keras``.
        parameters: the weights, frozen ones and moving statistics included.
        macs: multiply-accumulates of one image.
        megabytes: of what was measured, on disk; a megabyte is a million bytes.
        peak_memory: the most resident memory that the serving process had, TensorFlow included,
            in mebibytes.
        table: a row for each `batch_size`: how many `calls` were made, the median `p50_ms` and the
            95th percentile `p95_ms` of their milliseconds, and `images_per_second`.
        machine: the processor and how many threads TensorFlow was given.
    """

    served: str
    parameters: int
    macs: int
    megabytes: float
    peak_memory: float
    table: pd.DataFrame
    machine: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.served} on {self.machine}: {self.parameters:,} parameters, "
                f"{self.macs:,} multiply-accumulates an image, {self.megabytes:.2f} MB on disk, "
                f"at most {self.peak_memory:.0f} MiB of memory",
                self.table.to_string(index=False, float_format="{:,.4g}".format),
            ]
        )

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format="{:,.4g}".format)


def cost(
    run: Run | str | os.PathLike[str],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seconds: float = SECONDS,
    verbose: bool = True,
) -> Cost:
    """Measure a run's size, and its latency, throughput and memory in a process that serves it.

    What is measured is `Classifier.probabilities` of the newest export, or of the run where it has
    none. The images are random, which makes no difference to the speed; nothing else should be
    running.

    Args:
        run: a run or its folder.
        batch_sizes: images a call.
        seconds: how long each batch size is measured for.
        verbose: show that something is being measured.

    Returns:
        `Cost`. The run gets it as ``cost.csv`` and ``cost.json``; its report shows it.

    Raises:
        InputError: a batch size or a time that is none, or the run cannot be served.

    Example:
        >>> import kclassify
        >>> from kclassify.evaluation.cost import cost
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> found = cost(run, batch_sizes=[1], seconds=0.1, verbose=False)
        >>> found.served, list(found.table["batch_size"])
        ('model.keras', [1])
    """
    _check(batch_sizes, seconds)
    run = Run.open(run)
    served = _newest(run)
    with tqdm(total=1, desc="measuring", delay=1.5, disable=not verbose) as bar:
        measured = measure_in_child(served or run.path, seconds, batch_sizes)
        bar.update()
    file = served or run.quantized_file or run.model_file
    network = load_network(run)
    found = Cost(
        served=str(file.relative_to(run.path)),
        parameters=count_parameters(network),
        macs=count_macs(network),
        megabytes=_size(file) / 1e6,
        peak_memory=measured["peak_memory"],
        table=pd.DataFrame(measured["rows"]),
        machine=measured["machine"],
    )
    run.write(run.table_file("cost"), found.table.set_index("batch_size"))
    run.write(run.analysis_file("cost"), _facts(run, found))
    return found


def _check(batch_sizes: Any, seconds: Any) -> None:
    sizes = isinstance(batch_sizes, list | tuple) and bool(batch_sizes)
    ok = sizes and all(is_whole(size, least=1) for size in batch_sizes)
    expected = "whole numbers of at least 1, such as (1, 64)"
    check_number("batch_sizes", batch_sizes, expected=expected, ok=ok)
    ok = isinstance(seconds, int | float) and 0 < seconds < float("inf")
    check_number("seconds", seconds, expected="a number above 0", ok=ok)


def _newest(run: Run) -> Path | None:
    there = versions(run.export_dir)
    return run.export_dir / str(there[-1]) if there else None


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all the files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _facts(run: Run, found: Cost) -> dict[str, Any]:
    return {
        "weights_sha256": run.summary["weights_sha256"],
        "served": found.served,
        "machine": found.machine,
        "parameters": found.parameters,
        "macs": found.macs,
        "megabytes": found.megabytes,
        "peak_memory": found.peak_memory,
        "rows": found.table.to_dict("records"),
    }


def measure_in_child(path: Path, seconds: float, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """Return what `measure` finds in a process of its own.

    Raises:
        InputError: what is at `path` cannot be served.
    """
    arguments = [str(path), str(float(seconds)), *map(str, batch_sizes)]
    command = [sys.executable, "-m", "kclassify.evaluation.cost", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(
            f"`run` must be one that can be served here. Received: {str(path)!r}, for which the "
            f"process that measures ended with: {reason}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def measure(path: str, seconds: float, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """Return what serving `path` takes, measured in this process."""
    classifier = load(path)
    rows = [_timed(classifier, size, seconds) for size in batch_sizes]
    return {"rows": rows, "peak_memory": _peak_memory(), "machine": _machine()}


def _timed(classifier: Classifier, batch_size: int, seconds: float) -> dict[str, Any]:
    shape = (batch_size, *classifier.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for _ in range(WARM_UP_CALLS):
        classifier.probabilities(images)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < LEAST_CALLS:
        started = time.perf_counter()
        classifier.probabilities(images)
        times.append(time.perf_counter() - started)
    median, late = np.percentile(times, [50, 95])
    return {
        "batch_size": batch_size,
        "calls": len(times),
        "p50_ms": 1000 * float(median),
        "p95_ms": 1000 * float(late),
        "images_per_second": batch_size * len(times) / sum(times),
    }


def _peak_memory() -> float:
    """Return the most mebibytes that this process had resident.

    On Linux not by `getrusage`, which begins with what the parent had when it started the child.
    """
    if STATUS.exists():
        lines = STATUS.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _machine() -> str:
    import tensorflow as tf

    processor = runtime.environment()["processor"] or "an unknown processor"
    threads = tf.config.threading.get_intra_op_parallelism_threads() or runtime.physical_cores()
    gpus = len(tf.config.list_physical_devices("GPU"))
    return f"{processor}, {threads} threads" + (f", {gpus} GPU" if gpus else "")


def _child(arguments: Sequence[str]) -> None:
    path, seconds, *sizes = arguments
    print(json.dumps(measure(path, float(seconds), [int(size) for size in sizes])))


if __name__ == "__main__":
    _child(sys.argv[1:])
