"""How far chance alone may have moved a metric: 95 % intervals.

Of a share of the images there is a formula (Wilson 1927). For everything else, images are drawn
again and again from those that there are, each class by itself, so that every drawn sample has as
many of each (Efron 1979), and what this makes larger or smaller on average is taken off. A metric
is a function of means over the images, so that the draws are one product of matrices.
"""

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from kclassify.evaluation.metrics import Metric, class_ids, metrics_of

CONFIDENCE = 0.95
DRAWS, LEAST_DRAWS = 1000, 200
# Images times draws that are held at once, and numbers times draws that are added up in all.
MOST_HELD, MOST_ADDED = 4_000_000, 20_000_000_000

Interval = tuple[float, float]


def wilson(
    right: np.ndarray | float, images: np.ndarray | int, *, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the interval of a share that was counted, for one or for many.

    Args:
        right: how many were counted.
        images: of how many; of none, the share is anything from 0 to 1.
        confidence: how often such an interval holds the true share.

    Example:
        >>> from kclassify.evaluation.intervals import wilson
        >>> low, high = wilson(4500, 5000)
        >>> f"{low:.3f} to {high:.3f}"
        '0.891 to 0.908'
    """
    square = norm.ppf(0.5 + confidence / 2) ** 2
    right, count = np.asarray(right, float), np.asarray(images, float)
    centre = (right + square / 2) / (count + square)
    variance = right * (count - right) / np.maximum(count, 1) + square / 4
    half = np.sqrt(square * variance) / (count + square)
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)


def intervals(
    labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0, confidence: float = CONFIDENCE
) -> dict[str, Interval]:
    """Return the interval of every metric that applies.

    Args:
        labels: ``(n,)`` class indices or ``(n, num_classes)`` soft labels.
        probabilities: ``(n, num_classes)``.
        seed: of the draws.
        confidence: how often such an interval holds the true value.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.intervals import intervals
        >>> low, high = intervals(np.arange(100) % 2, np.full((100, 2), 0.5))["accuracy"]
        >>> f"{low:.2f} to {high:.2f}"
        '0.40 to 0.60'
    """
    found = {}
    for name, metric in metrics_of(probabilities.shape[1]).items():
        columns = metric.columns(labels, probabilities)
        if metric.counted:
            low, high = wilson(columns.sum(), len(columns), confidence=confidence)
            found[name] = (float(low), float(high))
        else:
            found[name] = _bootstrap(metric, columns, class_ids(labels), seed, confidence)
    return found


def _bootstrap(
    metric: Metric, columns: np.ndarray, strata: np.ndarray, seed: int, confidence: float
) -> Interval:
    columns = columns.astype(np.float32, copy=False)
    draws = int(np.clip(MOST_ADDED // columns.size, LEAST_DRAWS, DRAWS))
    drawn = [metric.finish(times @ columns / len(columns))
             for times in drawn_times(strata, draws=draws, seed=seed)]  # fmt: skip
    estimate = float(metric.finish(columns.mean(axis=0, dtype=np.float64)))
    return _corrected(np.concatenate(drawn), estimate, confidence)


def drawn_times(strata: np.ndarray, *, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn, float32 ``(some draws, n)``, until all are made.

    Args:
        strata: ``(n,)`` the class of each image; as many of each are drawn as there are.
        draws: how many in all.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    at_once = max(1, MOST_HELD // len(strata))
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        times = np.zeros((count, len(strata)), np.float32)
        for places in members:
            times[:, places] = _multiplicities(count, len(places), rng)
        yield times


def _multiplicities(draws: int, images: int, rng: np.random.Generator) -> np.ndarray:
    picked = rng.integers(images, size=(draws, images)) + images * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * images).reshape(draws, images)


def _corrected(drawn: np.ndarray, estimate: float, confidence: float) -> Interval:
    """Return the percentiles of the draws, all moved by how far their mean is off the estimate.

    A drawn sample repeats images, so that its calibration errors are larger than those that it is
    drawn from, often all of them: percentiles that are chosen by how many draws are below the
    estimate (Efron 1987) have nothing to choose from then.
    """
    moved = drawn + (estimate - drawn.mean())
    low, high = np.quantile(moved, [0.5 - confidence / 2, 0.5 + confidence / 2])
    # No metric is below 0, and chance in few draws may leave out the estimate itself.
    return max(0.0, min(float(low), estimate)), max(float(high), estimate)
