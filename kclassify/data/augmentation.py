"""Random changes to whole batches of uint8 images, decided by a seed alone.

Each is a function of images ``(batch_size, height, width, channels)``, labels and a seed ``(2,)``
that returns images and labels. The same seed gives the same result. Those that look at one image at
a time also take a share: then the images are that share of the batch, and are changed as they would
be within it.
"""

import math
from collections.abc import Callable

from kclassify import runtime

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.data.images import LUMA  # noqa: E402
from kclassify.data.spec import WHOLE, Share  # noqa: E402

MID_GREY = 128
MIXUP_ALPHA = 0.2
# RandAugment's N, and its M of 9 in 30.
RANDAUGMENT_LAYERS = 2
RANDAUGMENT_MAGNITUDE = 0.3
GEOMETRIC = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLOUR = ("brightness", "contrast", "saturation", "posterize", "solarize", "autocontrast")


def crop(images, labels, seed, *, mirrored=None, share: Share = WHOLE):
    """Shift each image by up to a sixteenth of its height and width; the border is reflected.

    That is half of what is usual for CIFAR-10 (He et al. 2016: 4 pixels, filled with zeros), as a
    training of few epochs needs less of it (Jordan 2024). Where ``(batch_size,)`` booleans are
    given as `mirrored`, those images are mirrored first, left to right.
    """
    height, width = images.shape[1:3]
    down, across = max(1, height // 16), max(1, width // 16)
    seeds = tf.unstack(tf.random.split(seed), num=2)
    tops = _whole(images, seeds[0], 2 * down + 1, share) - down
    lefts = _whole(images, seeds[1], 2 * across + 1, share) - across
    rows = _reflected(tops[:, tf.newaxis] + tf.range(height), height)
    columns = _reflected(lefts[:, tf.newaxis] + tf.range(width), width)
    if mirrored is not None:
        # In the same gather: a pass of its own would cost more than the crop itself.
        columns = tf.where(mirrored[:, tf.newaxis], width - 1 - columns, columns)
    return _pixels(images, rows, columns), labels


def cutout(images, labels, seed, *, share: Share = WHOLE):
    """Cover a square of each image (DeVries and Taylor 2017).

    As there, its centre is anywhere, so that part of it may be outside. Departures: the side is a
    quarter of the shorter side of the image (there half, for CIFAR-10), the colour is mid-grey
    (there the mean of the training images).
    """
    height, width = images.shape[1:3]
    side = tf.fill((tf.shape(images)[0],), max(1, min(height, width) // 4))
    covered = _boxes(images, seed, side, side, share)
    return tf.where(covered, tf.constant(MID_GREY, images.dtype), images), labels


def mixup(images, labels, seed):
    """Blend each image and its label with the next one's (Zhang et al. 2018).

    The share is drawn for each image from Beta(0.2, 0.2); there once for the batch.
    """
    seeds = tf.unstack(tf.random.split(seed), num=2)
    shape = (tf.shape(images)[0],)
    first = tf.random.stateless_gamma(shape, seeds[0], MIXUP_ALPHA)
    second = tf.random.stateless_gamma(shape, seeds[1], MIXUP_ALPHA)
    share = tf.math.divide_no_nan(first, first + second)
    pixels = tf.cast(images, tf.float32)
    blended = _blend(
        tf.roll(pixels, 1, axis=0), pixels, share[:, tf.newaxis, tf.newaxis, tf.newaxis]
    )
    return _as_uint8(blended), _mix(labels, share)


def cutmix(images, labels, seed):
    """Replace a box of each image by the next one's (Yun et al. 2019).

    The share that is kept is drawn for each image from Beta(1, 1), there once for the batch; the
    label has the shares of the area that was in fact replaced.
    """
    height, width = images.shape[1:3]
    seeds = tf.unstack(tf.random.split(seed), num=2)
    root = tf.sqrt(1.0 - tf.random.stateless_uniform((tf.shape(images)[0],), seeds[0]))
    tall, wide = (tf.cast(tf.round(root * side), tf.int32) for side in (height, width))
    replaced = _boxes(images, seeds[1], tall, wide, WHOLE)
    share = 1.0 - tf.reduce_mean(tf.cast(replaced, tf.float32), axis=(1, 2, 3))
    return tf.where(replaced, tf.roll(images, 1, axis=0), images), _mix(labels, share)


def randaugment(images, labels, seed, *, share: Share = WHOLE):
    """Apply two random operations to each image (Cubuk et al. 2020), with a magnitude of 9 in 30.

    The geometric ones of an image are composed and applied last, in one resampling, filled with
    mid-grey. Left out: equalize and sharpness. Every strength has a random sign.
    """
    pixels = tf.cast(images, tf.float32)
    matrix = tf.eye(3, batch_shape=(tf.shape(images)[0],))
    for layer in range(RANDAUGMENT_LAYERS):
        seeds = tf.random.split(tf.random.experimental.stateless_fold_in(seed, layer))
        choices = _whole(images, seeds[0], len(GEOMETRIC) + len(COLOUR), share)
        sign = tf.cast(2 * _whole(images, seeds[1], 2, share) - 1, tf.float32)
        strength = sign * RANDAUGMENT_MAGNITUDE
        pixels = _recolour(pixels, choices - len(GEOMETRIC), strength)
        matrix = tf.matmul(matrix, _affine(choices, strength, images.shape[1:3]))
    return _as_uint8(_transform(pixels, matrix)), labels


Change = Callable[..., tuple[tf.Tensor, tf.Tensor]]

# The stronger ones come on top of mirroring and crop, as in the papers.
AUGMENTATIONS: dict[str, tuple[Change, ...]] = {
    "none": (),
    "crop": (crop,),
    "flip_crop": (crop,),
    "cutout": (crop, cutout),
    "randaugment": (crop, randaugment),
    "mixup": (crop, mixup),
    "cutmix": (crop, cutmix),
}
# Those whose crop mirrors too, which `train_dataset` decides by the epoch.
MIRRORING = ("flip_crop", "cutout", "randaugment", "mixup", "cutmix")


def _whole(images, seed, below: int, share: Share):
    """Return a whole number for each image: its own of those that the whole batch draws."""
    count = tf.shape(images)[0]
    shape = (count * share.count,)
    drawn = tf.random.stateless_uniform(shape, seed, maxval=below, dtype=tf.int32)
    return drawn[share.index * count : (share.index + 1) * count]


def _reflected(places, length: int):
    """Return places outside of ``[0, length)`` as their reflections within."""
    return tf.maximum(0, (length - 1) - tf.abs((length - 1) - tf.abs(places)))


def _pixels(images, rows, columns):
    """Return the pixels at ``(batch_size, height)`` rows and ``(batch_size, width)`` columns."""
    height, width, channels = images.shape[1:]
    # One gather over all the pixels is ten times as quick as one of rows and one of columns.
    firsts = tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis] * height
    places = (firsts + rows[:, :, tf.newaxis]) * width + columns[:, tf.newaxis, :]
    return tf.gather(tf.reshape(images, (-1, channels)), places)


def _as_uint8(pixels):
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def _blend(first, second, share):
    return first + (second - first) * share


def _mix(labels, share):
    return _blend(tf.roll(labels, 1, axis=0), labels, share[:, tf.newaxis])


def _boxes(images, seed, tall, wide, share: Share):
    """Return a mask ``(batch_size, height, width, 1)`` of a box a image, its centre anywhere."""
    height, width = images.shape[1:3]
    seeds = tf.unstack(tf.random.split(seed), num=2)
    rows = _interval(height, _whole(images, seeds[0], height, share), tall)
    columns = _interval(width, _whole(images, seeds[1], width, share), wide)
    return (rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :])[..., tf.newaxis]


def _interval(length: int, centres, sides):
    starts = (centres - sides // 2)[:, tf.newaxis]
    places = tf.range(length)
    return (places >= starts) & (places < starts + sides[:, tf.newaxis])


def _recolour(pixels, choices, strength):
    """Apply the chosen operation of `COLOUR` to each image; other choices leave it as it is."""
    amount = (1.0 + 0.9 * strength)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    choices = choices[:, tf.newaxis, tf.newaxis, tf.newaxis]
    result = pixels
    for place, name in enumerate(COLOUR):
        result = tf.where(choices == place, _COLOUR_OPERATIONS[name](pixels, amount), result)
    return tf.clip_by_value(result, 0.0, 255.0)


def _grey(pixels):
    if pixels.shape[-1] == 1:
        return pixels
    return tf.reduce_sum(pixels * LUMA, axis=-1, keepdims=True)


def _contrast(pixels, amount):
    mean = tf.reduce_mean(_grey(pixels), axis=(1, 2, 3), keepdims=True)
    return _blend(mean, pixels, amount)


def _posterize(pixels, _):
    step = 2.0 ** round(4 * RANDAUGMENT_MAGNITUDE)
    return tf.floor(pixels / step) * step


def _solarize(pixels, _):
    return tf.where(pixels >= 256 * (1 - RANDAUGMENT_MAGNITUDE), 255.0 - pixels, pixels)


def _autocontrast(pixels, _):
    low = tf.reduce_min(pixels, axis=(1, 2), keepdims=True)
    high = tf.reduce_max(pixels, axis=(1, 2), keepdims=True)
    return tf.where(high > low, tf.math.divide_no_nan(pixels - low, high - low) * 255.0, pixels)


_COLOUR_OPERATIONS = {
    "brightness": lambda pixels, amount: pixels * amount,
    "contrast": _contrast,
    "saturation": lambda pixels, amount: _blend(_grey(pixels), pixels, amount),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
}


def _affine(choices, strength, image_size):
    """Return ``(batch_size, 3, 3)`` matrices about the image's centre, identity for colours."""
    height, width = image_size
    amount = {name: tf.where(choices == place, strength, 0.0)
              for place, name in enumerate(GEOMETRIC)}  # fmt: skip
    angle = amount["rotate"] * math.radians(30)
    across, down = amount["translate_x"] * 0.3 * width, amount["translate_y"] * 0.3 * height
    shear_x, shear_y = amount["shear_x"] * 0.3, amount["shear_y"] * 0.3
    zero, one = tf.zeros_like(angle), tf.ones_like(angle)
    # Of these at most one is not zero in an image, so that adding them composes them.
    rows = (
        (tf.cos(angle), shear_x - tf.sin(angle), across),
        (shear_y + tf.sin(angle), tf.cos(angle), down),
        (zero, zero, one),
    )
    return tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)


def _transform(pixels, matrix):
    height, width = pixels.shape[1:3]
    x, y = (width - 1) / 2, (height - 1) / 2
    to_centre = tf.constant([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])
    back = tf.constant([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    flat = tf.reshape(back @ matrix @ to_centre, (-1, 9))[:, :8]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=flat,
        output_shape=(height, width),
        fill_value=float(MID_GREY),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
