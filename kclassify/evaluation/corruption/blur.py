"""Blur of a lens, of frosted glass, of a hand that moves, and of zooming in."""

import numpy as np
from scipy.ndimage import gaussian_filter

from kclassify.evaluation.corruption import planes as on
from kclassify.evaluation.corruption.planes import as_images, as_planes, scale_of

# By severity, in pixels of an image of 32. The radius of a disk, and the blur of its edge.
DEFOCUS_BLUR = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
# The blur before and after, how far pixels go, and how often.
GLASS_BLUR = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
# The radius and the deviation of the line.
MOTION_BLUR = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
# Below it are the factors, which begin with 1.00 and go by hundredths. As in the paper's code they
# are added up in floats, so that 1.06 and 1.11 are among them.
ZOOM_BLUR = (1.06, 1.11, 1.16, 1.21, 1.26)


def defocus_blur(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Spread every pixel over a disk. Nothing of it is random."""
    scale = scale_of(images)
    radius, edge = DEFOCUS_BLUR[severity - 1]
    kernel = disk(radius * scale, edge=edge * scale, edge_pixels=max(1, round(scale)))
    return as_images(on.filtered(as_planes(images), kernel))


def disk(radius: float, *, edge: float, edge_pixels: int) -> np.ndarray:
    """Return a kernel of a disk whose edge is blurred, with a sum of 1.

    Args:
        radius: in pixels.
        edge: the deviation of the blur, in pixels.
        edge_pixels: how far it reaches.
    """
    reach = int(radius) + edge_pixels
    along = np.arange(-reach, reach + 1)
    sharp = (along[:, None] ** 2 + along**2 <= radius**2).astype(float)
    return gaussian_filter(sharp / sharp.sum(), edge, mode="constant", radius=edge_pixels)


def glass_blur(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Blur, let every pixel show a neighbour, and blur again.

    The code of the paper means to swap the two, but copies one: so it is here. There pixels are
    changed one after another, here all at once, which is the same for neighbours of one pixel, as
    up to images of 48.
    """
    scale = scale_of(images)
    sigma, reach, times = GLASS_BLUR[severity - 1]
    reach = max(1, round(reach * scale))
    steps = rng.integers(-reach, reach, (len(images), times, 2, *images.shape[1:3]), np.int8)
    planes = np.rint(_blurred(as_planes(images), sigma * scale))
    for turn in range(times):
        planes = _of_neighbours(planes, steps[:, turn], reach)
    return as_images(_blurred(planes, sigma * scale))


def _blurred(planes: np.ndarray, sigma: float) -> np.ndarray:
    rows, columns = (on.gaussian_matrix(size, sigma, mode="nearest", truncate=4.0)
                     for size in planes.shape[2:])  # fmt: skip
    return on.separable(planes, [rows], [columns])


def _of_neighbours(planes: np.ndarray, steps: np.ndarray, reach: int) -> np.ndarray:
    """Return what each pixel finds so many steps down and across, except near the border."""
    n, channels, height, width = planes.shape
    inner = np.zeros((height, width), bool)
    inner[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    down, across = np.moveaxis(steps * inner, 1, 0)
    places = np.arange(height * width).reshape(height, width) + down * np.int64(width) + across
    flat = planes.reshape(n, channels, -1)
    return np.take_along_axis(flat, places.reshape(n, 1, -1), axis=2).reshape(planes.shape)


def motion_blur(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Smear each image along a line, up to 45 degrees from the level."""
    scale = scale_of(images)
    radius, sigma = MOTION_BLUR[severity - 1]
    angles = np.radians(rng.uniform(-45, 45, len(images)))
    planes = as_planes(images)
    return as_images(on.motion_blur(planes, angles, radius=radius * scale, sigma=sigma * scale))


def zoom_blur(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Lay images over themselves, ever more enlarged. Nothing of it is random."""
    factors = np.arange(1, ZOOM_BLUR[severity - 1], 0.01)
    height, width = images.shape[1:3]
    rows = [np.eye(height), *(on.zoom_matrix(height, factor) for factor in factors)]
    columns = [np.eye(width), *(on.zoom_matrix(width, factor) for factor in factors)]
    total = on.separable(as_planes(images), rows, columns)
    return as_images(total / np.float32(len(rows)))
