"""Which image files can be read, found out by Pillow before any work starts. No TensorFlow."""

import io
import os
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, ImageFile, UnidentifiedImageError
from tqdm import tqdm

from kclassify import runtime

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
# By Pillow's name of the format. A JPEG of several pictures is opened as MPO.
FORMAT_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MOST_PIXELS = 64_000_000
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Inspection:
    """What a file was found to be.

    Attributes:
        reason: why the image cannot be read; None when it can.
        image_size: ``(height, width)`` once upright.
        grey: whether it has no colours.
        format: Pillow's name of what the file holds, whatever its own name says.
        turned: whether Exif says that it lies on a side or upside down.
    """

    reason: str | None
    image_size: tuple[int, int] = (0, 0)
    grey: bool = False
    format: str = ""
    turned: bool = False


def inspect_image(image: str | os.PathLike[str] | bytes) -> str | None:
    """Return why an image, given by path or as bytes, cannot be read; None when it can.

    Example:
        >>> from kclassify.data.files import inspect_image
        >>> inspect_image(b"")
        'it is empty (zero bytes)'
    """
    return inspect(image).reason


def inspect_files(paths: Sequence[str]) -> list[Inspection]:
    """Inspect many files at once, with a progress bar on a terminal past a second or two."""
    workers = runtime.concurrency()
    # Filters belong to the whole process, so they are set around the threads and not in them.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        found = pool.map(inspect, paths)
        bar = tqdm(found, "inspecting", len(paths), unit="image", delay=1.5, disable=None)
        return list(bar)


def inspect(image: str | os.PathLike[str] | bytes) -> Inspection:
    """Decode an image, given by path or as bytes, to find out whether it can be read."""
    try:
        size = len(image) if isinstance(image, bytes) else os.stat(image).st_size
        if size == 0:
            return Inspection("it is empty (zero bytes)")
        stream = io.BytesIO(image) if isinstance(image, bytes) else image
        with Image.open(stream, formats=FORMATS) as opened:
            return _inspect_opened(opened)
    except FileNotFoundError:
        return Inspection("there is no such file")
    except UnidentifiedImageError:
        return Inspection("it is no PNG, JPEG, BMP, GIF or WebP image")
    except _BOMBS:
        return Inspection(f"its header claims more than {MOST_PIXELS // 10**6} million pixels")
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError) as error:
        return Inspection(f"it is damaged or cut off ({_first_line(error)})")


def _inspect_opened(image: ImageFile.ImageFile) -> Inspection:
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError
    reason = _not_for_tensorflow(image)
    if reason:
        return Inspection(reason)
    grey = image.mode in GREY_MODES
    image.load()
    kind = image.format or ""
    orientation = image.getexif().get(_ORIENTATION, 1) if kind in ("JPEG", "MPO") else 1
    on_its_side = orientation in range(5, 9)
    height, width = (image.width, image.height) if on_its_side else (image.height, image.width)
    return Inspection(None, (height, width), grey, kind, turned=orientation in range(2, 9))


def _not_for_tensorflow(image: ImageFile.ImageFile) -> str | None:
    """Return why an image that Pillow reads must not reach TensorFlow."""
    if image.format == "BMP" and image.mode not in ("L", "RGB", "RGBA"):
        return "it is a BMP with a palette or of 1 bit, which is decoded wrongly; save it as PNG"
    if image.format == "WEBP" and getattr(image, "is_animated", False):
        return "it is an animated WebP, which is not decoded; save a frame as PNG"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
