"""The optimizers by name: Keras's own, with weight decay on kernels alone."""

from collections.abc import Callable

from kclassify import runtime
from kclassify.config import FitConfig

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.training.muon import ConvolutionMuon  # noqa: E402

OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "momentum": lambda **options: keras.optimizers.SGD(momentum=0.9, **options),
    "nesterov": lambda **options: keras.optimizers.SGD(momentum=0.9, nesterov=True, **options),
    "adagrad": keras.optimizers.Adagrad,
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    # Keras's takes no None.
    "adamw": lambda weight_decay, **options: keras.optimizers.AdamW(
        weight_decay=weight_decay or 0.0, **options
    ),
    "lion": keras.optimizers.Lion,
    # Momentum, iterations and the ratio of the rates are for trainings of some hundred steps. A
    # decay of 0, not None, would write every weight in every step.
    "muon": lambda weight_decay, **options: ConvolutionMuon(
        weight_decay=None,
        adam_weight_decay=weight_decay,
        adam_lr_ratio=0.05,
        adam_beta_2=0.95,
        momentum=0.6,
        ns_steps=3,
        **options,
    ),
}


def build_optimizer(
    config: FitConfig,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    *,
    policy: str = "float32",
) -> keras.optimizers.Optimizer:
    """Return the optimizer that `config` names; biases and normalization are not decayed.

    Under the dtype policy ``"mixed_float16"`` the loss is scaled, so that small gradients are not
    rounded to zero.
    """
    optimizer = OPTIMIZERS[config.optimizer](
        learning_rate=schedule,
        weight_decay=config.weight_decay or None,
        global_clipnorm=config.gradient_clip,
        use_ema=config.ema is not None,
        ema_momentum=0.99 if config.ema is None else config.ema,
    )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if policy == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def leave_out_all_reduce(optimizer: keras.optimizers.Optimizer) -> None:
    """Do not sum the gradients over one replica.

    The sum is the identity, but TensorFlow registers a gradient for it that is never released, and
    with it the graph of the step: each network that Keras trains costs about 15 MiB for good.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        optimizer._all_reduce_sum_gradients = list


def clip_sums(optimizer: keras.optimizers.Optimizer) -> None:
    """Clip the gradient of the whole batch, as one device does; Keras clips each replica's part."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    clip = optimizer._clip_gradients

    def clipped(gradients: list) -> list:
        context = tf.distribute.get_replica_context()
        return clip(context.all_reduce(tf.distribute.ReduceOp.SUM, gradients))

    optimizer._clip_gradients = clipped
    # They are summed already.
    optimizer._all_reduce_sum_gradients = list


class ClipValue(keras.constraints.Constraint):
    """Keep every weight within ``[-limit, limit]`` after each step."""

    def __init__(self, limit: float):
        self.limit = limit

    def __call__(self, w):
        return keras.ops.clip(w, -self.limit, self.limit)


def clip_kernels(model: keras.Model, limit: float) -> None:
    """Constrain the kernels of `model`.

    The constraint is set on the variables, not on the layers: it does not get into `model.keras`,
    which must open without kclassify.
    """
    for variable in model.trainable_variables:
        if "kernel" in variable.name:
            variable.constraint = ClipValue(limit)
