"""Images in memory: a pair of arrays, a mapping of splits to pairs, or a `tf.data.Dataset`."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kclassify.checks import InputError, nearest, parse_bytes
from kclassify.config import FitConfig
from kclassify.data.labels import encode_labels
from kclassify.data.spec import SPLIT_NAMES, SPLITS, Examples, Source

Pair = tuple[np.ndarray, np.ndarray]


def load(reference: Any, config: FitConfig) -> Source:
    """Load ``(images, labels)``, a dataset of such, or a mapping from split names to either.

    Images are ``(n, height, width)`` or ``(n, height, width, channels)``, whole numbers from 0 to
    255, floats in [0, 1] or [0, 255], of which the largest over all the splits decides, or masks
    of True and False. For the labels see `encode_labels`.

    Raises:
        InputError: the images or labels are not of these forms, or a dataset does not end.
    """
    pairs = {split: _pair(part, config) for split, part in _parts(reference).items()}
    images = {split: _checked_images(pair[0]) for split, pair in pairs.items()}
    for split, pair in pairs.items():
        _check_lengths(images[split], pair[1])
    factor = _factor(images)
    labels, class_names = encode_labels(
        {split: pair[1] for split, pair in pairs.items()}, config.class_names
    )
    prefix = {split: split if isinstance(reference, Mapping) else "arrays" for split in pairs}
    splits = {
        split: Examples(
            _as_uint8(images[split], factor), labels[split], _ids(prefix[split], len(images[split]))
        )
        for split in SPLITS
        if split in pairs
    }
    return Source("arrays", splits, class_names)


def is_tf_dataset(data: Any) -> bool:
    """Tell a `tf.data.Dataset`, without importing TensorFlow where nobody has."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(data, tensorflow.data.Dataset)


def _parts(reference: Any) -> dict[str, Any]:
    if not isinstance(reference, Mapping):
        return {"train": reference}
    for split in reference:
        if split not in SPLIT_NAMES:
            raise InputError(
                f"`data` must be a mapping from {list(SPLITS)} to pairs. Received: the key "
                f"{split!r}.{nearest(str(split), SPLIT_NAMES)}"
            )
    return {SPLIT_NAMES[split]: part for split, part in reference.items()}


def _pair(part: Any, config: FitConfig) -> Pair:
    if is_tf_dataset(part):
        return _materialise(part, parse_bytes("memory_budget", config.memory_budget))
    if not (isinstance(part, tuple | list) and len(part) == 2):
        raise InputError(
            "`data` must have pairs (images, labels) or tf.data.Datasets of such. "
            f"Received: {type(part).__name__}. Put the two into a tuple."
        )
    try:
        return np.asarray(part[0]), np.asarray(part[1])
    except ValueError as error:
        raise _image_error("arrays of one shape", f"a ragged list ({error})") from error


def _ids(prefix: str, count: int) -> np.ndarray:
    return np.array([f"{prefix}/{index}" for index in range(count)], dtype=np.str_)


def _checked_images(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape:
        raise _image_error(
            "of the shape (n, height, width) or (n, height, width, channels) with 1, 3 or 4 "
            "channels, last", f"the shape {images.shape}",
        )  # fmt: skip
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * 255
    if images.dtype.kind not in "iuf":
        raise _image_error("numbers", f"the dtype {images.dtype}")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise _image_error("finite numbers", "NaN or infinity")
    if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 255):
        raise _image_error(
            "in [0, 1] or [0, 255]", f"values from {images.min():g} to {images.max():g}"
        )
    return images


def _check_lengths(images: np.ndarray, labels: np.ndarray) -> None:
    if labels.ndim == 0 or len(images) != len(labels):
        count = "no" if labels.ndim == 0 else f"{len(labels):,}"
        raise InputError(
            f"`data` must have a label for each image. Received: {len(images):,} images and "
            f"{count} labels. Check how the two were made."
        )


def _factor(parts: dict[str, np.ndarray]) -> float:
    """Return what floats are multiplied by, or raise `InputError` where the scale is in doubt."""
    largest = max(float(images.max()) for images in parts.values())
    floats = [float(images.max()) for images in parts.values() if images.dtype.kind == "f"]
    if (floats and 1 < max(floats) < 2) or (not floats and largest == 1):
        raise _image_error(
            "in [0, 255], or floats in [0, 1]", f"values up to {largest:g}, which would be black"
        )
    return 255.0 if floats and max(floats) <= 1 else 1.0


def _as_uint8(images: np.ndarray, factor: float) -> np.ndarray:
    if images.dtype.kind == "f":
        images = np.round(images * images.dtype.type(factor))
    return images.astype(np.uint8, copy=False)


def _materialise(dataset: Any, budget: int) -> Pair:
    """Read a whole dataset, unless it is larger than memory should hold or does not end."""
    images, labels, used = [], [], 0
    for some_images, some_labels in _batches(dataset):
        used += some_images.nbytes
        if used > budget:
            raise InputError(
                f"`data` must be a dataset that fits `memory_budget`. Received: one of more than "
                f"{used:,} bytes of images, or without an end. Shorten it by .take(n), or raise "
                "memory_budget."
            )
        images.append(some_images)
        labels.append(some_labels)
    if not images:
        raise InputError(
            "`data` must have images. Received: an empty dataset. Check how it is made."
        )
    if len({batch.shape[1:] for batch in images}) > 1:
        raise _image_error("of one shape", "a dataset of several shapes")
    return np.concatenate(images), np.concatenate(labels)


def _batches(dataset: Any) -> Iterator[Pair]:
    import tensorflow as tf

    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) == 2 and hasattr(spec[0], "shape")):
        raise InputError(
            "`data` must be a dataset of (image, label). Received: elements of the form "
            f"{spec}. Map them to pairs (TFDS: as_supervised=True)."
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InputError(
            "`data` must be a dataset that ends. Received: an infinite one. Leave out .repeat()."
        )
    try:
        whole = dataset if _batched(*(part.shape for part in spec)) else dataset.batch(64)
        yield from whole.as_numpy_iterator()
    except tf.errors.InvalidArgumentError as error:
        raise _image_error("of one shape", f"a dataset that cannot be batched ({error})") from error


def _batched(shape: Any, of_labels: Any) -> bool:
    if of_labels.rank == 0:
        return False
    if shape.rank not in (2, 3, 4):
        raise _image_error("of a known rank", f"a dataset of images of the shape {shape}")
    # Of rank 3 are batches of grey images and single images with channels.
    return shape.rank == 4 or (shape.rank == 3 and shape[-1] not in (1, 3, 4))


def _image_error(expected: str, received: str) -> InputError:
    return InputError(
        f"`data` must have images that are {expected}. Received: {received}. Convert them first."
    )
