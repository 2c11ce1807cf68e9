"""The learning rate over time: a linear warm-up, then a shape over the share of steps that is left.

Every shape is a function of one number, so a schedule knows nothing of steps, epochs or batches.
"""

import math
from collections.abc import Callable
from typing import Any

from kclassify import runtime
from kclassify.config import FitConfig

runtime.prepare()

import keras  # noqa: E402
from keras import ops  # noqa: E402

# From the share of the steps done since the warm-up, in [0, 1], to the share of the highest rate.
SHAPES: dict[str, Callable[[Any], Any]] = {
    "constant": ops.ones_like,
    # A tenth after one half, a hundredth after three quarters (He et al. 2016).
    "step": lambda done: (
        10.0 ** -ops.cast((done >= 0.5), "float32") * 10.0 ** -ops.cast((done >= 0.75), "float32")
    ),
    "exponential": lambda done: 0.01**done,
    # Loshchilov and Hutter 2017, without restarts.
    "cosine": lambda done: 0.5 * (1.0 + ops.cos(math.pi * done)),
    # With the warm-up, the one-cycle policy of Smith and Topin 2018.
    "triangular": lambda done: 1.0 - done,
}


class WarmUpThenShape(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly over the first steps, then follow one of `SHAPES` to the last step.

    Args:
        learning_rate: the highest rate.
        shape: a name in `SHAPES`.
        total_steps: steps of the whole training.
        warmup_steps: how many of them the rise takes.
    """

    def __init__(self, learning_rate: float, shape: str, total_steps: int, warmup_steps: int):
        self.learning_rate = learning_rate
        self.shape = shape
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        left = max(1, self.total_steps - self.warmup_steps)
        done = ops.clip((step - self.warmup_steps) / left, 0.0, 1.0)
        rising = (step + 1.0) / max(1, self.warmup_steps)
        return self.learning_rate * ops.minimum(rising, SHAPES[self.shape](done))

    def get_config(self):
        """Return the constructor's arguments."""
        names = ("learning_rate", "shape", "total_steps", "warmup_steps")
        return {name: getattr(self, name) for name in names}


def build_schedule(config: FitConfig, *, total_steps: int) -> WarmUpThenShape:
    """Return the schedule of `config` over `total_steps`; a constant one has no warm-up."""
    warmup = 0.0 if config.schedule == "constant" else config.warmup
    return WarmUpThenShape(
        config.learning_rate, config.schedule, total_steps, round(warmup * total_steps)
    )
