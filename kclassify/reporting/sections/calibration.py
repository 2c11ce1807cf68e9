"""Whether the probabilities can be believed."""

from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from kclassify.reporting.figures import BLUE, LINE, MUTED, ORANGE, svg
from kclassify.reporting.tables import read_csv
from kclassify.runs import Run, read_json

TITLE = "Calibration"
NAMES = ("loss", "brier", "ece", "adaptive_ece", "classwise_ece")


def read(run: Run) -> dict[str, Any] | None:
    """Return the metrics of the probabilities before and after, and the drawing."""
    evaluation = read_json(run.metrics_file, {"metrics": dict})
    if not run.table_file("reliability").is_file() or "temperature" not in evaluation:
        return None
    bins = read_csv(run.table_file("reliability")).reset_index()
    return {
        "rows": [_row(name, evaluation) for name in NAMES if name in evaluation["metrics"]],
        "temperature": evaluation["temperature"],
        "fitted": evaluation["temperature"] != 1.0,
        "images": int(bins.loc[bins["which"] == "calibrated", "images"].sum()),
        "figure": reliability_figure(bins),
    }


def _row(name: str, evaluation: dict[str, Any]) -> dict[str, Any]:
    interval = evaluation.get("intervals", {}).get(name)
    return {
        "name": name,
        "before": evaluation.get("uncalibrated", {}).get(name),
        "after": evaluation["metrics"][name],
        "interval": interval,
    }


def reliability_figure(bins: pd.DataFrame) -> Markup:
    """Return the reliability diagram: accuracy by probability, before and after."""
    tables = {which: table.dropna() for which, table in bins.groupby("which")}
    after, before = tables["calibrated"], tables.get("uncalibrated")

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linestyle=":", label="as sure as right")
        if before is not None:
            axes.plot(100 * before["confidence"], 100 * before["accuracy"], "--s", color=ORANGE,
                      ms=4, label="before")  # fmt: skip
        heights = 100 * (after["high"] - after["low"])
        axes.bar(100 * after["confidence"], heights, bottom=100 * after["low"], width=1.6,
                 color=LINE, label="95 % of chance")  # fmt: skip
        axes.plot(100 * after["confidence"], 100 * after["accuracy"], "-o", color=BLUE, ms=4,
                  label="after" if before is not None else "measured")  # fmt: skip
        axes.set(xlabel="probability of the predicted class (%)", ylabel="right (%)",
                 xlim=(0, 101), ylim=(0, 101))  # fmt: skip
        axes.grid(axis="y", linewidth=0.7)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderpad=0.2)

    pairs = zip(after["confidence"], after["accuracy"], strict=True)
    said = ", ".join(f"{100 * sure:.0f} % sure, {100 * right:.0f} % right" for sure, right in pairs)
    return svg("reliability", draw, size=(4.6, 4.2), alt=f"Reliability diagram: {said}.")
