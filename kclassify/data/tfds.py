"""Any image-classification dataset of TensorFlow Datasets, by ``tfds:<name>``."""

import math
import os
import re
from typing import Any

import numpy as np
from tqdm import tqdm

from kclassify.checks import InputError, nearest, parse_bytes
from kclassify.config import FitConfig
from kclassify.data.spec import SPLIT_NAMES, Examples, Source
from kclassify.data.tfds_files import in_order, unpacked

PREFIX = "tfds:"
Size = tuple[int, int]


def load(reference: str, config: FitConfig) -> Source:
    """Load ``"tfds:<name>"``: its train, validation and test splits, downloaded when absent.

    Images are read in the order of the files. Where they differ in size, or are larger than 96
    pixels, they are brought to `config.image_size`, by default 64x64, as they are read. Where that
    takes more than `config.memory_budget`, they are unpacked into files instead, see `unpacked`.

    Raises:
        InputError: no such builder, no `image` and `label` in it, or the download failed.
    """
    name = reference.removeprefix(PREFIX)
    builder = _builder(name, config)
    features = _check_features(name, builder)
    _download(name, builder)
    read = _read if _fits(builder, config) else unpacked
    splits = {
        SPLIT_NAMES[split]: read(builder, name, split, config)
        for split in builder.info.splits
        if split in SPLIT_NAMES
    }
    # Benchmarks that keep their test labels to themselves give -1.
    labelled = {split: part for split, part in splits.items() if (part.labels >= 0).all()}
    return Source(name, labelled, tuple(features["label"].names))


def _builder(name: str, config: FitConfig) -> Any:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    base = re.split("[/:]", name)[0]
    if base not in known:
        raise InputError(
            f"`data` must be 'tfds:' and the name of a TFDS dataset. Received: {name!r}."
            f"{nearest(base, known)} `tfds.list_builders()` lists them."
        )
    data_dir = config.data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ValueError, tfds.core.DatasetNotFoundError) as error:
        raise InputError(
            f"`data` must be a configuration and version that TFDS has. Received: {name!r} "
            f"({str(error).splitlines()[0]}). Leave them out, or correct them."
        ) from error


def _check_features(name: str, builder: Any) -> Any:
    import tensorflow_datasets as tfds

    features = builder.info.features
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    found = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    if not all(isinstance(found.get(key), kind) for key, kind in wanted.items()):
        raise InputError(
            f"`data` must be a dataset of images, each with a class in 'label'. Received: "
            f"{name!r}, with the features {sorted(found)}. Choose an image-classification dataset."
        )
    return features


def _download(name: str, builder: Any) -> None:
    from tensorflow_datasets.core import download

    errors = (
        OSError,
        download.util.DownloadError,
        download.download_manager.NonMatchingChecksumError,
    )
    try:
        builder.download_and_prepare()
    except errors as error:
        raise InputError(
            f"`data` must be a dataset that is on this machine or can be downloaded. Received: "
            f"{name!r}, which TFDS could not get ({_reason(error)}). Point at a local copy by "
            f"`data_dir` or TFDS_DATA_DIR, or pass the path of a folder of images"
            f"{' or of the official archive' if name == 'cifar10' else ''}."
        ) from error


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _form(builder: Any, config: FitConfig) -> tuple[Size | None, Size, int]:
    """Return the size that all images have, if there is one, and the size and channels they get."""
    from kclassify.data.preparation import choose_size

    height, width, channels = builder.info.features["image"].shape
    own_size = (height, width) if height and width else None
    return own_size, choose_size(own_size, config), config.channels or (1 if channels == 1 else 3)


def _fits(builder: Any, config: FitConfig) -> bool:
    """Tell whether memory may hold the images."""
    images = sum(builder.info.splits[one].num_examples for one in builder.info.splits
                 if one in SPLIT_NAMES)  # fmt: skip
    _, image_size, channels = _form(builder, config)
    needed = images * channels * math.prod(image_size)
    return needed <= parse_bytes("memory_budget", config.memory_budget)


def _read(builder: Any, name: str, split: str, config: FitConfig) -> Examples:
    own_size, image_size, channels = _form(builder, config)
    total = builder.info.splits[split].num_examples
    images = np.empty((total, *image_size, channels), np.uint8)
    labels = np.empty(total, np.int32)
    batches = _batches(builder, split, own_size, image_size=image_size, channels=channels)
    bar = tqdm(desc=f"reading {split}", total=total, unit="image", delay=1.5, disable=None)
    done = 0
    for some_images, some_labels in batches.as_numpy_iterator():
        images[done : done + len(some_labels)] = some_images
        labels[done : done + len(some_labels)] = some_labels
        done += len(some_labels)
        bar.update(len(some_labels))
    bar.close()
    ids = np.array([f"{name}/{SPLIT_NAMES[split]}/{index}" for index in range(total)], np.str_)
    return Examples(images, labels, ids)


def _batches(
    builder: Any,
    split: str,
    own_size: Size | None,
    *,
    image_size: Size,
    channels: int,
) -> Any:
    import tensorflow as tf

    from kclassify.data.images import decode_image, resize_images
    from kclassify.data.pipeline import PARALLEL, plain_options

    def decode(example: Any) -> Any:
        image = decode_image(example["image"], channels=channels, least=max(image_size))
        if image_size != own_size:
            image = resize_images(image[tf.newaxis], image_size)[0]
        return tf.ensure_shape(image, (*image_size, channels)), example["label"]

    # Nothing in it is Python's `if` or `for` of tensors, and AutoGraph takes a second or two.
    plain = tf.autograph.experimental.do_not_convert(decode)
    dataset = in_order(builder, split).map(plain, num_parallel_calls=PARALLEL, deterministic=True)
    return dataset.batch(256).prefetch(2).with_options(plain_options())
