"""Losses for integer and for soft labels alike, with label smoothing and class weights.

Keras smooths one-hot labels only, and its class weights take the argmax of a soft label, which is
wrong for mixed ones; here a label's weight is the mean of its classes' weights.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError, nearest
from kclassify.config import FitConfig
from kclassify.data.spec import Examples

runtime.prepare()

import keras  # noqa: E402
from keras import ops  # noqa: E402


def cross_entropy(logits):
    """Return the cross-entropy in nats that each class would have as the label."""
    return -ops.log_softmax(logits)


def focal(logits, gamma: float = 2.0):
    """Return the focal loss of each class (Lin et al. 2017): sure examples count less."""
    log_probabilities = ops.log_softmax(logits)
    return -((1.0 - ops.exp(log_probabilities)) ** gamma) * log_probabilities


# Functions of logits ``(batch_size, num_classes)`` that return as many losses: all are linear in
# the target, so that a smoothed label needs no vector of its own.
LOSSES: dict[str, Callable] = {"cross_entropy": cross_entropy, "focal": focal}


class ClassifierLoss(keras.losses.Loss):
    """One of `LOSSES` on logits, for labels ``(batch_size,)`` or ``(batch_size, num_classes)``.

    Args:
        loss: a name in `LOSSES`.
        label_smoothing: share of every target that is spread evenly over the classes.
        class_weights: ``(num_classes,)`` factors, or None.
    """

    def __init__(self, loss="cross_entropy", *, label_smoothing=0.0, class_weights=None):
        super().__init__(name="loss")
        self.function = LOSSES[loss]
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights

    def call(self, y_true, y_pred):
        """Return ``(batch_size,)`` losses."""
        each = self.function(ops.cast(y_pred, "float32"))
        smoothing = self.label_smoothing
        losses = (1.0 - smoothing) * _labelled(each, y_true) + smoothing * ops.mean(each, axis=-1)
        if self.class_weights is None:
            return losses
        weights = ops.broadcast_to(ops.convert_to_tensor(self.class_weights), ops.shape(each))
        return losses * _labelled(weights, y_true)


def _labelled(values, labels):
    """Return ``(batch_size,)``: of each row what its label names, or the mean by a soft label."""
    if len(labels.shape) == 2 and labels.shape[-1] == values.shape[-1]:
        return ops.sum(values * ops.cast(labels, "float32"), axis=-1)
    places = ops.reshape(ops.cast(labels, "int32"), (-1, 1))
    return ops.take_along_axis(values, places, axis=-1)[:, 0]


def build_loss(config: FitConfig, train: Examples, class_names: tuple[str, ...]) -> ClassifierLoss:
    """Return the loss of `config`; the weights ``"balanced"`` are counted on `train`."""
    return ClassifierLoss(
        config.loss,
        label_smoothing=config.label_smoothing,
        class_weights=class_weights(config.class_weights, train, class_names),
    )


def class_weights(
    weights: str | Mapping[str, float] | None, train: Examples, class_names: tuple[str, ...]
) -> np.ndarray | None:
    """Return a factor for each class, or None.

    ``"balanced"`` is images / (classes * images of the class), as in scikit-learn, so that the
    mean over the training images is 1. In a mapping, a class that is not named has 1.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        counts = np.bincount(train.class_ids, minlength=len(class_names))
        present = np.count_nonzero(counts)
        return (len(train) / (present * np.maximum(counts, 1))).astype("float32")
    for name, weight in weights.items():
        if name not in class_names:
            raise InputError(
                f"`class_weights` must name classes of the data, {list(class_names)}. "
                f"Received: {name!r}.{nearest(str(name), class_names)}"
            )
        if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InputError(
                f"`class_weights` must be numbers of at least 0. Received: {name!r}: {weight!r}."
            )
    return np.array([weights.get(name, 1.0) for name in class_names], "float32")
