"""Items made into pixels of the model's size, by threads that are a batch ahead of the model."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np

from kclassify import runtime
from kclassify.serving.inputs import Item

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import PARALLEL  # noqa: E402
from kclassify.models.engines import direct  # noqa: E402
from kclassify.serving.signatures import decoded, fitted  # noqa: E402

# uint8 pixels (height, width, channels) of the model's size, or why there are none.
Pixels = np.ndarray | str


def read_batches(
    items: Sequence[Item], *, input_shape: tuple[int, ...], batch_size: int
) -> Iterator[list[Pixels]]:
    """Yield what each batch of items holds; the next one is being read meanwhile.

    Files and bytes are decoded, and images resized, by the functions that training uses and that
    an exported SavedModel holds.
    """
    ahead: list[Future[Pixels]] = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            ready, ahead = ahead, [pool.submit(_pixels, item, input_shape) for item in batch]
            if ready:
                yield [pixels.result() for pixels in ready]
        yield [pixels.result() for pixels in ahead]


def _pixels(item: Item, input_shape: tuple[int, ...]) -> Pixels:
    read = item.read()
    image = read.value
    if isinstance(image, np.ndarray):
        return image if image.shape == input_shape else _resizer(input_shape)(image)
    if not isinstance(image, bytes):
        return str(read.error)
    try:
        return _decoder(input_shape)(image)
    except tf.errors.InvalidArgumentError as error:
        return first_line(error)


@cache
def _decoder(input_shape: tuple[int, ...]) -> Callable[[bytes], np.ndarray]:
    function = tf.function(
        lambda encoded: decoded(encoded, input_shape),
        input_signature=[tf.TensorSpec((), tf.string)],
    )
    return direct(function.get_concrete_function(), tf.uint8)


@cache
def _resizer(input_shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    function = tf.function(
        lambda image: fitted(image[tf.newaxis], input_shape[:2])[0],
        input_signature=[tf.TensorSpec((None, None, input_shape[2]), tf.uint8)],
    )
    return direct(function.get_concrete_function(), tf.uint8)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(getattr(error, "message", error)).strip().partition("\n")[0]
