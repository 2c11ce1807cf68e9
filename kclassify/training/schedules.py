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
        total_steps: steps of the whole training; `set_total_steps` changes it while it runs.
        warmup: share of the steps that the rise takes.
        begin: how far along the shape to begin, in [0, 1): a network that was trained is gone on
            with at the rate that it had there, without a rise (Renda et al. 2020, "Comparing
            Rewinding and Fine-tuning in Neural Network Pruning").
    """

    def __init__(
        self,
        learning_rate: float,
        shape: str,
        total_steps: int,
        warmup: float,
        begin: float = 0.0,
    ):
        self.learning_rate = learning_rate
        self.shape = shape
        self.warmup = warmup
        self.begin = begin
        # A variable, so that a change of plan does not need a new graph.
        self._total = keras.Variable(total_steps, dtype="float32", trainable=False)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return int(self._total.numpy())

    def set_total_steps(self, total_steps: int) -> None:
        """Stretch or shorten what is left of the schedule."""
        self._total.assign(total_steps)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        total = ops.convert_to_tensor(self._total)
        rise = 0.0 if self.begin else ops.round(self.warmup * total)
        done = ops.clip((step - rise) / ops.maximum(1.0, total - rise), 0.0, 1.0)
        rising = (step + 1.0) / ops.maximum(1.0, rise)
        place = self.begin + (1.0 - self.begin) * done
        return self.learning_rate * ops.minimum(rising, SHAPES[self.shape](place))

    def get_config(self):
        """Return the constructor's arguments."""
        names = ("learning_rate", "shape", "total_steps", "warmup", "begin")
        return {name: getattr(self, name) for name in names}


def build_schedule(config: FitConfig, *, total_steps: int, begin: float = 0.0) -> WarmUpThenShape:
    """Return the schedule of `config` over `total_steps`; a constant one has no warm-up."""
    warmup = 0.0 if config.schedule == "constant" else config.warmup
    return WarmUpThenShape(config.learning_rate, config.schedule, total_steps, warmup, begin)
