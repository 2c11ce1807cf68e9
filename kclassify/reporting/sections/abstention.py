"""When the classifier should say "I don't know"."""

from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from kclassify.reporting.figures import BLUE, ORANGE, svg
from kclassify.reporting.tables import read_csv
from kclassify.runs import Run, read_json

TITLE = "When not to answer"


def read(run: Run) -> dict[str, Any] | None:
    """Return the thresholds that validation guarantees, what they came to, and the drawing."""
    if not run.table_file("coverage").is_file():
        return None
    evaluation = read_json(run.metrics_file, {"metrics": dict})
    curve = read_csv(run.table_file("coverage")).reset_index()
    thresholds = read_csv(run.table_file("thresholds")).reset_index().to_dict("records")
    return {
        "figure": coverage_figure(curve, thresholds),
        "thresholds": [{**row, "interval": (row["accuracy_low"], row["accuracy_high"])}
                       for row in thresholds],
        "deciding": evaluation.get("deciding") or {},
        "decided": evaluation.get("decided") or {},
    }  # fmt: skip


def coverage_figure(curve: pd.DataFrame, thresholds: list[dict[Any, Any]]) -> Markup:
    """Return the drawing of the accuracy of the surest images, by their share of all."""

    def draw(axes: Axes) -> None:
        axes.plot(100 * curve["coverage"], 100 * curve["accuracy"], color=BLUE)
        for row in thresholds:
            place = (100 * row["answered"], 100 * row["accuracy"])
            axes.plot(*place, "D", color=ORANGE, ms=5)
            axes.annotate(f"{100 * row['asked']:g} %", place, xytext=(4, 4),
                          textcoords="offset points")  # fmt: skip
        axes.set(xlabel="images that are answered, surest first (%)", ylabel="answers right (%)",
                 xlim=(0, 103))  # fmt: skip
        axes.grid(axis="y", linewidth=0.7)

    last = curve.iloc[-1]
    half = curve.iloc[(curve["coverage"] - 0.5).abs().argmin()]
    alt = (
        f"Accuracy by coverage: {100 * half['accuracy']:.1f} % of the surest half are right, "
        f"{100 * last['accuracy']:.1f} % of all."
    )
    return svg("coverage", draw, size=(4.6, 3.4), alt=alt)
