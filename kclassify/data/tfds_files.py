"""The images of a TFDS dataset that memory should not hold: unpacked once, read as files are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kclassify.atomic import appearing
from kclassify.checks import check_place
from kclassify.config import FitConfig
from kclassify.data.cache import alone, cache_root
from kclassify.data.spec import SPLIT_NAMES, Examples, FileImages

LABELS = "labels.npy"
IN_A_FOLDER = 1000


def unpacked(builder: Any, name: str, split: str, config: FitConfig) -> Examples:
    """Return a split as files of the encoded images, written the first time it is asked for.

    They go below `config.data_dir`, or else ``~/.cache/kclassify``, and take as much room as the
    dataset itself.

    Args:
        builder: of the dataset, which is prepared.
        name: what the ids begin with.
        split: TFDS's name of it.
        config: where.

    Raises:
        InputError: nothing can be written there.
        StorageError: the disk is full; nothing is left of the split.
    """
    height, width, channels = builder.info.features["image"].shape
    # Name, configuration and version.
    folder = cache_root(config) / "tfds-images" / builder.info.full_name / split
    if not folder.is_dir():
        check_place("data_dir", folder)
        with alone(folder, f"unpacks {name!r}"):
            _unpack_into(folder, builder, split)
    labels = np.load(folder / LABELS)
    images = FileImages(
        np.array([str(_file(folder, index)) for index in range(len(labels))], np.str_),
        image_size=(height, width) if height and width else None,
        channels=1 if channels == 1 else 3,
    )
    ids = np.array([f"{name}/{SPLIT_NAMES[split]}/{index}" for index in range(len(labels))])
    return Examples(images, labels, ids)


def in_order(builder: Any, split: str) -> Any:
    """Return the dataset of a split in the order of its files, each image as its bytes."""
    import tensorflow_datasets as tfds

    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        # Bytes, so that they are decoded by the function that decodes everything else.
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index // IN_A_FOLDER:06d}" / f"{index:09d}.image"


def _unpack_into(folder: Path, builder: Any, split: str) -> None:
    if folder.is_dir():
        # Another process did, which was waited for.
        return
    with appearing(folder) as beside:
        _unpack(builder, split, beside, told=folder)


def _unpack(builder: Any, split: str, beside: Path, *, told: Path) -> None:
    total = builder.info.splits[split].num_examples
    labels = np.empty(total, np.int32)
    bar = tqdm(desc=f"unpacking into {told}", total=total, unit="image", delay=1.5, disable=None)
    with bar:
        for index, (encoded, label) in enumerate(_examples(builder, split)):
            file = _file(beside, index)
            if index % IN_A_FOLDER == 0:
                file.parent.mkdir()
            file.write_bytes(encoded)
            labels[index] = label
            bar.update()
    np.save(beside / LABELS, labels)


def _examples(builder: Any, split: str) -> Iterator[tuple[bytes, int]]:
    from kclassify.data.pipeline import plain_options

    dataset = in_order(builder, split).prefetch(64).with_options(plain_options())
    for example in dataset.as_numpy_iterator():
        yield example["image"], int(example["label"])
