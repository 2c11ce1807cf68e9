"""What the network's features say: close classes, nearest training images, filters."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from kclassify.reporting.figures import BLUE, ORANGE, shorten, svg
from kclassify.reporting.pictures import data_uri
from kclassify.reporting.sections.explanation import read_arrays
from kclassify.reporting.tables import TEXTS, read_analysis, read_csv
from kclassify.runs import Run

TITLE = "What it learned"
MOST_ERRORS, MOST_LABELS = 8, 20
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def read(run: Run) -> dict[str, Any] | None:
    """Return the closest classes, the neighbours of the worst errors, filters and the drawing."""
    found = read_analysis(run, "learned")
    if found is None:
        return None
    arrays = read_arrays(run, "features")
    neighbours = read_csv(run.table_file("neighbours"), texts=TEXTS).reset_index()
    embedding = read_csv(run.table_file("embedding"), texts=TEXTS).reset_index()
    filters = arrays.get("filters")
    return {
        **found,
        "errors": list(_errors(neighbours, arrays))[:MOST_ERRORS],
        "figure": embedding_figure(embedding, run.config["class_names"], found["drawn_by"]),
        "filter_images": [] if filters is None else [data_uri(one) for one in filters],
    }


def embedding_figure(table: pd.DataFrame, class_names: list[str], drawn_by: str) -> Markup:
    """Return the drawing of the images in two dimensions, a mark and a colour for each class.

    Blue and orange take turns and every second class has another mark, so that 20 classes are
    told apart; a class's name is written at its middle, of the first 20.
    """
    # A reader of tables takes "1" for a number.
    given = table["given"].astype(str)
    parts = [(place, name, table[given == name]) for place, name in enumerate(class_names)]

    def draw(axes: Axes) -> None:
        for place, _, points in parts:
            axes.scatter(points["x"], points["y"], s=9, alpha=0.6, linewidths=0,
                         color=(BLUE, ORANGE)[place % 2],
                         marker=MARKERS[place // 2 % len(MARKERS)])  # fmt: skip
        for _, name, points in parts[:MOST_LABELS]:
            if len(points):
                axes.text(points["x"].median(), points["y"].median(), shorten(name), ha="center",
                          va="center", fontweight="bold", fontsize=10)  # fmt: skip
        axes.set(xlabel=f"{drawn_by}, first coordinate (no unit)",
                 ylabel=f"{drawn_by}, second coordinate (no unit)")  # fmt: skip

    alt = (f"{len(table)} images of {len(class_names)} classes in two dimensions by {drawn_by} of "
           "the network's features; images that the network sees as alike are close.")  # fmt: skip
    return svg("embedding", draw, size=(6.4, 5.2), alt=alt)


def _errors(table: pd.DataFrame, arrays: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    # By place: an image that is listed twice has the same name both times.
    places = np.arange(len(table)) // max(1, arrays["nearest"].shape[1])
    each = zip(table.groupby(places), arrays["errors"], arrays["nearest"], strict=True)
    for (_, rows), image, nearest in each:
        first = rows.iloc[0]
        close = zip(rows.to_dict("records"), nearest, strict=True)
        yield {
            "id": first["id"], "given": first["given"], "predicted": first["predicted"],
            "image": data_uri(image), "small": image.shape[0] < 128,
            "neighbours": [{**row, "image": data_uri(other)} for row, other in close],
        }  # fmt: skip
