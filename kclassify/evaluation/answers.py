"""What a model says of images in memory, without a dataset around them."""

from collections.abc import Callable

import numpy as np

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

BATCH = 256


def answers_of(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from uint8 images to the ``(n,)`` class indices that a model gives them.

    Args:
        model: maps uint8 images ``(batch_size, height, width, channels)`` to logits.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.answers import answers_of
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("convnet", input_shape=(8, 8, 3), num_classes=2, depth=2)
        >>> answers_of(model)(np.zeros((3, 8, 8, 3), np.uint8)).shape
        (3,)
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def answer(images: tf.Tensor) -> tf.Tensor:
        return tf.argmax(model(images, training=False), axis=1)

    def answers(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), BATCH)
        return np.concatenate([answer(images[start : start + BATCH]) for start in starts])

    return answers
