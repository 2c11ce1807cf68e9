"""The data of a search, laid down once for all its processes: they map the same memory."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kclassify.data.spec import Examples, FileImages, PackedImages, Source

# The test images are nobody's business here.
SPLITS = ("train", "validation")
_FACTS = "data.json"


@contextmanager
def laid_down(source: Source, folder: Path) -> Iterator[Path]:
    """Yield `folder` with the data in it, for `pick_up`; it is removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        kinds = {split: _write(source.splits[split], folder / split) for split in SPLITS}
        facts = {"name": source.name, "class_names": list(source.class_names), "splits": kinds}
        (folder / _FACTS).write_text(json.dumps(facts), "utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pick_up(folder: Path) -> Source:
    """Return the data that another process has laid down; images stay on the disk until used."""
    facts = json.loads((folder / _FACTS).read_text("utf-8"))
    splits = {split: _read(folder / split, kind) for split, kind in facts["splits"].items()}
    return Source(facts["name"], splits, tuple(facts["class_names"]))


def _write(examples: Examples, folder: Path) -> dict[str, Any] | None:
    """Write the arrays of a split; return what images on the disk are besides paths or offsets."""
    folder.mkdir()
    images: Any = examples.images
    kind: dict[str, Any] | None = None
    if isinstance(images, FileImages):
        kind = {"image_size": images.image_size, "channels": images.channels}
        images = images.paths
    elif isinstance(images, PackedImages):
        kind = {"packed": {
            "paths": images.paths.tolist(), "counts": images.counts.tolist(),
            "sizes": images.sizes.tolist(), "hashes": images.hashes,
            "input_shape": images.input_shape, "memory": images.memory,
        }}  # fmt: skip
        images = images.offsets
    arrays = {"images": images, "labels": examples.labels, "ids": examples.ids}
    for name, values in arrays.items():
        # Objects would be pickled; texts of one width are not.
        plain = values.astype(str) if values.dtype == object else values
        np.save(folder / f"{name}.npy", plain, allow_pickle=False)
    return kind


def _read(folder: Path, kind: dict | None) -> Examples:
    images, labels, ids = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "ids")
    )
    if kind is None:
        return Examples(images, labels, ids)
    if "packed" in kind:
        return Examples(_packed(images, **kind["packed"]), labels, ids)
    size = kind["image_size"]
    return Examples(FileImages(images, size and tuple(size), kind["channels"]), labels, ids)


def _packed(
    offsets: np.ndarray, *, paths: list, counts: list, sizes: list, hashes: list, **others: Any
) -> PackedImages:
    height, width, channels = others["input_shape"]
    return PackedImages(
        np.array(paths),
        np.array(counts),
        np.array(sizes),
        tuple(hashes),
        offsets,
        input_shape=(height, width, channels),
        memory=others["memory"],
    )
