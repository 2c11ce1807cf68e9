"""Small image files, folders and configurations."""

import io

import numpy as np
import pytest
from PIL import Image

from kclassify.config import FitConfig


@pytest.fixture
def config():
    return FitConfig(batch_size=2)


@pytest.fixture(scope="session")
def picture():
    """A 12x16 colour image of flat 4x4 blocks, which survive JPEG nearly unchanged."""
    blocks = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((4, 4, 1), np.uint8)))


@pytest.fixture(scope="session")
def encode():
    """Return a function that gives an image's bytes in a format."""

    def encoded(image, form, **options):
        stream = io.BytesIO()
        image.save(stream, form, **options)
        return stream.getvalue()

    return encoded


@pytest.fixture
def image_folder(tmp_path):
    """Twelve 8x8 PNG images of two classes, in class folders alone."""
    rng = np.random.default_rng(0)
    root = tmp_path / "pets"
    for name in ("dog", "cat"):
        (root / name).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.fixture
def damaged_folder(image_folder, picture, encode):
    """The image folder with one file of each kind that cannot be read."""
    png, jpeg = encode(picture, "PNG"), encode(picture, "JPEG")
    header = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    bad = {
        "corrupt.png": png[:45] + bytes([png[45] ^ 0xFF]) + png[46:],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "text.jpg": b"not an image at all",
        "enormous.png": bytes(header),
        "palette.bmp": encode(picture.quantize(8), "BMP"),
        "one_bit.bmp": encode(picture.convert("1"), "BMP"),
    }
    for name, content in bad.items():
        (image_folder / "cat" / name).write_bytes(content)
    return image_folder, sorted(f"cat/{name}" for name in bad)


@pytest.fixture(scope="session")
def labelled():
    """Return a function that gives n uint8 images whose every pixel is their index, and labels."""

    def made(count, *, size=(8, 8), channels=3, classes=2):
        images = np.zeros((count, *size, channels), np.uint8)
        images += np.arange(count, dtype=np.uint8)[:, None, None, None]
        return images, np.arange(count) % classes

    return made
