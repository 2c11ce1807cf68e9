"""One pass over images for all that a data check asks of them, a few dozen bytes an image."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from kclassify import runtime
from kclassify.data.look_alikes import SMALL, perceptual_hashes, thumbnails
from kclassify.data.spec import Examples, FileImages

AT_ONCE = 1024
# In levels of 0 to 255: whatever an image of less shows, it is noise.
BLANK_SPREAD = 3.0


@dataclass(frozen=True)
class Looks:
    """What was seen of each image.

    Attributes:
        digests: uint64 ``(n,)``: of the bytes of its file, or of its pixels where it has none.
        hashes: uint64 ``(n,)``: `perceptual_hashes`.
        small: uint8 ``(n, 8, 8, 3)``: `thumbnails`.
        sides: int64 ``(n,)``: pixels of its shorter side.
        blank: bool ``(n,)``: whether it shows next to nothing.
    """

    digests: np.ndarray
    hashes: np.ndarray
    small: np.ndarray
    sides: np.ndarray
    blank: np.ndarray

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Return what was seen of all the images of `parts`."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def look_at(splits: dict[str, Examples], *, verbose: bool) -> Looks:
    """Look at the images of all the splits, in their order, with a progress bar."""
    total = sum(len(examples) for examples in splits.values())
    parts = []
    with tqdm(total=total, desc="looking", unit="image", delay=1.5, disable=not verbose) as bar:
        for examples in splits.values():
            for digests, sides, small in _chunks(examples):
                parts.append(_looks(digests, sides, small))
                bar.update(len(digests))
    return Looks.join(parts)


def _looks(digests: Sequence[int], sides: Sequence[int], small: np.ndarray) -> Looks:
    blank = small.std(axis=(1, 2)).max(axis=1) < BLANK_SPREAD
    hashes = perceptual_hashes(small)
    return Looks(
        np.array(digests, np.uint64), hashes, thumbnails(small), np.array(sides, np.int64), blank
    )


def _chunks(examples: Examples) -> Iterator[tuple[Sequence[int], Sequence[int], np.ndarray]]:
    """Yield digests, shorter sides and images uint8 ``(n, 32, 32, 3)``, some at a time."""
    images = examples.images
    with ThreadPoolExecutor(runtime.concurrency()) as pool:
        for start in range(0, len(examples), AT_ONCE):
            if isinstance(images, FileImages):
                found = pool.map(_read, images.paths[start : start + AT_ONCE])
                digests, sides, small = zip(*found, strict=True)
                yield digests, sides, np.stack(small)
            else:
                chosen = np.arange(start, min(start + AT_ONCE, len(examples)))
                some = np.asarray(examples.take(chosen).images)
                sides = [min(some.shape[1:3])] * len(some)
                yield [_digest(image.tobytes()) for image in some], sides, _shrunk(some)


def _read(path: str) -> tuple[int, int, np.ndarray]:
    with open(path, "rb") as file:
        digest = _digest(file.read())
    with Image.open(path) as image:
        side = min(image.size)
        # A JPEG is decoded at the smallest size that is large enough.
        image.draft("RGB", (SMALL, SMALL))
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return digest, side, np.asarray(upright.resize((SMALL, SMALL), Image.Resampling.BOX))


def _shrunk(images: np.ndarray) -> np.ndarray:
    from kclassify.data.images import resize_images, to_channels

    return np.asarray(resize_images(to_channels(images, 3), (SMALL, SMALL)))


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())
