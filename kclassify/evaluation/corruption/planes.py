"""What the corruptions are made of: planes of floats, and operations on all of them at once.

A batch of images is held as float32 planes ``(n, channels, height, width)`` in units of pixel
values, 0 to 255. What works along one axis is a matrix, whatever the border does: it is found by
doing it to the rows of the identity.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.ndimage import correlate1d, gaussian_filter1d, zoom

# The images of CIFAR-10-C, for whose size the lengths of the corruptions are given.
CIFAR_PIXELS = 32
# How bright red, green and blue are to the eye (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def as_planes(images: np.ndarray) -> np.ndarray:
    """Return uint8 ``(n, height, width, channels)`` as planes."""
    return images.transpose(0, 3, 1, 2).astype(np.float32, order="C")


def as_images(planes: np.ndarray) -> np.ndarray:
    """Return planes as uint8 images, rounded; what is out of range becomes black or white."""
    return as_bytes(planes).transpose(0, 2, 3, 1)


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Return values rounded to uint8; what is out of range becomes 0 or 255."""
    return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)


def scale_of(images: np.ndarray) -> float:
    """Return how many times as large as CIFAR-10's the images are, by their shorter side."""
    return min(images.shape[1:3]) / CIFAR_PIXELS


def grey(planes: np.ndarray) -> np.ndarray:
    """Return the brightness of planes, ``(n, 1, height, width)``."""
    if planes.shape[1] == 1:
        return planes
    return np.tensordot(LUMA, planes, axes=(0, 1))[:, None]


def separable(
    planes: np.ndarray, rows: Sequence[np.ndarray], columns: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the sum, over pairs of matrices, of ``row @ plane @ column.T``.

    Args:
        planes: ``(n, channels, height, width)``.
        rows: some of ``(new_height, height)``, each along the height.
        columns: as many of ``(new_width, width)``, along the width.
    """
    n, channels, height, width = planes.shape
    # Two products of matrices, however many pairs there are.
    across = np.concatenate([column.T for column in columns], axis=1)
    down = np.stack(rows, axis=2).reshape(len(rows[0]), -1)
    stretched = planes.reshape(-1, width) @ across.astype(np.float32)
    stretched = stretched.reshape(n, channels, height * len(rows), -1)
    return down.astype(np.float32) @ stretched


def filtered(planes: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlate planes with a kernel of odd sides, the border mirrored about the last pixel."""
    left, weights, right = np.linalg.svd(kernel)
    # Few are needed: a kernel of 35x35 that is as round as a disk has 18 at most.
    terms = [term for term, weight in enumerate(weights) if weight > 1e-6 * weights[0]]
    height, width = planes.shape[2:]
    rows = [correlation_matrix(height, weights[term] * left[:, term]) for term in terms]
    columns = [correlation_matrix(width, right[term]) for term in terms]
    return separable(planes, rows, columns)


def correlation_matrix(size: int, weights: np.ndarray) -> np.ndarray:
    """Return the matrix of a correlation, the border mirrored about the last pixel."""
    return correlate1d(np.eye(size), weights, axis=0, mode="mirror")


def gaussian_matrix(size: int, sigma: float, *, mode: str, truncate: float) -> np.ndarray:
    """Return the matrix of a Gaussian blur of `sigma` pixels, as scipy does it."""
    if sigma == 0:
        return np.eye(size)
    return gaussian_filter1d(np.eye(size), sigma, axis=0, mode=mode, truncate=truncate)


def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Return the matrix that enlarges the middle of a line to the whole of it, bilinearly."""
    middle = int(np.ceil(size / factor))
    first = (size - middle) // 2
    larger = zoom(np.eye(size)[first : first + middle], (factor, 1), order=1)
    trimmed = (len(larger) - size) // 2
    return larger[trimmed : trimmed + size]


def motion_blur(
    planes: np.ndarray, angles: np.ndarray, *, radius: float, sigma: float
) -> np.ndarray:
    """Blur each image along a line, by one half of a Gaussian, as ImageMagick does.

    Args:
        planes: ``(n, channels, height, width)``; the border is repeated.
        angles: ``(n,)`` radians, from the direction of the rows.
        radius: in pixels: the line has twice as many, and one.
        sigma: of the Gaussian, in pixels.
    """
    weights = motion_weights(radius, sigma)
    order = np.argsort(angles)
    offsets = motion_offsets(angles[order], len(weights))
    margin = len(weights) - 1
    around = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    padded = np.pad(planes[order], around, mode="edge")
    blurred = np.zeros_like(planes)
    for weight, places in zip(weights, offsets, strict=True):
        _add_shifted(blurred, padded, weight, places + margin)
    result = np.empty_like(blurred)
    result[order] = blurred
    return result


def motion_weights(radius: float, sigma: float) -> np.ndarray:
    """Return the weights along the line, less those that together cannot change a pixel value."""
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    count = int(np.searchsorted(np.cumsum(weights), 1 - 1 / 1024)) + 1
    return weights[:count].astype(np.float32)


def motion_offsets(angles: np.ndarray, count: int) -> np.ndarray:
    """Return whole pixels down and across, ``(count, n, 2)``, of the points of each line."""
    directions = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.ceil(np.arange(count)[:, None, None] * directions - 0.5).astype(int)


def _add_shifted(
    total: np.ndarray, padded: np.ndarray, weight: np.float32, places: np.ndarray
) -> None:
    """Add one point of the lines; images of neighbouring angles mostly have it in one place."""
    height, width = total.shape[2:]
    changes = np.flatnonzero((np.diff(places, axis=0) != 0).any(axis=1)) + 1
    edges = [0, *changes.tolist(), len(places)]
    for first, end in pairwise(edges):
        top, left = places[first]
        total[first:end] += weight * padded[first:end, :, top : top + height, left : left + width]


def sample(
    planes: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    *,
    mode: Literal["reflect", "symmetric"],
) -> np.ndarray:
    """Return what planes hold at places between their pixels, bilinearly.

    Args:
        planes: ``(n, channels, height, width)``.
        down: ``(n, height, width)`` places in pixels from the top.
        across: the same from the left.
        mode: what is beyond the border, as `numpy.pad` names it.
    """
    n, channels, height, width = planes.shape
    margin = _margin(down, across, height, width)
    padded = np.pad(planes, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode=mode)
    top, share_down = _whole_and_rest(down + margin)
    left, share_across = _whole_and_rest(across + margin)
    stride = padded.shape[3]
    planes_before = np.arange(n)[:, None, None] * (channels * padded.shape[2] * stride)
    corner = planes_before + top * stride + left
    flat = padded.ravel()
    return np.stack(
        [
            _between(flat, corner + channel * padded.shape[2] * stride, stride,
                     share_down, share_across)
            for channel in range(channels)
        ],
        axis=1,
    )  # fmt: skip


def _margin(down: np.ndarray, across: np.ndarray, height: int, width: int) -> int:
    """Return how many pixels beyond the border are needed, and one for the neighbours."""
    ends = (-down.min(), down.max() - height + 1, -across.min(), across.max() - width + 1)
    return int(np.ceil(max(0, *ends))) + 1


def _whole_and_rest(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = places.astype(np.int64)
    return whole, (places - whole).astype(np.float32)


def _between(
    flat: np.ndarray, corner: np.ndarray, stride: int, down: np.ndarray, across: np.ndarray
) -> np.ndarray:
    upper, lower = (
        _mixed(flat.take(corner + below), flat.take(corner + below + 1), across)
        for below in (0, stride)
    )
    return _mixed(upper, lower, down)


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + share * (second - first)
