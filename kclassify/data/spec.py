"""What a source of images is made into: splits of images, labels and ids. NumPy only."""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

SPLITS = ("train", "validation", "test")
# Names that others give to the validation split.
SPLIT_NAMES = {**{name: name for name in SPLITS}, "val": "validation", "valid": "validation"}


@dataclass(frozen=True)
class Share:
    """Which part of every batch is made, where several processes or devices share it evenly.

    Attributes:
        index: which of them, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1


WHOLE = Share()


@dataclass(frozen=True)
class FileImages:
    """Images that are decoded when they are used.

    Attributes:
        paths: ``(n,)`` str.
        image_size: ``(height, width)``: as loaded, the size that all have, or None where they
            differ; once prepared, the size that they are brought to.
        channels: as loaded, 1 where all are grey and 3 otherwise; once prepared, what they become.
    """

    paths: np.ndarray
    image_size: tuple[int, int] | None = None
    channels: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: np.ndarray) -> Self:
        """Return the images at `indices`, in that order."""
        return replace(self, paths=self.paths[indices])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The ``(height, width, channels)`` that every image is decoded to, once prepared."""
        if self.image_size is None or self.channels is None:
            raise ValueError("the images have several shapes until they are prepared")
        return (*self.image_size, self.channels)


@dataclass(frozen=True)
class PackedImages:
    """Images of one shape whose bytes lie in files of records, each file a random sample.

    Attributes:
        paths: ``(files,)`` str.
        counts: int64 ``(files,)``, how many images each file has.
        sizes: int64 ``(files,)``, the bytes of each.
        hashes: the SHA-256 of each.
        offsets: int64 ``(n,)``, where in its file each image begins.
        input_shape: ``(height, width, channels)`` of every image.
        memory: how many bytes reading them may take.
    """

    paths: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray
    hashes: tuple[str, ...]
    offsets: np.ndarray
    input_shape: tuple[int, int, int]
    memory: int

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at `indices`, in that order, in memory."""
        ends = np.cumsum(self.counts)
        files = np.searchsorted(ends, indices, side="right")
        taken = np.empty((len(indices), math.prod(self.input_shape)), np.uint8)
        by_file = np.argsort(files, kind="stable")
        for places in np.split(by_file, np.flatnonzero(np.diff(files[by_file])) + 1):
            if len(places):
                self._read(int(files[places[0]]), indices[places], taken, places)
        return taken.reshape(-1, *self.input_shape)

    def _read(self, file: int, indices: np.ndarray, into: np.ndarray, places: np.ndarray) -> None:
        # Mapped, so that of a file of which little is wanted little is read.
        content = np.asarray(np.memmap(self.paths[file], np.uint8, "r"))
        for place, offset in zip(places.tolist(), self.offsets[indices].tolist(), strict=True):
            into[place] = content[offset : offset + into.shape[1]]


Images = np.ndarray | FileImages | PackedImages


@dataclass(frozen=True)
class Examples:
    """One split.

    Attributes:
        images: uint8 ``(n, height, width, channels)``, or files that are not read yet.
        labels: int32 ``(n,)`` class indices, or float32 ``(n, num_classes)`` soft labels.
        ids: ``(n,)`` str, where each image came from.
    """

    images: Images
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Self:
        """Return the examples at `indices`, in that order; packed images are then in memory."""
        images = (
            self.images[indices]
            if isinstance(self.images, np.ndarray)
            else self.images.take(indices)
        )
        return replace(self, images=images, labels=self.labels[indices], ids=self.ids[indices])

    def some(self, count: int, *, seed: int) -> Self:
        """Return at most `count` from all over, in their order: many sets lie class by class."""
        if count >= len(self):
            return self
        chosen = np.random.default_rng(seed).choice(len(self), count, replace=False)
        return self.take(np.sort(chosen))

    @property
    def soft(self) -> bool:
        """Whether the labels are shares of classes."""
        return self.labels.ndim == 2

    @property
    def class_ids(self) -> np.ndarray:
        """The int32 ``(n,)`` class indices; of a soft label, the class with the largest share."""
        return self.labels.argmax(axis=1).astype(np.int32) if self.soft else self.labels


@dataclass(frozen=True)
class Source:
    """A dataset: as loaded, with the splits that it came in; once prepared, with all three.

    Attributes:
        name: what runs and reports call it.
        splits: from the names in `SPLITS` to examples.
        class_names: in the order of the class indices.
        skipped: ``(path, reason)`` of the images that were left out.
    """

    name: str
    splits: dict[str, Examples]
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The ``(height, width, channels)`` of every image of a prepared source."""
        images = next(iter(self.splits.values())).images
        if not isinstance(images, np.ndarray):
            return images.input_shape
        height, width, channels = images.shape[1:]
        return height, width, channels
