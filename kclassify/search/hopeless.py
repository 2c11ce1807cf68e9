"""Stopping trials that will not be among the good ones."""

import statistics
from collections.abc import Sequence
from typing import Any

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402

# The epochs that every trial has, and how many trials must have been as long to compare with.
FIRST_EPOCHS, LEAST_TRIALS = 2, 5


class Hopeless(keras.callbacks.Callback):
    """Stop a trial whose best epoch is worse than what half of the others had on average by then.

    The median stopping rule of Golovin et al. (2017), "Google Vizier".

    Args:
        objective: KerasTuner's.
        curves: the objective of each epoch, of every trial before.
    """

    def __init__(self, objective: Any, curves: Sequence[Sequence[float]]):
        super().__init__()
        self.objective, self.curves = objective, curves
        self.values: list[float] = []

    @property
    def state(self) -> dict[str, Any]:
        """The objective of each epoch so far."""
        return {"values": self.values}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.values = state["values"]

    def on_epoch_end(self, epoch, logs=None):
        """Compare with the others, once there are enough."""
        self.values.append(float((logs or {})[self.objective.name]))
        done = len(self.values)
        others = [statistics.fmean(curve[:done]) for curve in self.curves if len(curve) >= done]
        if done < FIRST_EPOCHS or len(others) < LEAST_TRIALS:
            return
        best = max(self.values) if self.objective.direction == "max" else min(self.values)
        if self.objective.better_than(statistics.median(others), best):
            self.model.stop_training = True
