"""Images past memory: records read a window at a time, in an order that (seed, step) decides."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from kclassify import runtime
from kclassify.data.spec import WHOLE, PackedImages, Share

runtime.prepare()

import tensorflow as tf  # noqa: E402

# Files that are read at the same time, and those of which records wait to be taken.
AT_ONCE = 2
WAITING = 3 * AT_ONCE


@dataclass(frozen=True)
class Windows:
    """How an epoch is cut into parts that memory holds.

    A window is a third of the memory that the images may take: one is in use, the next is being
    read, and a third is left for what is between files and batches.

    Attributes:
        images: of one window; the last of an epoch may have fewer.
        steps: of one window.
        count: windows of an epoch.
        share_of_epoch: what part of an epoch's images a window has.
    """

    images: int
    steps: int
    count: int
    share_of_epoch: float

    @classmethod
    def of(cls, images: PackedImages, *, batch_size: int, share: Share = WHOLE) -> "Windows":
        """Return the fewest windows of whole steps, as even as whole steps can be."""
        size = batch_size // share.count
        steps = len(images) // batch_size
        most = max(1, images.memory // 3 // (size * _record_bytes(images)))
        each = math.ceil(steps / math.ceil(steps / most))
        return cls(each * size, each, math.ceil(steps / each), each * size / (steps * batch_size))


def shuffled_batches(
    images: PackedImages,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    start: int = 0,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Return the batches of a training, a window of records in memory and the next being read.

    An epoch goes through the files in an order of its own, and through the images of each window
    in one of theirs, so that every image comes once at most. Since images were put into the files
    in random order, a window is a random sample of the split. What differs from a permutation of
    all the images is which of them meet: those of a file stay in one window or in two that are
    next to each other. Where one window holds an epoch, it is a permutation.

    All of it is a function of `seed` and the step. A training that begins at `start` reads the
    window that it is in, and nothing of what comes before.

    Args:
        images: of the split.
        batch_size: images a step, of all shares.
        epochs: how many.
        seed: of the order.
        start: the step to begin with.
        share: a part of every epoch: of so many parts one after another, this process reads its
            own, and makes its part of every batch from it.

    Returns:
        A dataset of steps, int64 ``(batch,)`` places of images in the split, and those images.
    """
    steps = len(images) // batch_size
    windows = Windows.of(images, batch_size=batch_size, share=share)
    order = _Order(images, batch_size=batch_size, seed=seed, windows=windows, share=share)
    first = start // steps * windows.count + start % steps // windows.steps
    read = tf.data.Dataset.range(first, epochs * windows.count).flat_map(order.window).prefetch(1)
    return read.flat_map(partial(order.batches, start=start))


def batches_in_order(images: PackedImages, *, batch_size: int) -> tf.data.Dataset:
    """Return all the images once, in their order; the last batch may be smaller."""
    paths = tf.constant(images.paths)
    files = tf.data.Dataset.range(len(images.paths))
    records = _read_files(images, files, lambda file: tf.data.TFRecordDataset(paths[file]))
    return records.batch(batch_size).map(
        lambda some: _decoded(some, images.input_shape), num_parallel_calls=AT_ONCE
    )


class _Order:
    """Which images are at which positions of an epoch, in TensorFlow's arithmetic."""

    def __init__(
        self, images: PackedImages, *, batch_size: int, seed: int, windows: Windows, share: Share
    ):
        self.images, self.seed, self.windows, self.share = images, seed, windows, share
        self.size = batch_size // share.count
        self.steps = len(images) // batch_size
        with tf.device("CPU:0"):
            self.paths = tf.constant(images.paths)
            self.counts = tf.constant(images.counts, tf.int64)
            self.firsts = tf.constant(np.cumsum(images.counts) - images.counts, tf.int64)

    def window(self, window: tf.Tensor) -> tf.data.Dataset:
        """Return one window: its number, its records as texts, and their order."""
        order, ends = self._files(window // self.windows.count)
        first, last = self._bounds(window)

        def part(place: tf.Tensor) -> tf.data.Dataset:
            begin = ends[place] - self.counts[order[place]]
            skipped = tf.maximum(first - begin, 0)
            taken = tf.minimum(last, ends[place]) - begin - skipped
            return tf.data.TFRecordDataset(self.paths[order[place]]).skip(skipped).take(taken)

        places = tf.searchsorted(ends, [first, last - 1], side="right", out_type=tf.int64)
        files = tf.data.Dataset.range(places[0], places[1] + 1)
        records = _read_files(self.images, files, part).batch(self.windows.images)
        key = self._key(window * self.share.count + self.share.index)
        return records.map(lambda texts: (window, texts, _permutation(tf.size(texts), key)))

    def batches(
        self, window: tf.Tensor, records: tf.Tensor, shuffled: tf.Tensor, *, start: int
    ) -> tf.data.Dataset:
        """Return the batches of a window, from step `start` on."""
        epoch, within = window // self.windows.count, window % self.windows.count
        first = epoch * self.steps + within * self.windows.steps
        last = tf.minimum(first + self.windows.steps, (epoch + 1) * self.steps)
        order, ends = self._files(epoch)

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            places = shuffled[(step - first) * self.size : (step - first + 1) * self.size]
            positions = self._bounds(window)[0] + tf.cast(places, tf.int64)
            found = tf.searchsorted(ends, positions, side="right", out_type=tf.int64)
            files = tf.gather(order, found)
            before = tf.gather(ends, found) - tf.gather(self.counts, files)
            indices = tf.gather(self.firsts, files) + positions - before
            images = _decoded(tf.gather(records, places), self.images.input_shape)
            return step, indices, tf.ensure_shape(images, (self.size, *self.images.input_shape))

        steps = tf.data.Dataset.range(tf.maximum(first, start), last)
        return steps.map(batch, num_parallel_calls=AT_ONCE)

    def _files(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the order of the files in an epoch, and where each ends in it."""
        order = tf.cast(_permutation(len(self.images.paths), self._key(epoch)), tf.int64)
        return order, tf.cumsum(tf.gather(self.counts, order))

    def _bounds(self, window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the positions in its epoch where a window begins and ends."""
        within = window % self.windows.count * self.windows.steps
        last = tf.minimum(within + self.windows.steps, self.steps)
        before = self.share.index * self.steps
        return (before + within) * self.size, (before + last) * self.size

    def _key(self, number: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.constant(self.seed, tf.int64), number])


def _permutation(count: tf.Tensor | int, key: tf.Tensor) -> tf.Tensor:
    """Return a permutation, int32; by sorting: `index_shuffle` leaves neighbours together."""
    drawn = tf.random.stateless_uniform((count,), key, None, None, tf.int32)
    return tf.argsort(drawn, stable=True)


def _read_files(images: PackedImages, files: tf.data.Dataset, read) -> tf.data.Dataset:
    """Return the records of one file after another, of several at once where memory allows it."""
    at_once = AT_ONCE if WAITING * int(images.sizes.max()) <= images.memory // 6 else 1
    if at_once == 1:
        return files.flat_map(read)
    # A block longer than any file: files are read side by side, but follow one another.
    return files.interleave(
        read,
        cycle_length=at_once,
        block_length=int(images.counts.max()) + 1,
        num_parallel_calls=at_once,
        deterministic=True,
    )


def _decoded(records: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    found = tf.io.parse_example(records, {"image": tf.io.FixedLenFeature((), tf.string)})
    return tf.reshape(tf.io.decode_raw(found["image"], tf.uint8), (-1, *shape))


def _record_bytes(images: PackedImages) -> int:
    return math.ceil(int(images.sizes.sum()) / len(images))
