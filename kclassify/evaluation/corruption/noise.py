"""Noise of a sensor, of few photons, and of pixels that fail."""

from functools import cache

import numpy as np
from scipy.stats import poisson

from kclassify.evaluation.corruption.planes import as_bytes

# By severity. The standard deviation, of 1; photons of a white pixel; the share that fails.
GAUSSIAN_NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
SHOT_NOISE = (500, 250, 100, 75, 50)
IMPULSE_NOISE = (0.01, 0.02, 0.03, 0.05, 0.07)
# Outcomes in a table, each equally likely.
OUTCOMES = 1 << 16


def gaussian_noise(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise to every value."""
    noise = rng.standard_normal(images.shape, np.float32)
    noise *= np.float32(255 * GAUSSIAN_NOISE[severity - 1])
    return as_bytes(noise + images)


def shot_noise(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Count photons: Poisson noise of every value.

    The probabilities of the counts are rounded to a 65,536th: looking up is quicker than drawing.
    """
    table = _shot_table(SHOT_NOISE[severity - 1])
    drawn = rng.integers(OUTCOMES, size=images.shape, dtype=np.uint16)
    return table.take(np.multiply(images, OUTCOMES, dtype=np.int64) + drawn)


@cache
def _shot_table(photons: int) -> np.ndarray:
    """Return the outcomes of each pixel value, all in one line."""
    counts = np.arange(photons + 1)
    values = as_bytes((255 * counts / photons).astype(np.float32))
    below = poisson.cdf(counts[:-1], np.arange(256)[:, None] * photons / 255)
    ends = np.rint(OUTCOMES * below).astype(int)
    # What is more than white is white.
    times = np.diff(ends, axis=1, prepend=0, append=OUTCOMES)
    return np.concatenate([np.repeat(values, row) for row in times])


def impulse_noise(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Set a share of all values to black or white."""
    share = np.float32(IMPULSE_NOISE[severity - 1])
    drawn = rng.random(images.shape, np.float32)
    noisy = np.where(drawn < share, np.uint8(0), images)
    return np.where(drawn < share / 2, np.uint8(255), noisy)
