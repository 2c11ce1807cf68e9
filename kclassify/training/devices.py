"""`bench_devices`: which device, how many threads and which batch size train quickest here.

A child process measures each device and number of threads, since TensorFlow takes the threads once
in a process: ``python -m kclassify.training.devices DEVICE THREADS`` and the rest.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number, is_whole
from kclassify.config import resolve
from kclassify.data.sources import load_source, prepare
from kclassify.presets import PRESETS

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.training.session import Session, build_session  # noqa: E402
from kclassify.training.time_budget import measure_pace  # noqa: E402

BATCH_SIZES = (32, 128, 512)
CLASSES = 10
# How a child says that what it was given is wrong, as the command does.
USER_ERROR = 2
# What each measurement takes, beside some seconds of starting up.
SECONDS, QUICK_SECONDS = 4.0, 0.5
# Steps of each batch size that there must be images for.
STEPS = 8
# The smallest batch whose speed is this share of the best is recommended: it learns more a pass.
GOOD_ENOUGH = 0.95


@dataclass(frozen=True)
class DeviceBench:
    """What `bench_devices` measured.

    Attributes:
        table: a row for each device, number of threads and batch size: device, threads,
            batch_size, training and inference in images a second.
    """

    table: pd.DataFrame

    @property
    def recommended(self) -> pd.Series:
        """The row with the smallest batch that trains nearly as fast as the best."""
        best = self.table["training"].max()
        enough = self.table[self.table["training"] >= GOOD_ENOUGH * best]
        return enough.sort_values(["batch_size", "training"], ascending=[True, False]).iloc[0]

    def __str__(self) -> str:
        row = self.recommended
        threads = f" --threads {row['threads']}" if row["threads"] else ""
        table = self.table.to_string(index=False, float_format="{:,.0f}".format)
        return (
            f"{table}\n\nimages a second; the best for training: "
            f"--device {row['device'].lower()}{threads} --batch-size {row['batch_size']}"
        )


def bench_devices(
    *,
    device: str | None = None,
    preset: str = "fast",
    image_size: int = 32,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    quick: bool = False,
    verbose: bool = True,
) -> DeviceBench:
    """Measure training and inference on each device, and on the CPU with several thread counts.

    These are 1, half of the physical cores, all of them, and all the logical ones. Nothing else
    should be running. The images are random; the network is a preset's.

    Args:
        device: one of them, such as ``"cpu"``; by default all that TensorFlow sees.
        preset: whose network and optimizer.
        image_size: height and width in pixels.
        batch_sizes: which to try.
        quick: measure for a shorter time, to see what comes out.
        verbose: show a progress bar.

    Returns:
        A `DeviceBench`.

    Raises:
        InputError: a device or preset that does not exist, or a size that is no number.
    """
    check_choice("preset", preset, PRESETS)
    check_number("image_size", image_size, expected="at least 8", ok=is_whole(image_size, least=8))
    _check_batch_sizes(batch_sizes)
    cases = [case for name in _devices(device) for case in _cases(name)]
    rows: list[dict[str, object]] = []
    for name, threads in tqdm(cases, desc="measuring", unit="case", disable=not verbose):
        seconds = QUICK_SECONDS if quick else SECONDS
        given = [name, threads, preset, image_size, seconds, *batch_sizes]
        rows += _in_child([str(value) for value in given])
    return DeviceBench(pd.DataFrame(rows))


def _check_batch_sizes(sizes: Sequence[int]) -> None:
    ok = isinstance(sizes, Sequence) and bool(sizes) and all(is_whole(n, least=1) for n in sizes)
    expected = "whole numbers of at least 1, such as (32, 128)"
    check_number("batch_sizes", sizes, expected=expected, ok=ok)


def _devices(device: str | None) -> list[str]:
    # Of these alone TensorFlow can tell without taking their memory, which the children need.
    found = [
        found.name.removeprefix("/physical_device:") for found in tf.config.list_physical_devices()
    ]
    return found if device is None else [runtime.resolve_device(device, among=found)]


def _cases(device: str) -> list[tuple[str, int]]:
    """Return the device with each number of threads that is worth trying; 0 is the default."""
    if not device.startswith("CPU"):
        return [(device, 0)]
    cores = runtime.physical_cores()
    counts = {1, max(1, cores // 2), cores, runtime.logical_cores()}
    return [(device, threads) for threads in sorted(counts)]


def _in_child(arguments: list[str]) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "kclassify.training.devices", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}."])[-1]
    if done.returncode == USER_ERROR:
        raise InputError(reason)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode and not rows:
        raise InputError(
            f"`device` must be one that can train. Received: {arguments[0]!r}, on which it failed: "
            f"{reason} Choose another, or smaller `batch_sizes` or `image_size`."
        )
    # A batch that no memory holds ends the process; what was measured before counts.
    return rows


def measure(
    device: str, threads: int, preset: str, image_size: int, seconds: float, batch_size: int
) -> dict[str, object]:
    """Return a row of the table, measured in this process."""
    options = {"device": device, "threads": threads or None, "batch_size": batch_size}
    config = resolve(preset, options).replace(progressive=None)
    count = STEPS * batch_size + 2 * CLASSES
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, image_size, image_size, 3), np.uint8)
    labels = rng.permutation(count) % CLASSES
    held_out = (images[:CLASSES], labels[:CLASSES])
    splits = {"train": (images, labels), "validation": held_out, "test": held_out}
    source = prepare(load_source(splits, config), config, verbose=False)
    session = build_session(source, config)
    return {
        "device": device,
        "threads": threads,
        "batch_size": batch_size,
        "training": batch_size / measure_pace(session, source, seconds=seconds)[0],
        "inference": _inference_speed(session, images[:batch_size], seconds=seconds),
    }


def _inference_speed(session: Session, images: np.ndarray, *, seconds: float) -> float:
    with tf.device(session.device):
        call = tf.function(lambda batch: session.network(batch, training=False))
        batch = tf.constant(images)
        call(batch)
        started, calls = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            call(batch).numpy()
            calls += 1
    return calls * len(images) / (time.perf_counter() - started)


def _child(arguments: Sequence[str]) -> None:
    device, threads, preset, image_size, seconds, *batch_sizes = arguments
    runtime.set_threads(int(threads) or None)
    fixed = (device, int(threads), preset, int(image_size), float(seconds))
    try:
        for size in sorted(map(int, batch_sizes)):
            print(json.dumps(measure(*fixed, size)), flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    _child(sys.argv[1:])
