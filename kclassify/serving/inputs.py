"""What can be predicted on: paths, folders, bytes, PIL images and arrays, made into items."""

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from kclassify.checks import InputError
from kclassify.data.files import IMAGE_SUFFIXES, inspect_image

# Of PIL's modes, those that a PNG holds as they are; the others become RGB first.
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True)
class Item:
    """One image to predict on.

    Attributes:
        name: what the column `file` says.
        value: a file not read yet, an encoded image, or uint8 pixels
            `(height, width, channels)`; None where there is an error.
        error: why it cannot be read, as far as is known yet.
    """

    name: str
    value: Path | bytes | np.ndarray | None
    error: str | None = None

    def read(self) -> "Item":
        """Return the item with the file's bytes in the place of its path, or with an error."""
        if not isinstance(self.value, Path | bytes):
            return self
        reason = inspect_image(self.value)
        if reason is not None:
            return Item(self.name, None, reason)
        try:
            data = self.value if isinstance(self.value, bytes) else self.value.read_bytes()
        except OSError as error:
            return Item(self.name, None, error.strerror or "cannot be read")
        return Item(self.name, data)


def collect(inputs: Any, *, channels: int) -> list[Item]:
    """Return one item an image in `inputs`, in order; files are not opened yet.

    Raises:
        InputError: there is no image at all, or something that no image can be made of.
    """
    items: list[Item] = []
    for given in _each(inputs):
        items.extend(_items(given, channels=channels, first=len(items)))
    if not items:
        raise InputError(
            "`inputs` must hold at least one image. Received: none. "
            "Pass a path, a folder, bytes, PIL images or uint8 arrays."
        )
    return items


def _each(inputs: Any) -> Iterable[Any]:
    if isinstance(inputs, str | os.PathLike | bytes | np.ndarray | Image.Image):
        return [inputs]
    if isinstance(inputs, Iterable):
        return inputs
    raise _unknown(inputs)


def _items(given: Any, *, channels: int, first: int) -> Iterator[Item]:
    if isinstance(given, str | os.PathLike):
        yield from _paths(Path(given))
    elif isinstance(given, bytes):
        yield Item(f"bytes {first}", given)
    elif isinstance(given, Image.Image):
        yield _pil(given, name=f"image {first}")
    elif isinstance(given, np.ndarray):
        for number, image in enumerate(_batch(given, channels=channels), start=first):
            yield Item(f"array {number}", image)
    else:
        raise _unknown(given)


def _paths(path: Path) -> Iterator[Item]:
    if not path.is_dir():
        yield _file(path)
        return
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(
            f"`inputs` must be a folder with images. Received: {str(path)!r}, without any. "
            f"The endings that are looked for: {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    yield from map(_file, found)


def _file(path: Path) -> Item:
    # File names need not be text, and tables hold nothing else.
    return Item(str(path).encode("utf-8", "backslashreplace").decode(), path)


def _pil(image: Image.Image, *, name: str) -> Item:
    """Encode a PIL image without loss, so that one decoder sees to grey, palettes and depth."""
    file = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in PNG_MODES:
            upright = upright.convert("I;16" if upright.mode == "I" else "RGB")
        upright.save(file, "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError) as error:  # PIL reads a file only now
        return Item(name, None, str(error))
    return Item(name, file.getvalue())


def _batch(array: np.ndarray, *, channels: int) -> np.ndarray:
    """Return an array of any accepted form as `(batch_size, height, width, channels)`."""
    if array.dtype != np.uint8:
        raise InputError(
            "`inputs` must be arrays of dtype uint8, with values from 0 to 255. "
            f"Received: dtype={array.dtype}. Convert with (255 * array).round().astype('uint8') "
            "where the values are from 0 to 1."
        )
    images = array[..., np.newaxis] if array.ndim == 2 else array
    images = images[np.newaxis] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] != channels or 0 in images.shape:
        raise InputError(
            f"`inputs` must be arrays (height, width, {channels}) or (batch_size, height, width, "
            f"{channels}), for that is what the model was trained on. Received: "
            f"shape={array.shape}. {_channel_advice(channels)}"
        )
    return images


def _channel_advice(channels: int) -> str:
    if channels == 1:
        return "Pass grey images; add the last axis with array[..., None]."
    return "Pass colour images; repeat a grey one with np.repeat(array[..., None], 3, axis=-1)."


def _unknown(value: Any) -> InputError:
    return InputError(
        "`inputs` must be paths, a folder, bytes, PIL images or uint8 arrays. "
        f"Received: {type(value).__name__}. Convert it to one of these."
    )
