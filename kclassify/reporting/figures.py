"""The drawings of a report: SVG that stands in the page and takes the page's colours."""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

# Blue and orange of Okabe and Ito, told apart by colour-blind readers. Each colour becomes a CSS
# variable of the page, so that one drawing serves light mode, dark mode and paper.
INK, MUTED, LINE, BLUE, ORANGE = "#1c2127", "#5c6670", "#d5dae0", "#0072b2", "#c25400"
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    BLUE: "--blue",
    ORANGE: "--orange",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class name may hold a dollar sign
    "text.usetex": False,
    "text.color": INK,
    "font.size": 9.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": LINE,
    "legend.frameon": False,
}
MOST_CELLS = 20
MOST_MARKERS = 40
# The text of a cell stays readable on this much of its colour, in light and in dark mode.
MOST_OPACITY = 0.55


def learning_curves(history: pd.DataFrame, *, best_epoch: int) -> list[Markup]:
    """Return the drawings of loss, accuracy and learning rate by epoch."""
    percent = history.assign(
        accuracy=100 * history["accuracy"], val_accuracy=100 * history["val_accuracy"]
    )
    both = ("train", "validation")
    drawings = (
        ("loss", "loss (nats)", ("loss", "val_loss"), both),
        ("accuracy", "accuracy (%)", ("accuracy", "val_accuracy"), both),
        ("learning-rate", "learning rate", ("learning_rate",), ("learning rate",)),
    )
    return [
        _curves(name, percent.set_index("epoch")[list(columns)].set_axis(list(labels), axis=1),
                unit=unit, best_epoch=best_epoch)
        for name, unit, columns, labels in drawings
    ]  # fmt: skip


def rate_figure(table: pd.DataFrame, proposals: Mapping[str, float]) -> Figure:
    """Return the drawing of loss by learning rate, with a line for each rule's proposal."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(table["learning_rate"], table["loss"], color=LINE, label="loss")
        axes.plot(table["learning_rate"], table["smoothed"], color=BLUE, label="smoothed")
        styles = ("--", ":", "-.")
        for (rule, rate), style in zip(proposals.items(), styles, strict=False):
            axes.axvline(rate, color=ORANGE, linestyle=style, label=f"{rule}: {rate:.2g}")
        top = 1.1 * table["smoothed"].iloc[: len(table) // 2].max()
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats)", ylim=(0, top))
        axes.legend()
    return figure


def confusion_figure(confusion: np.ndarray, class_names: Sequence[str]) -> Markup:
    """Return the drawing of counts `(given, predicted)`, at most `MOST_CELLS` classes of them.

    A cell is as strong as its share of the given class: right ones in blue from 0 to all, wrong
    ones in orange from 0 to the largest of them.
    """
    classes = len(class_names)
    names = [shorten(name) for name in class_names]

    def draw(axes: Axes) -> None:
        _draw_cells(axes, confusion)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
        axes.set_xlabel("predicted class (images)")
        axes.set_ylabel("given class (images)")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    right = int(np.trace(confusion))
    alt = f"Confusion matrix of {classes} classes: {right} of {confusion.sum()} images are right."
    side = 2 + 0.44 * classes
    return svg("confusion", draw, size=(side, side), alt=alt)


def shorten(name: str, *, most: int = 20) -> str:
    """Return `name` on one line of at most `most` characters."""
    line = " ".join(name.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _curves(name: str, table: pd.DataFrame, *, unit: str, best_epoch: int) -> Markup:
    marker = "o" if len(table) <= MOST_MARKERS else None
    styles = ((BLUE, "-"), (ORANGE, "--"))

    def draw(axes: Axes) -> None:
        for (label, values), (color, line) in zip(table.items(), styles, strict=False):
            axes.plot(table.index, values, line, color=color, marker=marker, ms=3.5, label=label)
        axes.axvline(best_epoch, color=MUTED, linestyle=":", linewidth=1, label="best epoch")
        axes.set(xlabel="epoch (passes over the training images)", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axes.grid(axis="y", linewidth=0.7)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, borderpad=0.2,
                    handlelength=1.6, columnspacing=1.2)  # fmt: skip

    parts = [
        f"{label} from {values.iloc[0]:.3g} to {values.iloc[-1]:.3g}"
        for label, values in table.items()
    ]
    alt = f"{unit} over {len(table)} epochs: {', '.join(parts)}; best epoch {best_epoch}."
    return svg(name, draw, size=(4.2, 3.1), alt=alt)


def _draw_cells(axes: Axes, confusion: np.ndarray) -> None:
    opacities = _opacities(confusion)
    size = 8.5 if confusion.max() < 1000 else 7 if confusion.max() < 10_000 else 5.5
    for given, predicted in np.ndindex(*confusion.shape):
        count = int(confusion[given, predicted])
        color = (BLUE if given == predicted else ORANGE) if count else LINE
        opacity = max(opacities[given, predicted], 0.08) if count else 0.35
        corner = (predicted - 0.47, given - 0.47)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=color, alpha=opacity, linewidth=0))
        axes.text(predicted, given, str(count), ha="center", va="center", fontsize=size,
                  color=INK if count else MUTED)  # fmt: skip


def _opacities(confusion: np.ndarray) -> np.ndarray:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(shares), dtype=bool)
    largest = max(shares[~diagonal].max(), 1e-9)
    return MOST_OPACITY * np.where(diagonal, shares, shares / largest)


def svg(name: str, draw: Callable[[Axes], None], *, size: tuple[float, float], alt: str) -> Markup:
    """Return what `draw` draws as an element of a page.

    Args:
        name: of the drawing, one of its own in the page.
        draw: draws into the axes it is given.
        size: width and height in inches.
        alt: what a reader hears who does not see it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser draws the text, with fonts that matplotlib lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        nothing: dict[str, str | None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), name=name, alt=alt)


def _inline(svg: str, *, name: str, alt: str) -> Markup:
    """Return matplotlib's document as an element of a page that holds others like it."""
    view = re.search(r'viewBox="[\d. ]+"', svg)[0]  # type: ignore[index]
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    replacements: Iterable[tuple[str, str]] = (
        (r"<defs>\s*<style.*?</style>\s*</defs>", ""),  # its rule would reach the whole page
        (r" font-family: [^;]*;", ""),
        (r'(<[^<>]*) id="', rf'\1 id="{name}-'),
        (r'(xlink:href="#|url\(#)', rf"\1{name}-"),
        *((rf"(fill|stroke): {color}", rf"\1: var({key})") for color, key in VARIABLES.items()),
    )
    for pattern, replacement in replacements:
        body = re.sub(pattern, replacement, body, flags=re.DOTALL)
    label = escape(alt)
    return Markup(f'<svg class="plot {name}" role="img" aria-label="{label}" {view}>{body}')


def trade_off_figure(rows: Sequence[Mapping[str, Any]], *, chosen: str) -> Markup:
    """Return the drawing of accuracy by the size of the file, a point a run, with its interval.

    Args:
        rows: of the trade-off, the parent first.
        chosen: the run that is drawn in the other colour.
    """
    table = pd.DataFrame(rows)
    percent = 100 * table[["accuracy", "accuracy_low", "accuracy_high"]]
    front = np.where(table["pareto"], BLUE, MUTED)
    colors = np.where(table["run"] == chosen, ORANGE, front)

    def draw(axes: Axes) -> None:
        for name, size, (value, low, high), color in zip(
            table["run"], table["megabytes"], percent.to_numpy(), colors, strict=True
        ):
            reach = [[value - low], [high - value]]
            axes.errorbar(size, value, reach, fmt="o", color=color, elinewidth=1.0)
            place: dict[str, Any] = {"xytext": (5, 4), "textcoords": "offset points"}
            axes.annotate(shorten(name), (size, value), fontsize=7.5, color=INK, **place)
        axes.set(xlim=(0, 1.2 * table["megabytes"].max()), xlabel="file (MB)")
        axes.set_ylabel("validation accuracy (%)")

    found = [f"{row['run']} {row['megabytes']:.2f} MB {row['accuracy']:.1%}" for row in rows]
    alt = f"Accuracy by the size of the file: {', '.join(found)}."
    return svg("trade-off", draw, size=(6.4, 3.6), alt=alt)
