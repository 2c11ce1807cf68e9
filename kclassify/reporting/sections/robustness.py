"""How accurate the run is on worse images, and on images changed against it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from kclassify.reporting.figures import BLUE, INK, MOST_OPACITY, ORANGE, svg
from kclassify.reporting.pictures import data_uri
from kclassify.reporting.sections.explanation import read_arrays
from kclassify.reporting.tables import read_analysis, read_csv
from kclassify.runs import Run

TITLE = "Robustness"


def read(run: Run) -> dict[str, Any] | None:
    """Return the drawings, the examples, and the rows by corruption, by class and by attack."""
    found = read_analysis(run, "robustness")
    if found is None:
        return None
    table = read_csv(run.table_file("robustness")).reset_index()
    classes = read_csv(run.table_file("robustness_classes")).reset_index()
    attacks = read_csv(run.table_file("adversarial")).reset_index()
    return {
        **found,
        "severities": [name for name in table["severity"].unique().tolist() if name],
        "figure": heat_figure(table),
        "corruptions": _corruptions(found["corruptions"], table),
        "examples": _examples(run),
        "classes": _classes(classes, run.config["class_names"]),
        "attacks": [_attack(row) for row in attacks.to_dict("records")],
        "attack_figure": attack_figure(attacks) if len(attacks) else None,
    }


def heat_figure(table: pd.DataFrame) -> Markup:
    """Return the drawing of the accuracy by corruption and severity, a number in every cell.

    The stronger a cell, the more images are wrong.

    Args:
        table: `corruption`, `severity` and `accuracy`; severity 0 is that of clean images.
    """
    wide = table[table["severity"] > 0].pivot_table(
        index="corruption", columns="severity", values="accuracy", sort=False
    )
    wide["mean"] = wide.mean(axis=1)
    clean = table.loc[table["severity"] == 0, "accuracy"].item()

    def draw(axes: Axes) -> None:
        _draw_cells(axes, wide.to_numpy())
        rows, columns = wide.shape
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        axes.set_xticks(range(columns), [str(name) for name in wide.columns])
        axes.set_yticks(range(rows), [_words(name) for name in wide.index])
        axes.set_xlabel(f"severity; in the cells: right (%), of clean images {100 * clean:.1f} %")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    means = ", ".join(
        f"{_words(str(name))} {100 * mean:.1f} %" for name, mean in wide["mean"].items()
    )
    alt = f"Accuracy by corruption, {100 * clean:.1f} % on clean images; on average {means}."
    return svg("robustness", draw, size=(5.6, 1 + 0.3 * len(wide)), alt=alt)


def _draw_cells(axes: Axes, accuracies: np.ndarray) -> None:
    for (row, column), accuracy in np.ndenumerate(accuracies):
        axes.add_patch(
            Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=ORANGE, linewidth=0,
                      alpha=MOST_OPACITY * (1 - accuracy))
        )  # fmt: skip
        axes.text(column, row, f"{100 * accuracy:.1f}", ha="center", va="center", color=INK)


def attack_figure(attacks: pd.DataFrame) -> Markup:
    """Return the drawing of the accuracy by how much an attack may change, with intervals.

    Args:
        attacks: `attack`, `epsilon`, `accuracy`, `low` and `high`.
    """
    styles = ((BLUE, "-", "o"), (ORANGE, "--", "s"))
    curves = list(attacks.groupby("attack", sort=False))

    def draw(axes: Axes) -> None:
        for (name, rows), (color, line, marker) in zip(curves, styles, strict=False):
            axes.plot(rows["epsilon"], 100 * rows["accuracy"], line, color=color, marker=marker,
                      ms=4, label=str(name).upper())  # fmt: skip
            axes.vlines(rows["epsilon"], 100 * rows["low"], 100 * rows["high"], color=color)
        axes.set(xlabel="change of each value (of 255)", ylabel="right (%)", ylim=(-2, 102))
        axes.grid(axis="y", linewidth=0.7)
        axes.legend()

    last = [f"{str(name).upper()} {100 * rows['accuracy'].iloc[-1]:.1f} % at "
            f"{rows['epsilon'].iloc[-1]} of 255" for name, rows in curves]  # fmt: skip
    first = 100 * attacks["accuracy"].iloc[0]
    alt = f"Accuracy under attack, from {first:.1f} % without: {', '.join(last)}."
    return svg("attacks", draw, size=(4.2, 3.1), alt=alt)


def _corruptions(rows: Sequence[dict[str, Any]], table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the corruptions, worst first, each with its accuracies by severity."""
    cells = table.set_index(["corruption", "severity"])["accuracy"]
    found = [
        {**row, "name": _words(row["corruption"]),
         "accuracies": cells[row["corruption"]].tolist()}
        for row in rows
    ]  # fmt: skip
    return sorted(found, key=lambda row: row["accuracy"])


def _examples(run: Run) -> list[dict[str, Any]]:
    arrays = read_arrays(run, "robustness")
    each = zip(arrays["corruptions"].tolist(), arrays["images"], strict=True)
    return [{"name": _words(name), "image": data_uri(image), "small": max(image.shape) < 128}
            for name, image in each]  # fmt: skip


def _classes(table: pd.DataFrame, names: Sequence[str]) -> list[dict[Any, Any]]:
    """Return the classes, worst first; those without images last."""
    # A reader of tables takes "1" or "NA" for a value.
    named = table.assign(name=list(names)).sort_values("accuracy", kind="stable")
    return [
        {**row, "interval": (row["low"], row["high"]) if row["images"] else None,
         "worst": _words(row["worst_corruption"]) if row["images"] else None}
        for row in named.to_dict("records")
    ]  # fmt: skip


def _attack(row: dict[Any, Any]) -> dict[Any, Any]:
    return {**row, "name": row["attack"].upper(), "interval": (row["low"], row["high"])}


def _words(name: str) -> str:
    return name.replace("_", " ")
