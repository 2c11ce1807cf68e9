"""Small images first: most of what a network learns early, it learns from a few pixels as well."""

from collections.abc import Sequence

from kclassify import runtime

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.data.images import resize_images  # noqa: E402
from kclassify.data.pipeline import AHEAD, PARALLEL, plain_options  # noqa: E402


def growing(dataset: tf.data.Dataset, scales: Sequence[float], *, steps: int) -> tf.data.Dataset:
    """Return the batches of `dataset` with images of one size after the other.

    Howard (2018, "Training Imagenet in 3 hours for 25 minutes") called it progressive resizing.

    Args:
        dataset: uint8 images ``(batch_size, height, width, channels)`` and labels.
        scales: shares of height and width, each for an equal part of the steps.
        steps: how many the parts divide; batches after them have the last size.

    Example:
        >>> import tensorflow as tf
        >>> from kclassify.data.progressive import growing
        >>> batches = tf.data.Dataset.from_tensors((tf.zeros((2, 8, 8, 3), tf.uint8), 0)).repeat(4)
        >>> [images.shape[1] for images, _ in growing(batches, (0.5, 1.0), steps=4)]
        [4, 4, 8, 8]
    """
    images, _ = dataset.element_spec
    height, width = images.shape[1:3]
    sizes = [(scaled(height, scale), scaled(width, scale)) for scale in scales]

    def resized(step, batch):
        images, labels = batch
        stage = tf.minimum(step * len(sizes) // steps, len(sizes) - 1)
        choices = [lambda size=size: resize_images(images, size) for size in sizes]
        images = tf.switch_case(tf.cast(stage, tf.int32), choices)
        return tf.ensure_shape(images, (None, None, None, images.shape[-1])), labels

    grown = dataset.enumerate().map(resized, num_parallel_calls=PARALLEL, deterministic=True)
    return grown.prefetch(AHEAD).with_options(plain_options())


def scaled(pixels: int, scale: float) -> int:
    """Return `pixels` times `scale`, at least 1."""
    return max(1, round(pixels * scale))
