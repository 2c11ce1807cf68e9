"""What a compressed run is worth: its accuracy beside its parent's, its size and its speed."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kclassify import runtime
from kclassify.evaluation.comparison import difference_interval
from kclassify.evaluation.intervals import wilson
from kclassify.runs import Run

runtime.prepare()

from kclassify.compression.parent import Parent  # noqa: E402
from kclassify.evaluation.cost import measure_in_child  # noqa: E402
from kclassify.models.saved import load_run_model  # noqa: E402

# One image at a time for latency, many for throughput.
BATCH_SIZES = (1, 256)
SECONDS = 1.0


@dataclass(frozen=True)
class Judged:
    """A run beside its parent, on the parent's validation images.

    Attributes:
        run: the run.
        row: what the table of the trade-off has of it.
    """

    run: Run
    row: dict[str, Any]

    @property
    def passes(self) -> bool:
        """Whether it loses no more than was asked for, chance allowed for."""
        return bool(self.row["passes"])

    def __str__(self) -> str:
        row = self.row
        return (
            f"{row['run']}: {100 * row['difference']:+.2f} points "
            f"(95 % of chance {100 * row['low']:+.2f} to {100 * row['high']:+.2f}), "
            f"{row['megabytes']:.2f} MB, {row['gzip_megabytes']:.2f} MB packed, "
            f"{row['images_per_second']:,.0f} images/s"
        )


def judge(run: Run, parent: Parent, *, max_drop: float) -> Judged:
    """Measure a run beside its parent.

    It passes where all of the 95 % interval of its difference to the parent is above ``-max_drop``
    (Bonett and Price 2012, as in `compare`): then it is not by luck that it does.

    Args:
        run: one that came of the parent.
        parent: the run that it is compared with.
        max_drop: the most accuracy that it may lose.
    """
    ours = parent.right_on_validation(load_run_model(run))
    fixed, broken = int(np.sum(ours & ~parent.right)), int(np.sum(parent.right & ~ours))
    low, high = difference_interval(fixed, broken, images=len(ours))
    difference = (fixed - broken) / len(ours)
    beside = {"difference": difference, "low": low, "high": high, "passes": low >= -max_drop}
    return Judged(run, _row(run, ours) | beside)


def itself(parent: Parent) -> Judged:
    """Measure a parent: it is as good as it is, without any chance in it."""
    beside = {"difference": 0.0, "low": 0.0, "high": 0.0, "passes": True}
    return Judged(parent.run, _row(parent.run, parent.right) | beside)


def _row(run: Run, right: np.ndarray) -> dict[str, Any]:
    low, high = wilson(int(right.sum()), len(right))
    accuracy = {"accuracy": float(right.mean()), "accuracy_low": float(low),
                "accuracy_high": float(high)}  # fmt: skip
    return {"run": run.path.name, **accuracy, **_sizes(run), **_speed(run)}


def least_drop(images: int) -> float:
    """Return the smallest `max_drop` that any network can be shown to keep to, on so many images.

    Example:
        >>> from kclassify.compression.measuring import least_drop
        >>> round(least_drop(5000), 4), round(least_drop(180), 4)
        (0.0006, 0.0152)
    """
    return -difference_interval(0, 0, images=images)[0]


def _sizes(run: Run) -> dict[str, Any]:
    content = (run.quantized_file or run.model_file).read_bytes()
    summary = run.summary
    return {
        "parameters": summary["parameters"],
        "macs": summary["macs"],
        "megabytes": len(content) / 1e6,
        "gzip_megabytes": len(gzip.compress(content, mtime=0)) / 1e6,
    }


def _speed(run: Run) -> dict[str, float]:
    one, many = measure_in_child(run.path, SECONDS, BATCH_SIZES)["rows"]
    return {
        "p50_ms": float(one["p50_ms"]),
        "p95_ms": float(one["p95_ms"]),
        "images_per_second": float(many["images_per_second"]),
    }


def trade_off(judged: Sequence[Judged]) -> pd.DataFrame:
    """Return a row a run, the parent first, with `pareto`: no other is better in everything.

    Everything is accuracy, the file's size and images a second.
    """
    table = pd.DataFrame([one.row for one in judged])
    aims = table[["accuracy", "images_per_second"]].assign(size=-table["megabytes"]).to_numpy()
    better = (aims[:, None] >= aims[None]).all(axis=2) & (aims[:, None] > aims[None]).any(axis=2)
    return table.assign(pareto=np.logical_not(np.any(better, axis=0)).tolist())


def nearest_candidates(judged: Sequence[Judged], *, most: int = 3) -> str:
    """Return in words which runs came nearest to a budget that none of them meets."""
    order = sorted(judged, key=lambda one: -one.row["low"])
    return "\n".join(str(one) for one in order[:most])
