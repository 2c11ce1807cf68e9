"""What happens to images in a computer: contrast, distortion, coarse pixels and JPEG."""

import numpy as np
from PIL import Image

from kclassify import runtime
from kclassify.evaluation.corruption import planes as on
from kclassify.evaluation.corruption.planes import as_images, as_planes

runtime.prepare()

import tensorflow as tf  # noqa: E402

# By severity. What is left of the distance from the mean.
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
# Shares of the image's side: how far pixels are displaced, how smoothly, and how far three corners.
ELASTIC_TRANSFORM = (
    (0.0, 0.0, 0.08),
    (0.05, 0.2, 0.07),
    (0.08, 0.06, 0.06),
    (0.1, 0.04, 0.05),
    (0.1, 0.03, 0.03),
)
# The share of pixels that are left along a side.
PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)
# The quality, of 100.
JPEG_COMPRESSION = (80, 65, 58, 50, 40)


def contrast(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Bring all values nearer to the mean of their channel. Nothing of it is random."""
    planes = as_planes(images)
    means = planes.mean(axis=(2, 3), keepdims=True)
    return as_images((planes - means) * np.float32(CONTRAST[severity - 1]) + means)


def elastic_transform(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Move three points of each image, and with them all of it; then wobble its pixels."""
    amount, smoothness, corners = ELASTIC_TRANSFORM[severity - 1]
    n, height, width, _ = images.shape
    side = min(height, width)
    of_corners, of_pixels = rng.spawn(2)
    moved = on.sample(
        as_planes(images),
        *_affine_places(n, height, width, corners * side, of_corners),
        mode="reflect",
    )
    rows, columns = (
        on.gaussian_matrix(size, smoothness * side, mode="reflect", truncate=3.0)
        for size in (height, width)
    )
    noise = 2 * of_pixels.random((n, 2, height, width), np.float32) - 1
    down, across = np.moveaxis(amount * side * on.separable(noise, [rows], [columns]), 1, 0)
    places = np.mgrid[:height, :width].astype(np.float32)
    return as_images(on.sample(moved, places[0] + down, places[1] + across, mode="symmetric"))


def _affine_places(
    n: int, height: int, width: int, reach: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel comes from when three points are moved by up to `reach` pixels."""
    down, across = height // 2, width // 2
    apart = max(1, min(height, width) // 3)
    points = np.array([(down + apart, across + apart), (down + apart, across - apart),
                       (down - apart, across - apart)], float)  # fmt: skip
    targets = points + rng.uniform(-reach, reach, (n, 3, 2))
    # The affine map that takes each target back to its point, as (3, 2) matrices.
    ones = np.ones((n, 3, 1))
    back = np.linalg.solve(np.concatenate([targets, ones], axis=2), np.broadcast_to(
        points, (n, 3, 2)
    ))  # fmt: skip
    pixels = np.stack([*np.mgrid[:height, :width], np.ones((height, width))], axis=-1)
    found = pixels.reshape(-1, 3).astype(np.float32) @ back.astype(np.float32)
    return found[..., 0].reshape(n, height, width), found[..., 1].reshape(n, height, width)


def pixelate(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Make images smaller, by means over boxes, and larger again. Nothing of it is random."""
    share = PIXELATE[severity - 1]
    sides = [(size, max(1, int(size * share))) for size in images.shape[1:3]]
    smaller = [[_box_matrix(size, fewer)] for size, fewer in sides]
    larger = [[_box_matrix(fewer, size)] for size, fewer in sides]
    coarse = on.as_bytes(on.separable(as_planes(images), *smaller))
    return as_images(on.separable(coarse.astype(np.float32), *larger))


def _box_matrix(size: int, wanted: int) -> np.ndarray:
    """Return the matrix of Pillow's resizing of a line by means over boxes."""
    identity = Image.fromarray(np.eye(size, dtype=np.float32))
    return np.asarray(identity.resize((size, wanted), Image.Resampling.BOX))


def jpeg_compression(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Encode and decode every image as JPEG. Nothing of it is random."""
    return _as_jpeg(images, JPEG_COMPRESSION[severity - 1]).numpy()


@tf.function(input_signature=[tf.TensorSpec((None,) * 4, tf.uint8), tf.TensorSpec((), tf.int32)])
def _as_jpeg(images: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    """Do it in a graph, which gives what Pillow gives, in a third of the time."""

    def decoded(image: tf.Tensor) -> tf.Tensor:
        encoded = tf.raw_ops.EncodeJpegVariableQuality(images=image, quality=quality)
        return tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")

    return tf.map_fn(decoded, images, parallel_iterations=64)
