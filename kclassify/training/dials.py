"""Numbers of a configuration that a compiled step reads: another value needs no new graph."""

from kclassify import runtime
from kclassify.config import FitConfig

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.training.losses import ClassifierLoss  # noqa: E402
from kclassify.training.schedules import WarmUpThenShape  # noqa: E402

# Not Keras's variables, which an optimizer would count among its own.
Dials = dict[str, tf.Variable]


def build_dials(
    config: FitConfig,
    *,
    schedule: WarmUpThenShape,
    optimizer: keras.optimizers.Optimizer,
    loss: ClassifierLoss,
) -> Dials:
    """Have schedule, optimizer and loss read variables, with the values of `config`."""
    dials = {
        name: tf.Variable(value, dtype=tf.float32, trainable=False)
        for name, value in _values(config).items()
    }
    schedule.learning_rate, schedule.warmup = dials["learning_rate"], dials["warmup"]
    loss.label_smoothing = dials["label_smoothing"]
    # Without decay there is none of it in the graph.
    if config.weight_decay:
        # One that scales the loss has another inside.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        muon = hasattr(optimizer, "adam_weight_decay")
        setattr(optimizer, "adam_weight_decay" if muon else "weight_decay", dials["weight_decay"])
    return dials


def turn_dials(dials: Dials, config: FitConfig) -> None:
    """Give the variables the values of another configuration."""
    for name, value in _values(config).items():
        dials[name].assign(value)


def _values(config: FitConfig) -> dict[str, float]:
    return {
        "learning_rate": config.learning_rate,
        # A constant rate does not rise.
        "warmup": 0.0 if config.schedule == "constant" else config.warmup,
        "weight_decay": config.weight_decay,
        "label_smoothing": config.label_smoothing,
    }
