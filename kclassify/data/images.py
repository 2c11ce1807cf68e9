"""The one decoder and the one resizer: training, evaluation and export share them.

Everything here can be put into a graph, since an exported model decodes by the same functions.
"""

from functools import partial

from kclassify import runtime

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.data.files import MOST_PIXELS  # noqa: E402

# Where an orientation is looked for: Exif blocks hold 64 KB at most and stand near the start.
HEAD_BYTES = 1 << 17
LUMA = (0.299, 0.587, 0.114)
# One pixel of so many can be decoded, each way.
RATIOS = (1, 2, 4, 8)


def decode_image(encoded: tf.Tensor, *, channels: int, least: int | None = None) -> tf.Tensor:
    """Decode a PNG, JPEG, BMP, GIF or WebP image.

    Of an animation, the first frame is taken; transparency is dropped; 16 bits become 8; a JPEG
    is turned upright as its Exif orientation says. An image whose header claims more than 64
    million pixels is refused before any memory is taken for it.

    Args:
        encoded: a scalar string, the bytes of the file.
        channels: 1 for grey or 3 for colour, whatever the file has.
        least: how many pixels each side has to have at least: of a larger JPEG a half, a quarter
            or an eighth of the pixels is decoded where that is enough, in a fraction of the time.

    Returns:
        uint8 ``(height, width, channels)``.

    Example:
        >>> import tensorflow as tf
        >>> from kclassify.data.images import decode_image
        >>> encoded = tf.io.encode_png(tf.zeros((4, 6, 1), "uint8"))
        >>> tuple(decode_image(encoded, channels=3).shape)
        (4, 6, 3)
    """
    encoded = tf.convert_to_tensor(encoded)
    # One branch a format: a small image is decoded faster than all the headers are looked at.
    readers = [partial(_jpeg, least=least) if read is _jpeg else read for read in _READ]
    colour = tf.switch_case(_format(encoded), [partial(read, encoded) for read in readers])
    return to_channels(tf.ensure_shape(colour, (None, None, 3)), channels)


def decode_file(path: tf.Tensor, *, image_size: tuple[int, int], channels: int) -> tf.Tensor:
    """Read, decode and resize one file: uint8 ``(height, width, channels)``."""
    image = decode_image(tf.io.read_file(path), channels=channels, least=max(image_size))
    return tf.ensure_shape(resize_images(image[tf.newaxis], image_size)[0], (*image_size, channels))


def resize_images(images: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Bring images to ``(height, width)``: bilinear, smoothed when shrunk, rounded.

    Args:
        images: uint8 ``(batch_size, any height, any width, channels)``.
        image_size: ``(height, width)``; images that have it are returned as they are.

    Returns:
        uint8 ``(batch_size, height, width, channels)``.

    Example:
        >>> import numpy as np
        >>> from kclassify.data.images import resize_images
        >>> tuple(resize_images(np.zeros((2, 8, 8, 3), "uint8"), (4, 4)).shape)
        (2, 4, 4, 3)
    """
    images = tf.convert_to_tensor(images)
    if tuple(images.shape[1:3]) == tuple(image_size):
        return images
    return _as_uint8(tf.image.resize(images, image_size, method="bilinear", antialias=True))


def to_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Make uint8 ``(..., height, width, 1, 3 or 4)`` images grey (1) or colour (3)."""
    images = tf.convert_to_tensor(images)
    if images.shape[-1] == 4:
        images = images[..., :3]
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return tf.repeat(images, 3, axis=-1)
    return _as_uint8(tf.reduce_sum(tf.cast(images, tf.float32) * LUMA, axis=-1, keepdims=True))


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Return the Exif orientation of a JPEG, 1 to 8; 1, upright, where there is none."""
    return _jpeg_orientation(_numbers(encoded, HEAD_BYTES))


_UPRIGHT = 1


def _format(encoded: tf.Tensor) -> tf.Tensor:
    """Return the index in `_READ` by the first bytes; the last for what is none of them."""
    start = tf.io.decode_raw(tf.strings.substr(encoded + b"\0\0\0\0", 0, 4), tf.uint8)
    magic = [
        [*name.ljust(4, b"\0")] for name in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
    ]
    longer = [[place >= length for place in range(4)] for length in (4, 3, 4, 4, 2)]
    known = tf.reduce_all((start == tf.constant(magic, tf.uint8)) | tf.constant(longer), axis=1)
    return tf.argmax(tf.concat([known, [True]], axis=0), output_type=tf.int32)


def _png(encoded: tf.Tensor) -> tf.Tensor:
    return _decoded(encoded, tf.reduce_prod(_sides(encoded, 16, tf.int32, little=False)))


def _jpeg(encoded: tf.Tensor, *, least: int | None) -> tf.Tensor:
    sides = tf.image.extract_jpeg_shape(encoded)[:2]
    small = _small_enough(encoded, tf.reduce_prod(tf.cast(sides, tf.float64)))
    # Whether it is turned is not known yet, so the shorter side has to be long enough.
    times = tf.reduce_min(sides) // least if least else tf.constant(1)
    read = [partial(tf.io.decode_jpeg, small, channels=3, ratio=ratio) for ratio in RATIOS]
    which = tf.math.count_nonzero(times >= tf.constant(RATIOS[1:]), dtype=tf.int32)
    pixels = tf.switch_case(which, read)
    return _turn(pixels, exif_orientation(encoded))


def _gif(encoded: tf.Tensor) -> tf.Tensor:
    return _decoded(encoded, tf.reduce_prod(_sides(encoded, 6, tf.uint16, little=True)))


def _webp(encoded: tf.Tensor) -> tf.Tensor:
    head = _numbers(encoded, 30)
    pixels = tf.cast(_webp_pixels(head), tf.float64)
    return tf.cond(
        _is_transparent(head),
        lambda: _decoded(encoded, pixels, channels=4)[..., :3],
        lambda: _decoded(encoded, pixels),
    )


def _bmp(encoded: tf.Tensor) -> tf.Tensor:
    width, height = tf.unstack(_sides(encoded, 18, tf.int32, little=True), num=2)
    # A negative height says that the rows are stored from the top.
    return _decoded(encoded, width * tf.minimum(height, 2.0**32 - height))


def _other(encoded: tf.Tensor) -> tf.Tensor:
    """Let TensorFlow say what is wrong with it."""
    return _decoded(encoded, tf.constant(0.0, tf.float64))


_READ = (_png, _jpeg, _gif, _webp, _bmp, _other)


def _decoded(encoded: tf.Tensor, claimed: tf.Tensor, *, channels: int = 3) -> tf.Tensor:
    small = _small_enough(encoded, claimed)
    return tf.io.decode_image(small, channels=channels, expand_animations=False)


def _small_enough(encoded: tf.Tensor, claimed: tf.Tensor) -> tf.Tensor:
    """Return what claims few enough pixels: before any memory is taken for them."""
    message = f"the header claims more than {MOST_PIXELS // 10**6} million pixels"
    # Without the branch that `tf.debugging.Assert` makes.
    small = tf.raw_ops.Assert(condition=claimed <= MOST_PIXELS, data=[message])
    with tf.control_dependencies([small] if small is not None else []):
        return tf.identity(encoded)


def _sides(encoded: tf.Tensor, start: int, kind: tf.DType, *, little: bool) -> tf.Tensor:
    """Return two unsigned numbers that stand one after the other in a header, float64 ``(2,)``.

    Their product would overflow 64 bits where a header lies.
    """
    size = 2 * kind.size
    bits = tf.strings.substr(encoded + b"\0" * (start + size), start, size)
    numbers = tf.cast(tf.io.decode_raw(bits, kind, little_endian=little), tf.int64)
    return tf.cast(numbers % 256**kind.size, tf.float64)


def _webp_pixels(head: tf.Tensor) -> tf.Tensor:
    kind = _number(head, tf.constant(12), 4, tf.constant(True))
    packed = _number(head, tf.constant(21), 4, tf.constant(True))
    lossless = (packed % 2**14 + 1) * (packed // 2**14 % 2**14 + 1)
    sides = [_number(head, tf.constant(place), 3, tf.constant(True)) + 1 for place in (24, 27)]
    lossy = [_number(head, tf.constant(place), 2, tf.constant(True)) % 2**14 for place in (26, 28)]
    names = [int.from_bytes(name, "little") for name in (b"VP8X", b"VP8L")]
    return tf.where(
        kind == names[0], sides[0] * sides[1],
        tf.where(kind == names[1], lossless, lossy[0] * lossy[1]),
    )  # fmt: skip


def _as_uint8(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)


def _numbers(encoded: tf.Tensor, count: int) -> tf.Tensor:
    """Return the first bytes and a 0, which is what reading past the end finds."""
    head = tf.io.decode_raw(tf.strings.substr(encoded, 0, count), tf.uint8)
    return tf.concat([tf.cast(head, tf.int64), [0]], axis=0)


def _bytes(head: tf.Tensor, start: tf.Tensor, count: int) -> tf.Tensor:
    positions = tf.cast(start, tf.int64)[..., tf.newaxis] + tf.range(count, dtype=tf.int64)
    return tf.gather(head, tf.minimum(positions, tf.size(head, tf.int64) - 1))


def _number(head: tf.Tensor, start: tf.Tensor, count: int, little: tf.Tensor) -> tf.Tensor:
    digits = _bytes(head, start, count)
    digits = tf.where(little, digits, digits[..., ::-1])
    return tf.reduce_sum(digits * 256 ** tf.range(count, dtype=tf.int64), axis=-1)


def _jpeg_orientation(head: tf.Tensor) -> tf.Tensor:
    """Walk the JPEG's segments to its Exif block, and find tag 0x0112 in the first directory."""
    big = tf.constant(False)

    def is_exif(position: tf.Tensor) -> tf.Tensor:
        found = _bytes(head, position + 4, 6) == tf.constant([*b"Exif\0\0"], tf.int64)
        return (_bytes(head, position + 1, 1)[0] == 0xE1) & tf.reduce_all(found)

    def goes_on(position: tf.Tensor) -> tf.Tensor:
        first, marker = tf.unstack(_bytes(head, position, 2), num=2)
        # 0xDA starts the pixels.
        return (first == 0xFF) & (marker != 0xDA) & ~is_exif(position)

    start = tf.while_loop(
        goes_on,
        lambda position: (position + 2 + _number(head, position + 2, 2, big),),
        (tf.constant(2, tf.int64),),
    )[0]
    return tf.cond(is_exif(start), lambda: _tiff_orientation(head, start + 10), lambda: _UPRIGHT)


def _tiff_orientation(head: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    little = _bytes(head, tiff, 1)[0] == 0x49
    directory = tiff + _number(head, tiff + 4, 4, little)
    entries = directory + 2 + 12 * tf.range(_number(head, directory, 2, little))
    is_orientation = _number(head, entries, 2, little) == 0x0112
    values = tf.where(is_orientation, _number(head, entries + 8, 2, little), 0)
    value = tf.cast(tf.reduce_max(tf.concat([values, [0]], axis=0)), tf.int32)
    return tf.where((value >= 1) & (value <= 8), value, _UPRIGHT)


def _turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo an Exif orientation: swap the axes (5 to 8), then mirror each axis where needed."""

    def is_one_of(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values))

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(is_one_of(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(is_one_of(3, 4, 7, 8), lambda: image[::-1], lambda: image)


def _is_transparent(head: tf.Tensor) -> tf.Tensor:
    """Tell a still WebP with an alpha channel, which TensorFlow decodes to four channels only.

    An animated one must not be asked for four: TensorFlow 2.21 then corrupts its memory.
    """
    kind = _number(head, tf.constant(12), 4, tf.constant(True))
    extended, lossless = (kind == int.from_bytes(name, "little") for name in (b"VP8X", b"VP8L"))
    flags, version = (_bytes(head, tf.constant(place), 1)[0] for place in (20, 24))
    animated, alpha = flags // 2 % 2 == 1, flags // 16 % 2 == 1
    return (extended & alpha & ~animated) | (lossless & (version // 16 % 2 == 1))
