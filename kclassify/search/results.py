"""What a search has found: a row a trial, which of them are as good as the best, and the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kclassify.config import FitConfig
from kclassify.search.folder import SearchFolder
from kclassify.search.space import Dimension, plain_values

# Of a normal distribution, for 95 %.
Z = 1.96
SHOWN = 10


@dataclass(frozen=True)
class Search:
    """A search and what it found; printing it shows the best trials.

    Attributes:
        folder: where it is kept.
        trials: a row a trial, the best first.
        objective: the column that they are ranked by.
        images: how many the objective was measured on.
        best: the best trial's configuration; None where no trial has ended, or a hyper-model has
            built the models.
        command: what trains it; empty where there is none.
    """

    folder: SearchFolder
    trials: pd.DataFrame
    objective: str
    images: int
    best: FitConfig | None
    command: str

    @property
    def ties(self) -> int:
        """How many trials, the best among them, cannot be told apart from the best."""
        return int(self.trials["tied"].sum()) if "tied" in self.trials else 0

    @property
    def verdict(self) -> str:
        """The sentence on the best trial, and on those that are as good."""
        if self.objective not in self.trials:
            return "no trial has ended yet"
        best = self.trials.iloc[0]
        value = f"{self.objective} {best[self.objective]:.4f} of trial {best['trial']}"
        if "accuracy" in self.objective:
            low, high = interval(best[self.objective], self.images)
            value += f" (95 % of chance: {low:.4f} to {high:.4f})"
        images = f"at {self.images:,} images"
        if self.ties > 1:
            return f"{value}; the best {self.ties} cannot be told apart {images}"
        return f"{value}, better than the others {images}"

    def __str__(self) -> str:
        hidden = ["tied", "run", "loss", "accuracy"]
        shown = self.trials.drop(columns=hidden, errors="ignore").head(SHOWN)
        lines = [shown.to_string(index=False, na_rep=""), self.verdict]
        lines += [f"report    {self.folder.report_file}"]
        return "\n".join([*lines, f"next: {self.command}"] if self.command else lines)


def trial_rows(
    trials: Sequence[Any], folder: SearchFolder, dimensions: Sequence[Dimension]
) -> list[dict[str, Any]]:
    """Return a row for each of KerasTuner's trials: state, metrics, hyper-parameters."""
    rows = []
    for trial in trials:
        outcome = folder.outcome(trial.trial_id) or {}
        metrics = outcome.get("metrics", {})
        values = trial.hyperparameters.values
        values = plain_values(dimensions, values) if dimensions else _own(values)
        rows.append(
            {
                "trial": trial.trial_id,
                "state": outcome.get("state") or _state(trial.status),
                **metrics,
                "spread": outcome.get("spread"),
                "epochs": outcome.get("epochs"),
                "seconds": outcome.get("seconds"),
                "run": outcome.get("run"),
                # As the space says it; nothing at all is what a condition has left out.
                **{name: "null" if value is None else value for name, value in values.items()},
            }
        )
    return rows


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a hyper-model of the user's, without KerasTuner's own."""
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


def _state(status: str) -> str:
    words = {"RUNNING": "unfinished", "FAILED": "failed", "INVALID": "to be tried again"}
    return words.get(status, "done")


def table(rows: Sequence[Mapping[str, Any]], objective: Any, *, images: int) -> pd.DataFrame:
    """Return the rows as a table, the best first, with what cannot be told apart from the best."""
    found = pd.DataFrame(rows).dropna(axis="columns", how="all")
    if objective.name not in found:
        return found
    # Of two that are equal, the one that was cheaper to find.
    rising = objective.direction == "min"
    found = found.sort_values([objective.name, "seconds"], ascending=[rising, True],
                              na_position="last", ignore_index=True)  # fmt: skip
    return found.assign(tied=_tied(found, objective, images=images))


def interval(share: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that was measured on `images` (Wilson 1927).

    Example:
        >>> [round(end, 3) for end in interval(0.9, 5000)]
        [0.891, 0.908]
    """
    centre = (share + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    half /= 1 + Z**2 / images
    return centre - half, centre + half


def _tied(found: pd.DataFrame, objective: Any, *, images: int) -> pd.Series:
    """Say of each row whether chance alone may be why it is not the best.

    Only of accuracies is it known how much chance moves them.
    """
    values = found[objective.name]
    best = values.iloc[0]
    if "accuracy" not in objective.name:
        return values == best
    deviations = (values * (1 - values) / images).pow(0.5)
    return (values - best).abs() <= Z * (deviations.pow(2) + deviations.iloc[0] ** 2).pow(0.5)
