"""tf.data pipelines in which (seed, step) decides everything: no state to save, none to restore."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.config import MIXING
from kclassify.data.selection import Selection
from kclassify.data.spec import WHOLE, Examples, FileImages, PackedImages, Share

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.data.augmentation import AUGMENTATIONS, MIRRORING, crop  # noqa: E402
from kclassify.data.images import decode_file  # noqa: E402
from kclassify.data.service import served  # noqa: E402
from kclassify.data.windows import batches_in_order, shuffled_batches  # noqa: E402

PARALLEL = runtime.concurrency()
# Batches that are made ahead of the step that uses them.
AHEAD = 2
# From the places of images to their labels.
Labels = Callable[[tf.Tensor], tf.Tensor]


def train_dataset(
    examples: Examples,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    augmentation: str,
    num_classes: int | None = None,
    start: int = 0,
    share: Share = WHOLE,
    service: str | None = None,
    selection: Selection | None = None,
) -> tf.data.Dataset:
    """Return all the batches of a training, one epoch after another.

    Every epoch has its own order, a permutation keyed by ``(seed, epoch)``; the augmentation is
    keyed by ``(seed, step)``. So a step's batch is the same however the run got there. The order of
    packed images that stay on the disk is that of `shuffled_batches`.

    Where images are mirrored, it is every other epoch: half of them in the even ones, the other
    half in the odd ones, so that two epochs show all images both ways (Jordan 2024).

    Args:
        examples: the split.
        batch_size: images a step; what is left at an epoch's end is left out of it.
        epochs: how many.
        seed: of the order and the augmentation.
        augmentation: a name in `AUGMENTATIONS`.
        num_classes: for float32 labels ``(batch_size, num_classes)``; None for class indices.
        start: the step to begin with; what comes before it is never made.
        share: which part of every batch to make; together the parts are the whole, to the bit.
            Of packed images each is a part of the epoch of its own: see `shuffled_batches`.
        service: the address of a tf.data service whose workers make the batches, see `served`.
        selection: what every epoch shows, where it is not all images; not of packed ones.

    Returns:
        A dataset of ``epochs * (len(examples) // batch_size) - start`` pairs: uint8 images
        ``(batch_size, height, width, channels)`` and labels, int32 ``(batch_size,)`` or float32;
        of a share, so many times fewer.

    Example:
        >>> import numpy as np
        >>> from kclassify.data.pipeline import train_dataset
        >>> from kclassify.data.spec import Examples
        >>> images, ids = np.zeros((10, 8, 8, 3), "uint8"), np.arange(10).astype(str)
        >>> examples = Examples(images, np.arange(10, dtype="int32"), ids)
        >>> dataset = train_dataset(examples, batch_size=4, epochs=3, seed=0, augmentation="crop")
        >>> int(dataset.cardinality())
        6
    """
    if augmentation in MIXING and num_classes is None:
        raise InputError(
            f"`num_classes` must be given with an augmentation that mixes labels. "
            f"Received: None with augmentation={augmentation!r}."
        )
    # What mixes images of a batch must see all of it.
    seen = WHOLE if augmentation in MIXING else share
    order = _Order(len(examples), batch_size=batch_size, seed=seed, share=seen, selection=selection)
    if isinstance(examples.images, PackedImages):
        batches = shuffled_batches(
            examples.images, batch_size=batch_size, epochs=epochs, seed=seed, start=start,
            share=seen,
        ).map(_labeller(examples, num_classes, order), num_parallel_calls=PARALLEL)  # fmt: skip
    else:
        batches = _gathered(
            examples, _label_reader(examples, num_classes), order=order, start=start, epochs=epochs
        )
    augmented = batches.map(_augmenter(augmentation, seed, seen), PARALLEL)
    if seen != share:
        augmented = augmented.map(partial(_own, share=share, size=batch_size // share.count))
    made = served(augmented, service) if service else augmented
    count = tf.data.experimental.assert_cardinality(epochs * order.steps - start)
    return made.apply(count).prefetch(AHEAD).with_options(plain_options())


class _Order:
    """Which images a share of a step's batch takes, and which of them are mirrored."""

    def __init__(
        self, count: int, *, batch_size: int, seed: int, share: Share, selection: Selection | None
    ):
        self.count, self.batch_size, self.seed, self.share = count, batch_size, seed, share
        self.part = batch_size // share.count
        self.steps = count // batch_size
        self.selection = selection
        with tf.device("CPU:0"):
            self.coins = tf.random.stateless_uniform((count,), (seed, 0)) < 0.5
            self.selected = tf.constant(selection.indices) if selection else None

    def chosen(self, step: tf.Tensor, within: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return which images the places `within` the share take, and whether mirrored."""
        positions = step * self.batch_size + self.share.index * self.part + within
        used = self.steps * self.batch_size
        if self.selection is None:
            indices = _shuffled(positions, self.count, used, self.seed)
            return indices, self.mirrored(step, indices)
        places = positions % used
        indices = tf.gather(self.selected, places)
        return indices, self.mirrored(step, indices, again=places // self.selection.shown)

    def mirrored(self, step: tf.Tensor, indices: tf.Tensor, *, again: object = 0) -> tf.Tensor:
        """Return which of a step's images are mirrored; what comes again is so the other way."""
        odd = (step // self.steps + again) % 2 == 1
        return tf.gather(self.coins, indices) != odd


def _gathered(
    examples: Examples, labels: Labels, *, order: _Order, start: int, epochs: int
) -> tf.data.Dataset:
    """Return the steps, and their batches of images that can be had one by one."""
    part, end = order.part, epochs * order.steps
    if isinstance(examples.images, FileImages):
        one = _file_reader(examples.images, labels)
        single = tf.data.Dataset.range(start * part, end * part).map(
            lambda count: _with(one, *order.chosen(count // part, count % part)),
            num_parallel_calls=PARALLEL,
        )
        batches = single.batch(part, drop_remainder=True)
        return batches.enumerate(start).map(lambda step, batch: (step, *batch))
    many = _batch_reader(examples.images, labels)
    within = tf.range(part, dtype=tf.int64)
    return tf.data.Dataset.range(start, end).map(
        lambda step: (step, *_with(many, *order.chosen(step, within))), num_parallel_calls=PARALLEL
    )


def _own(images: tf.Tensor, labels: tf.Tensor, *, share: Share, size: int) -> tuple[tf.Tensor, ...]:
    own = slice(share.index * size, (share.index + 1) * size)
    return images[own], labels[own]


def _labeller(examples: Examples, num_classes: int | None, order: _Order):
    """Return the function that gives packed images their labels, and says which are mirrored."""
    labels_at = _label_reader(examples, num_classes)

    def labelled(step, indices, images):
        return step, images, labels_at(indices), order.mirrored(step, indices)

    return labelled


def _with(reader, indices: tf.Tensor, mirrored: tf.Tensor) -> tuple[tf.Tensor, ...]:
    return *reader(indices), mirrored


def eval_dataset(
    examples: Examples,
    *,
    batch_size: int,
    num_classes: int | None = None,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Return the examples once, in their order, unchanged; the last batch may be smaller.

    Args:
        examples: the split.
        batch_size: images at a time.
        num_classes: for float32 labels ``(batch_size, num_classes)``; None for class indices.
        share: which part of the examples to return, in as many batches as the others have; there
            must be at least an image for each.
    """
    if isinstance(examples.images, PackedImages) and share == WHOLE:
        return _packed_in_order(
            examples, examples.images, batch_size=batch_size, num_classes=num_classes
        )
    labels = _label_reader(examples, num_classes)
    if share != WHOLE:
        batches = _pieces(examples, labels, batch_size=batch_size, share=share)
    elif isinstance(examples.images, FileImages):
        one = _file_reader(examples.images, labels)
        single = tf.data.Dataset.range(len(examples)).map(one, num_parallel_calls=PARALLEL)
        batches = single.batch(batch_size)
    else:
        images = _on_host(examples.images)
        starts = tf.data.Dataset.range(0, len(examples), batch_size)
        batches = starts.map(
            lambda start: _between(images, labels, start, start + batch_size),
            num_parallel_calls=PARALLEL,
        )
    return batches.prefetch(AHEAD).with_options(plain_options())


def piece_edges(count: int, *, batch_size: int, share: Share) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pieces of a share of `count` examples in their order begin and end.

    It is every so many-th of as many pieces as all batches have shares, as even as can be. None is
    empty: a mean over no images would be no number.
    """
    steps = math.ceil(count / batch_size)
    edges = np.arange(steps * share.count + 1) * count // (steps * share.count)
    return edges[share.index :: share.count][:steps], edges[share.index + 1 :: share.count][:steps]


def _pieces(
    examples: Examples, labels: Labels, *, batch_size: int, share: Share
) -> tf.data.Dataset:
    edges = piece_edges(len(examples), batch_size=batch_size, share=share)
    bounds = tf.data.Dataset.from_tensor_slices(edges)
    if isinstance(examples.images, FileImages):
        one = _file_reader(examples.images, labels)
        return bounds.flat_map(
            lambda first, end: (
                tf.data.Dataset.range(first, end)
                .map(one, num_parallel_calls=PARALLEL)
                .batch(batch_size)
            )
        )
    if isinstance(examples.images, PackedImages):
        return bounds.map(partial(_packed_piece, examples.images, labels), PARALLEL)
    images = _on_host(examples.images)
    return bounds.map(partial(_between, images, labels), PARALLEL)


def _between(
    images: tf.Tensor, labels: Labels, first: tf.Tensor, end: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the images from `first` to before `end`, or to the last, with their labels."""
    found = images[first:end]
    return found, labels(first + tf.range(tf.shape(found, tf.int64)[0]))


def _packed_piece(
    images: PackedImages, labels: Labels, first: tf.Tensor, end: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    def read(first: int, end: int) -> np.ndarray:
        return images.take(np.arange(first, end))

    piece = tf.numpy_function(read, (first, end), tf.uint8, stateful=False)
    return tf.ensure_shape(piece, (None, *images.input_shape)), labels(tf.range(first, end))


def _packed_in_order(
    examples: Examples, images: PackedImages, *, batch_size: int, num_classes: int | None
) -> tf.data.Dataset:
    labels_at = _label_reader(examples, num_classes)

    def labelled(number, images):
        first = number * batch_size
        return images, labels_at(first + tf.range(tf.shape(images, tf.int64)[0]))

    batches = batches_in_order(images, batch_size=batch_size).enumerate().map(labelled, PARALLEL)
    count = tf.data.experimental.assert_cardinality(math.ceil(len(examples) / batch_size))
    return batches.apply(count).prefetch(AHEAD).with_options(plain_options())


def first_images(examples: Examples, count: int) -> np.ndarray:
    """Return the first images of a split, at most `count`: uint8 arrays, decoded if need be."""
    first = examples.take(np.arange(min(count, len(examples))))
    if isinstance(first.images, np.ndarray):
        return first.images
    batches = [images.numpy() for images, _ in eval_dataset(first, batch_size=64)]
    return (
        np.concatenate(batches) if batches else np.zeros((0, *first.images.input_shape), np.uint8)
    )


def file_dataset(images: FileImages) -> tf.data.Dataset:
    """Return the images of files whose shape is chosen, one at a time, in their order."""
    one = _file_reader(images, tf.identity)
    single = tf.data.Dataset.range(len(images)).map(
        lambda index: one(index)[0], num_parallel_calls=PARALLEL
    )
    return single.prefetch(PARALLEL).with_options(plain_options())


def to_device(dataset: tf.data.Dataset, device: str) -> tf.data.Dataset:
    """Put batches onto `device`, such as ``"GPU:0"``, ahead of their use; must be the last step."""
    if device == "CPU:0":
        return dataset
    prefetch = tf.data.experimental.prefetch_to_device(f"/device:{device}", buffer_size=AHEAD)
    return dataset.apply(prefetch)


def plain_options() -> tf.data.Options:
    """Return the options of every pipeline: in order, and without autotune.

    Autotune makes the end of every epoch wait for its own sleep, seconds at a time.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    return options


def _label_reader(examples: Examples, num_classes: int | None) -> Labels:
    """Return a function from indices to labels; shares are made of those alone, to save memory."""
    labels = _on_host(examples.labels)
    if num_classes is None or examples.soft:
        return lambda indices: tf.gather(labels, indices)
    return lambda indices: tf.one_hot(tf.gather(labels, indices), num_classes)


def _on_host(values: object) -> tf.Tensor:
    with tf.device("CPU:0"):
        return tf.convert_to_tensor(values)


def _shuffled(positions: tf.Tensor, count: int, used: int, seed: int) -> tf.Tensor:
    """Return which image each position of the run takes; an epoch uses `used` of `count`."""
    epoch = tf.reshape(positions, (-1,))[0] // used
    key = tf.cast(tf.stack([tf.constant(seed, tf.int64), epoch]), tf.uint32)
    return tf.random.experimental.index_shuffle(
        positions % used, seed=key, max_index=tf.constant(count - 1, tf.int64)
    )


def in_a_tensor(examples: Examples) -> Examples:
    """Return the examples with their images in a tensor; each dataset copies an array anew."""
    if isinstance(examples.images, FileImages | PackedImages):
        return examples
    return replace(examples, images=_on_host(examples.images))


def epoch_order(count: int, *, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the images of an epoch of `train_dataset` in its order, where all are shown."""
    used = count // batch_size * batch_size
    with tf.device("CPU:0"):
        positions = epoch * used + tf.range(used, dtype=tf.int64)
        return _shuffled(positions, count, used, seed).numpy()


def _batch_reader(images: object, labels: Labels):
    kept = _on_host(images)
    return lambda indices: (tf.gather(kept, indices), labels(indices))


def _file_reader(images: FileImages, labels: Labels):
    paths, (height, width, channels) = _on_host(images.paths), images.input_shape

    def read(index):
        image = decode_file(paths[index], image_size=(height, width), channels=channels)
        return image, labels(index)

    return read


def _augmenter(augmentation: str, seed: int, share: Share):
    def augment(step, images, labels, mirrored):
        changes = list(AUGMENTATIONS[augmentation])
        if augmentation in MIRRORING:
            changes[0] = partial(crop, mirrored=mirrored)
        if share != WHOLE:
            changes = [partial(change, share=share) for change in changes]
        key = tf.stack([tf.constant(seed, tf.int64), step])
        for place, change in enumerate(changes):
            own_key = tf.random.experimental.stateless_fold_in(key, place)
            images, labels = change(images, labels, own_key)
        return images, labels

    return augment
