"""The drawings of a search's report."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from kclassify.reporting.figures import BLUE, INK, LINE, MUTED, ORANGE, shorten, svg
from kclassify.reporting.importance import as_numbers

# The best so many are drawn in colour.
COLOURED = 3
# Of an axis with numbers: how many of them are written.
MOST_TICKS = 5


def parallel_coordinates(trials: pd.DataFrame, names: Sequence[str], objective: str) -> Markup:
    """Return the drawing with an axis for each hyper-parameter and a line for each trial.

    Args:
        trials: a row a trial, the best first.
        names: of the hyper-parameters.
        objective: the last axis.
    """
    columns = [*names, objective]
    scaled = pd.DataFrame({name: _scaled(trials[name]) for name in columns})

    def draw(axes: Axes) -> None:
        places = range(len(columns))
        for rank in reversed(range(len(trials))):
            color, width = (BLUE, 1.8) if rank < COLOURED else (LINE, 1.0)
            axes.plot(places, scaled.iloc[rank], color=color, linewidth=width)
        for place, name in enumerate(columns):
            axes.axvline(place, color=MUTED, linewidth=0.8)
            for height, text in _ticks(trials[name]):
                axes.text(place + 0.03, height, text, fontsize=7.5, color=INK)
        axes.set_xticks(places, [shorten(name) for name in columns], rotation=20, ha="right")
        axes.set(ylim=(-0.06, 1.08), xlim=(-0.1, len(columns) - 0.6), yticks=[])
        axes.spines[:].set_visible(False)

    best = ", ".join(f"{name} {trials[name].iloc[0]}" for name in columns)
    alt = f"Parallel coordinates of {len(trials)} trials; the best has {best}."
    return svg("parallel", draw, size=(max(5.0, 1.25 * len(columns)), 3.6), alt=alt)


def importance_figure(shares: pd.Series) -> Markup:
    """Return the drawing of how much each hyper-parameter explains."""

    def draw(axes: Axes) -> None:
        names = [shorten(name) for name in shares.index]
        axes.barh(names, 100 * shares.to_numpy(), color=BLUE, height=0.6)
        axes.invert_yaxis()
        axes.set_xlabel("share of what is explained (%)")
        axes.tick_params(axis="y", length=0)

    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    alt = f"Importance of the hyper-parameters: {parts}."
    return svg("importance", draw, size=(5.4, 0.7 + 0.32 * len(shares)), alt=alt)


def trial_curves(curves: Mapping[str, pd.Series], objective: str) -> Markup:
    """Return the drawing of the objective by epoch, a line a trial.

    Args:
        curves: the objective by epoch, by trial, the best first.
        objective: its name.
    """

    def draw(axes: Axes) -> None:
        for rank, (name, curve) in reversed(list(enumerate(curves.items()))):
            color = (BLUE, ORANGE, INK)[rank] if rank < COLOURED else LINE
            label = f"trial {name}" if rank < COLOURED else None
            axes.plot(curve.index, curve, color=color, marker="o", ms=2.5, label=label,
                      linewidth=1.6 if rank < COLOURED else 0.9)  # fmt: skip
        axes.set(xlabel="epoch", ylabel=objective)
        axes.grid(axis="y", linewidth=0.7)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1])

    alt = f"{objective} by epoch of {len(curves)} trials."
    return svg("trials", draw, size=(5.4, 3.4), alt=alt)


def _scaled(values: pd.Series) -> pd.Series:
    """Return values from 0 to 1; by their logarithms where they span orders of magnitude."""
    numbers = as_numbers(values)
    if _by_logarithms(values):
        numbers = np.log(numbers)
    span = numbers.max() - numbers.min()
    return (numbers - numbers.min()) / span if span else numbers * 0 + 0.5


def _by_logarithms(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values, errors="coerce")
    return bool(numbers.notna().all() and numbers.min() > 0 and numbers.max() >= 8 * numbers.min())


def _ticks(values: pd.Series) -> list[tuple[float, str]]:
    """Return heights and texts of what is written along an axis."""
    pairs = sorted({(float(h), _text(v)) for h, v in zip(_scaled(values), values, strict=True)})
    if len(pairs) <= MOST_TICKS:
        return pairs
    return [pairs[round(place)] for place in np.linspace(0, len(pairs) - 1, 3)]


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return shorten(str(value), most=16)
