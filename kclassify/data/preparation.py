"""From a source as loaded to one that a model can take: three splits, one shape, in memory."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from kclassify.checks import InputError, nearest, parse_bytes
from kclassify.config import FitConfig
from kclassify.data.spec import Examples, FileImages, Images, PackedImages, Source
from kclassify.data.splitting import split_source

# Images of one size up to this keep it; others are brought to the default.
LARGEST_KEPT = 96
DEFAULT_SIZE = 64
Shape = tuple[int, int, int]


def prepare(source: Source, config: FitConfig, *, verbose: bool) -> Source:
    """Return the source with all three splits, its images of one shape and in memory if they fit.

    Images that need more than `config.memory_budget`, all splits together, stay in their files and
    are read as they are used.

    Raises:
        InputError: the images cannot be split, are fewer than `config.batch_size`, are packed with
            another shape, or are of a class that train lacks.

    Example:
        >>> from kclassify import FitConfig
        >>> from kclassify.data.sources import load_source, prepare
        >>> source = prepare(load_source("digits", FitConfig()), FitConfig(), verbose=False)
        >>> {split: len(examples) for split, examples in source.splits.items()}
        {'train': 1458, 'validation': 160, 'test': 179}
    """
    splits = split_source(source, config)
    check_known(splits, source.class_names)
    _check_batch_size(len(splits["train"]), config)
    shape = choose_shape(list(splits.values()), config)
    shaped = {split: bring_to(examples, shape) for split, examples in splits.items()}
    total = sum(len(examples) for examples in splits.values())
    if _fits(total, shape, config):
        shaped = {split: _in_memory(part, verbose=verbose) for split, part in shaped.items()}
    return replace(source, splits=shaped)


def check_known(splits: dict[str, Examples], class_names: tuple[str, ...]) -> None:
    """Raise `InputError` for a class that is measured and not trained."""
    train = splits["train"]
    # A class that has a share of soft labels is learned, be it the largest of none.
    known = np.flatnonzero(train.labels.sum(axis=0) > 0) if train.soft else train.labels
    for split, examples in splits.items():
        unknown = np.setdiff1d(examples.class_ids, known)
        if len(unknown):
            raise InputError(
                f"`data` must have every class in train. Received: {class_names[unknown[0]]!r} in "
                f"{split} alone. Rename it if another is meant, or add images of it to train."
            )


def as_trained(
    source: Source, split: str, *, class_names: tuple[str, ...], input_shape: Shape
) -> Examples:
    """Return a split as a model takes it that was trained on other data.

    Args:
        source: as loaded.
        split: one that it has.
        class_names: of the model; those of the source must be among them.
        input_shape: of the model, ``(height, width, channels)``.

    Raises:
        InputError: a class of the source is none of the model's.
    """
    for name in source.class_names:
        if name not in class_names:
            raise InputError(
                f"`data` must have only classes that the model knows, {list(class_names)}. "
                f"Received: {name!r}.{nearest(name, class_names)} Rename or remove the class."
            )
    examples = source.splits[split]
    places = np.array([class_names.index(name) for name in source.class_names], np.int32)
    labels = (
        places[examples.labels] if not examples.soft else _spread(examples, places, class_names)
    )
    return bring_to(replace(examples, labels=labels), input_shape)


def to_memory(examples: Examples, config: FitConfig, *, verbose: bool) -> Examples:
    """Decode a split of files whose shape is chosen, if it fits `config.memory_budget`."""
    images = examples.images
    if isinstance(images, np.ndarray) or _fits(len(images), images.input_shape, config):
        return _in_memory(examples, verbose=verbose)
    return examples


def choose_size(own_size: tuple[int, int] | None, config: FitConfig) -> tuple[int, int]:
    """Return the size to bring images to; `own_size` is the one that all have, if there is one."""
    if config.image_size is not None:
        return config.image_size, config.image_size
    if own_size and max(own_size) <= LARGEST_KEPT:
        return own_size
    return DEFAULT_SIZE, DEFAULT_SIZE


def choose_shape(parts: list[Examples], config: FitConfig) -> Shape:
    """Return the ``(height, width, channels)`` to bring all the images to."""
    sizes = {_own_size(part.images) for part in parts}
    own_size = sizes.pop() if len(sizes) == 1 else None
    if own_size and config.image_size is None and not isinstance(parts[0].images, FileImages):
        height, width = own_size
    else:
        height, width = choose_size(own_size, config)
    grey = all(_own_channels(part.images) == 1 for part in parts)
    return height, width, config.channels or (1 if grey else 3)


def _own_size(images: Images) -> tuple[int, int] | None:
    if isinstance(images, FileImages):
        return images.image_size
    height, width, _ = _own_shape(images)
    return height, width


def _own_channels(images: Images) -> int | None:
    return images.channels if isinstance(images, FileImages) else _own_shape(images)[2]


def _own_shape(images: np.ndarray | PackedImages) -> Shape:
    if isinstance(images, PackedImages):
        return images.input_shape
    height, width, channels = images.shape[1:]
    return height, width, channels


def _check_batch_size(images: int, config: FitConfig) -> None:
    if config.batch_size > images:
        raise InputError(
            f"`batch_size` must be at most the number of training images, {images:,}. "
            f"Received: batch_size={config.batch_size}. Lower it, or add images."
        )


def _fits(count: int, shape: Shape, config: FitConfig) -> bool:
    return count * int(np.prod(shape)) <= parse_bytes("memory_budget", config.memory_budget)


def _spread(examples: Examples, places: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    labels = np.zeros((len(examples), len(class_names)), np.float32)
    labels[:, places] = examples.labels
    return labels


def bring_to(examples: Examples, shape: Shape) -> Examples:
    """Bring arrays to `shape`; of files, note it.

    Raises:
        InputError: they are packed with another one.
    """
    height, width, channels = shape
    if isinstance(examples.images, FileImages):
        files = replace(examples.images, image_size=(height, width), channels=channels)
        return replace(examples, images=files)
    if _own_shape(examples.images) == shape:
        return examples
    if isinstance(examples.images, PackedImages):
        raise InputError(
            f"`data` must be packed with the shape that images are brought to, {shape}. Received: "
            f"images packed as {examples.images.input_shape}. Leave `image_size` and `channels` "
            "out, or pack the original images with them."
        )
    return replace(examples, images=_converted(examples.images, shape))


def _converted(images: np.ndarray, shape: Shape, *, at_once: int = 256) -> np.ndarray:
    from kclassify.data.images import resize_images, to_channels

    converted = np.empty((len(images), *shape), np.uint8)
    for start in range(0, len(images), at_once):
        some = to_channels(images[start : start + at_once], shape[2])
        converted[start : start + at_once] = resize_images(some, shape[:2])
    return converted


def _in_memory(examples: Examples, *, verbose: bool) -> Examples:
    if isinstance(examples.images, PackedImages):
        return examples.take(np.arange(len(examples)))
    if not isinstance(examples.images, FileImages):
        return examples
    return replace(examples, images=_decoded(examples.images, verbose=verbose))


def _decoded(images: FileImages, *, verbose: bool) -> np.ndarray:
    decoded = np.empty((len(images), *images.input_shape), np.uint8)
    bar = tqdm(total=len(images), desc="decoding", unit="image", delay=1.5, disable=not verbose)
    with bar:
        for place, image in enumerate(decoded_files(images)):
            decoded[place] = image
            bar.update()
    return decoded


def decoded_files(images: FileImages) -> Iterator[np.ndarray]:
    """Yield the images of files whose shape is chosen, in their order.

    Raises:
        InputError: TensorFlow cannot decode one of them, which is named.
    """
    import tensorflow as tf

    from kclassify.data.pipeline import file_dataset

    done = 0
    try:
        for image in file_dataset(images).as_numpy_iterator():
            yield image
            done += 1
    except tf.errors.InvalidArgumentError as error:
        # In order, so that the count says which file it was.
        raise InputError(
            f"`data` must have images that TensorFlow can decode. Received: "
            f"{str(images.paths[done])!r}, which it cannot. Save it again, as PNG."
        ) from error
