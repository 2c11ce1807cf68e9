import numpy as np
import pytest
from PIL import Image, ImageOps

from kclassify.data.files import inspect, inspect_files, inspect_image


def test_sound_images_have_no_reason(picture, encode, tmp_path):
    path = tmp_path / "sound.png"
    picture.save(path)
    assert inspect_image(path) is None
    for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP"):
        assert inspect_image(encode(picture, form)) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("corrupt.png", "damaged or cut off"),
        ("truncated.jpg", "damaged or cut off"),
        ("empty.png", "zero bytes"),
        ("text.jpg", "it is no PNG, JPEG"),
        ("enormous.png", "more than 64 million pixels"),
        ("palette.bmp", "save it as PNG"),
        ("one_bit.bmp", "save it as PNG"),
    ],
)
def test_reasons(damaged_folder, name, reason):
    folder, _ = damaged_folder
    path = folder / "cat" / name
    assert reason in inspect_image(path)
    assert reason in inspect_image(path.read_bytes())
    assert reason in inspect_files([str(path)])[0].reason


def test_other_formats_are_refused_whatever_they_are_called(picture, encode):
    assert "it is no PNG" in inspect_image(encode(picture, "TIFF"))


def test_animated_webp_is_refused(picture, encode):
    encoded = encode(picture, "WEBP", save_all=True, append_images=[ImageOps.flip(picture)])
    assert "animated WebP" in inspect_image(encoded)


def test_a_missing_file_is_a_reason():
    assert inspect_image("missing.png") == "there is no such file"


def test_header_over_the_limit_is_read_before_the_pixels(encode):
    header = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = (8001).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    assert "64 million" in inspect_image(bytes(header))


def test_size_is_that_of_the_upright_image_and_grey_is_seen(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = inspect(encode(picture, "JPEG", exif=exif))
    assert turned.image_size == (16, 12)
    assert not turned.grey
    assert inspect(encode(picture, "PNG")).image_size == (12, 16)
    for mode in ("1", "L", "LA"):
        assert inspect(encode(picture.convert(mode), "PNG")).grey
    assert inspect(encode(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG")).grey
