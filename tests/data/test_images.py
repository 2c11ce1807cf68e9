import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from kclassify.data.images import decode_image, exif_orientation, resize_images, to_channels

# TensorFlow's JPEG decoder takes a faster, less exact transform than Pillow's; blocks of one
# colour differ by far more.
LOSS = 20


def as_array(image, mode="RGB"):
    array = np.asarray(image.convert(mode)).astype(int)
    return array if mode == "RGB" else array[..., np.newaxis]


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("RGBA", "PNG"),
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "BMP"),
        ("L", "BMP"),
        ("RGBA", "BMP"),
        ("P", "GIF"),
        ("L", "GIF"),
        ("RGB", "WEBP"),
        ("RGBA", "WEBP"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_decodes_as_pillow_does(picture, encode, mode, form, channels):
    options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    encoded = encode(picture.convert(mode), form, **options)
    expected = as_array(Image.open(io.BytesIO(encoded)), "RGB" if channels == 3 else "L")
    decoded = decode_image(encoded, channels=channels).numpy()
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= (LOSS if form == "JPEG" else 1)


def test_transparent_webp_lossless_and_lossy(picture, encode):
    transparent = picture.convert("RGBA")
    transparent.putalpha(128)
    for lossless in (True, False):
        encoded = encode(transparent, "WEBP", lossless=lossless)
        expected = as_array(Image.open(io.BytesIO(encoded)))
        assert np.abs(decode_image(encoded, channels=3).numpy() - expected).max() <= 1


def test_sixteen_bits_become_eight(encode):
    wide = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257)
    decoded = decode_image(encode(wide, "PNG"), channels=1).numpy()
    assert decoded.ravel().tolist() == list(range(256))


def test_first_frame_of_an_animated_gif(picture, encode):
    encoded = encode(picture, "GIF", save_all=True, append_images=[ImageOps.flip(picture)])
    expected = as_array(Image.open(io.BytesIO(encoded)))
    assert np.array_equal(decode_image(encoded, channels=3).numpy(), expected)


def test_an_animated_webp_is_an_error_and_not_a_crash(picture, encode):
    encoded = encode(picture, "WEBP", save_all=True, append_images=[ImageOps.flip(picture)])
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(encoded, channels=3)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
@pytest.mark.parametrize("side", [9_000, 2**31, 2**32 - 1, 2**32 - 9_000])
def test_what_a_header_claims_is_counted_however_large(picture, encode, form, side):
    encoded = bytearray(encode(picture, form))
    start, order = (16, "big") if form == "PNG" else (18, "little")
    encoded[start : start + 8] = side.to_bytes(4, order) * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="64 million pixels"):
        decode_image(bytes(encoded), channels=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("endian", ["<", ">"])
def test_exif_orientation_turns_a_jpeg_upright(picture, encode, orientation, endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "a maker, so that the orientation is not the first tag"
    exif[0x0112] = orientation
    encoded = encode(picture, "JPEG", exif=exif, quality=95, subsampling=0)
    expected = as_array(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    assert int(exif_orientation(encoded)) == orientation
    decoded = decode_image(encoded, channels=3).numpy()
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= LOSS


def test_exif_is_found_behind_another_segment(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(picture, "JPEG", exif=exif)
    comment = b"\xff\xfe" + (2 + 5).to_bytes(2, "big") + b"hello"
    assert int(exif_orientation(encoded[:2] + comment + encoded[2:])) == 6


@pytest.mark.parametrize("orientation", [0, 9, 400])
def test_an_orientation_that_is_none_is_upright(picture, encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert int(exif_orientation(encode(picture, "JPEG", exif=exif))) == 1


def test_damaged_exif_is_upright_and_ends(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(picture, "JPEG", exif=exif)
    start = encoded.index(b"Exif\0\0") + 6
    for garbage in (b"II*\0\xff\xff\xff\xff", b"MM\0*\xff\xff\xff\xff", bytes(8)):
        assert int(exif_orientation(encoded[:start] + garbage + encoded[start + 8 :])) == 1
    for cut in range(0, start + 12, 3):
        assert int(exif_orientation(encoded[:cut])) == 1


def test_decodes_inside_a_graph(picture, encode):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def decode(batch):
        return tf.map_fn(
            lambda one: resize_images(decode_image(one, channels=3)[None], (4, 4))[0],
            batch,
            fn_output_signature=tf.TensorSpec((4, 4, 3), tf.uint8),
        )

    encoded = [encode(picture, form) for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP")]
    batch = decode(tf.constant(encoded)).numpy()
    eager = resize_images(decode_image(encoded[0], channels=3)[None], (4, 4))[0]
    assert np.array_equal(batch[0], eager)


def test_resize_is_the_identity_for_the_same_size():
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3)).astype(np.uint8)
    assert np.array_equal(resize_images(images, (5, 7)), images)
    unknown = tf.function(
        lambda batch: resize_images(batch, (5, 7)),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
    )
    assert np.array_equal(unknown(images), images)


def test_resize_averages_and_rounds():
    images = np.array([[0, 255], [255, 255]], np.uint8).reshape(1, 2, 2, 1)
    resized = resize_images(images, (1, 1))
    assert resized.dtype == tf.uint8
    assert int(resized[0, 0, 0, 0]) == 191


def test_channels_repeat_and_weigh():
    grey = np.array([7], np.uint8).reshape(1, 1, 1, 1)
    assert to_channels(grey, 3).numpy().ravel().tolist() == [7, 7, 7]
    colours = np.eye(3, dtype=np.uint8).reshape(1, 1, 3, 3) * 255
    assert to_channels(colours, 1).numpy().ravel().tolist() == [76, 150, 29]
    transparent = np.array([1, 2, 3, 4], np.uint8).reshape(1, 1, 1, 4)
    assert to_channels(transparent, 3).numpy().ravel().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("sides", "least", "decoded"),
    [
        ((64, 48), None, (64, 48)),
        ((64, 48), 48, (64, 48)),
        ((64, 48), 24, (32, 24)),
        ((64, 48), 23, (32, 24)),
        ((64, 48), 6, (8, 6)),
        ((65, 49), 24, (33, 25)),
        ((640, 480), 8, (80, 60)),
    ],
)
def test_of_a_large_jpeg_no_more_is_decoded_than_is_needed(encode, sides, least, decoded):
    image = Image.new("RGB", sides[::-1], (200, 100, 50))
    found = decode_image(encode(image, "JPEG"), channels=3, least=least).numpy()
    assert found.shape == (*decoded, 3)
    assert np.abs(found - np.array([200, 100, 50])).max() <= 2


def test_a_jpeg_that_is_decoded_smaller_is_near_the_one_that_is_shrunk(encode):
    rows, columns = np.mgrid[:96, :96]
    smooth = np.stack([rows * 2, columns * 2, 192 - rows - columns], -1).astype(np.uint8)
    encoded = encode(Image.fromarray(smooth), "JPEG")
    small, large = (
        resize_images(decode_image(encoded, channels=3, least=least)[None], (16, 16)).numpy()
        for least in (16, None)
    )
    assert np.abs(small.astype(int) - large).max() <= 3
