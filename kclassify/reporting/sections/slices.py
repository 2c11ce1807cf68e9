"""On which images the run is worse than on the others."""

from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from kclassify.reporting.figures import BLUE, MUTED, ORANGE, shorten, svg
from kclassify.reporting.tables import read_analysis
from kclassify.runs import Run

TITLE = "Slices"
MOST_ROWS = 16


def read(run: Run) -> dict[str, Any] | None:
    """Return the worst slices, what is said of them, and the drawing."""
    found = read_analysis(run, "slices")
    if found is None:
        return None
    rows = [_row(row) for row in found["slices"][:MOST_ROWS]]
    figure = slices_figure(rows, accuracy=found["accuracy"]) if rows else None
    return {**found, "rows": rows, "figure": figure, "all": len(found["slices"])}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    number = row["from"] is not None
    return {
        **row,
        "range": (row["from"], row["to"]) if number else None,
        "interval": (row["low"], row["high"]),
        "points": 100 * row["difference"],
    }


def slices_figure(rows: list[dict[str, Any]], *, accuracy: float) -> Markup:
    """Return the drawing of the accuracy of slices, with intervals, beside that of all images."""
    names = [shorten(f"{row['property']}: {row['slice']}", most=34) for row in rows]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            color, marker = (ORANGE, "D") if row["worse"] else (BLUE, "o")
            ends = [100 * end for end in row["interval"]]
            axes.plot(ends, [place, place], color=color)
            axes.plot(100 * row["accuracy"], place, marker, color=color, ms=5)
        axes.axvline(100 * accuracy, color=MUTED, linestyle=":")
        axes.set_yticks(range(len(rows)), names)
        axes.set(xlabel="right (%), with 95 % of chance; dotted: all images",
                 ylim=(len(rows) - 0.5, -0.5))  # fmt: skip
        axes.grid(axis="x", linewidth=0.7)

    said = ", ".join(f"{name} {100 * row['accuracy']:.1f} %"
                     for name, row in zip(names, rows, strict=True))  # fmt: skip
    alt = f"Accuracy of the {len(rows)} worst slices, of all {100 * accuracy:.1f} %: {said}."
    return svg("slices", draw, size=(6.0, 1.1 + 0.27 * len(rows)), alt=alt)
