"""Snow, frost on a window, fog, and a brighter day."""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kclassify.evaluation.corruption import planes as on
from kclassify.evaluation.corruption.planes import as_images, as_planes, scale_of

# By severity. Mean and deviation of the flakes' brightness, of 1; their size in pixels of an image
# of 32; the brightness below which there is none; the radius and the deviation of the line along
# which they fall, in the same pixels; and how much of the image is left as it is.
SNOW = (
    (0.10, 0.2, 1.00, 0.60, 8, 3, 0.95),
    (0.10, 0.2, 1.00, 0.50, 10, 4, 0.90),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.90),
    (0.25, 0.3, 2.25, 0.60, 12, 6, 0.85),
    (0.30, 0.3, 1.25, 0.65, 14, 12, 0.80),
)
# The shares of the image and of the frost.
FROST = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
# How much fog, of 1, and how much weaker it is at half the length.
FOG = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
BRIGHTNESS = (0.05, 0.10, 0.15, 0.20, 0.30)

# Mean colour of the five photographs that CIFAR-10-C's frost was cut from, and their deviation.
FROSTS = (
    ((78, 149, 166), 17),
    ((201, 205, 214), 18),
    ((201, 205, 214), 18),
    ((138, 153, 165), 22),
    ((112, 123, 135), 35),
)
# How much weaker the pattern of frost is at half the length: as rough as the photographs are.
FROST_DECAY = 1.2


def snow(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Whiten images, and let flakes fall through them, some towards the left and some right."""
    mean, deviation, size, least, radius, sigma, kept = SNOW[severity - 1]
    scale = scale_of(images)
    planes = as_planes(images)
    n, _, height, width = planes.shape
    # A generator for each, so that an image's draws do not depend on how many there are.
    of_flakes, of_angles = rng.spawn(2)
    flakes = of_flakes.standard_normal((n, 1, height, width), np.float32)
    flakes = 255 * (mean + deviation * flakes)
    rows, columns = (on.zoom_matrix(side, max(1.0, size * scale)) for side in (height, width))
    flakes = on.separable(flakes, [rows], [columns])
    flakes = np.rint(np.clip(np.where(flakes < 255 * least, 0, flakes), 0, 255))
    angles = np.radians(of_angles.uniform(-135, -45, n))
    fallen = on.motion_blur(flakes, angles, radius=radius * scale, sigma=sigma * scale)
    white = np.maximum(planes, 1.5 * on.grey(planes) + 127.5)
    return as_images(kept * planes + (1 - kept) * white + fallen + fallen[..., ::-1, ::-1])


def frost(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Lay frost over images.

    The paper cuts it out of photographs. Here it is drawn, with their colours and contrast.
    """
    n, height, width, channels = images.shape
    side = plasma_side(height, width) * 4
    which, tops, lefts = rng.integers(
        (len(FROSTS), side - height + 1, side - width + 1), size=(n, 3)
    ).T
    windows = sliding_window_view(frosts(side), (height, width), axis=(2, 3))
    cut = windows[which, :, tops, lefts].astype(np.float32)
    kept, share = FROST[severity - 1]
    over = on.grey(cut) if channels == 1 else cut
    return as_images(kept * as_planes(images) + share * over)


@cache
def frosts(side: int) -> np.ndarray:
    """Draw the frosts, uint8 ``(frosts, 3, side, side)``: crystals are the ridges of a plasma."""
    rng = np.random.default_rng(0)
    height = plasma(len(FROSTS), side, decay=FROST_DECAY, rng=rng)
    middle = np.median(height, axis=(1, 2), keepdims=True)
    ridges = -np.sqrt(np.abs(height - middle))
    ridges -= ridges.mean(axis=(1, 2), keepdims=True)
    ridges /= ridges.std(axis=(1, 2), keepdims=True)
    colours = np.array([colour for colour, _ in FROSTS], np.float32)[:, :, None, None]
    deviations = np.array([found for _, found in FROSTS], np.float32)[:, None, None, None]
    return on.as_bytes(colours + deviations * ridges[:, None])


def fog(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add clouds, and darken all so that the brightest value stays."""
    amount, decay = FOG[severity - 1]
    planes = as_planes(images)
    n, _, height, width = planes.shape
    clouds = plasma(n, plasma_side(height, width), decay=decay, rng=rng)
    brightest = planes.max(axis=(1, 2, 3), keepdims=True)
    foggy = planes + np.float32(255 * amount) * clouds[:, None, :height, :width]
    return as_images(foggy * (brightest / (brightest + np.float32(255 * amount))))


def plasma_side(height: int, width: int) -> int:
    """Return the power of two that holds both sides, at least 2."""
    return 1 << max(1, (max(height, width) - 1).bit_length())


def plasma(n: int, side: int, *, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return clouds ``(n, side, side)`` from 0 to 1, by the diamond-square algorithm.

    Args:
        n: how many.
        side: a power of two, at least 2; opposite edges fit together.
        decay: what the random part is divided by, twice, where the length is halved.
        rng: of the random part.
    """
    clouds = np.zeros((n, side, side), np.float32)
    jitter = rng.uniform(-1, 1, (n, side, side)).astype(np.float32)
    step = side
    while step >= 2:
        _fill_in(clouds, jitter, step)
        jitter /= np.float32(decay**2)
        step //= 2
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    return clouds / clouds.max(axis=(1, 2), keepdims=True)


def _fill_in(clouds: np.ndarray, jitter: np.ndarray, step: int) -> None:
    """Set the points half a step from those that are known, to means of four and the jitter."""
    half = step // 2
    corners = clouds[:, ::step, ::step]
    right, lower = np.roll(corners, -1, axis=2), np.roll(corners, -1, axis=1)
    total = corners + right + lower + np.roll(right, -1, axis=1)
    middles = total / 4 + jitter[:, half::step, half::step]
    beside = (corners + right + middles + np.roll(middles, 1, axis=1)) / 4
    below = (corners + lower + middles + np.roll(middles, 1, axis=2)) / 4
    clouds[:, half::step, half::step] = middles
    clouds[:, ::step, half::step] = beside + jitter[:, ::step, half::step]
    clouds[:, half::step, ::step] = below + jitter[:, half::step, ::step]


def brightness(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Raise the value of hue, saturation and value. Nothing of it is random."""
    planes = as_planes(images)
    value = planes.max(axis=1, keepdims=True)
    brighter = np.minimum(value + np.float32(255 * BRIGHTNESS[severity - 1]), 255)
    # Hue and saturation stay where all channels are multiplied alike; black becomes grey.
    return as_images(np.where(value > 0, planes * (brighter / np.maximum(value, 1)), brighter))
