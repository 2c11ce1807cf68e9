"""What a source of images is made into: splits of images, labels and ids. NumPy only."""

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
class Examples:
    """One split.

    Attributes:
        images: uint8 ``(n, height, width, channels)``, or files that are not decoded yet.
        labels: int32 ``(n,)`` class indices, or float32 ``(n, num_classes)`` soft labels.
        ids: ``(n,)`` str, where each image came from.
    """

    images: np.ndarray | FileImages
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Self:
        """Return the examples at `indices`, in that order."""
        images = (
            self.images.take(indices)
            if isinstance(self.images, FileImages)
            else self.images[indices]
        )
        return replace(self, images=images, labels=self.labels[indices], ids=self.ids[indices])

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
        if isinstance(images, FileImages):
            return images.input_shape
        height, width, channels = images.shape[1:]
        return height, width, channels
