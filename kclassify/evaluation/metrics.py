"""Metrics: each is a function of means over the images, from the probabilities of one pass.

A metric is what is noted of every image, and what is made of the means of that; a line in
`METRICS`. Its interval then needs nothing more: see `intervals`. Soft labels are judged by their
most likely class, except in the loss and in the Brier score.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

SMALLEST_PROBABILITY = 1e-7
BINS = 15
# Of all the metrics, those that a temperature changes.
OF_PROBABILITIES = ("loss", "brier", "ece", "adaptive_ece", "classwise_ece")


def _first(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


@dataclass(frozen=True)
class Metric:
    """A number that is computed from means over the images.

    Attributes:
        columns: from labels and probabilities to what is noted of every image,
            ``(n, columns)``.
        finish: from the means of the columns, ``(..., columns)``, to the number, ``(...,)``.
        counted: whether it is a share of the images, each of which counts or does not.
    """

    columns: Callable[[np.ndarray, np.ndarray], np.ndarray]
    finish: Callable[[np.ndarray], np.ndarray] = _first
    counted: bool = False

    def __call__(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        """Return the number for a split."""
        return float(self.finish(self.columns(labels, probabilities).mean(axis=0)))


def _right(labels: np.ndarray, probabilities: np.ndarray, *, among: int = 1) -> np.ndarray:
    """Note whether the given class is among the most likely ones."""
    # As scikit-learn breaks ties; the most likely one alone is the first of equals, as argmax.
    order = np.argsort(probabilities, axis=1, kind="stable")[:, ::-1][:, :among]
    best = probabilities.argmax(axis=1)[:, None] if among == 1 else order
    return (best == class_ids(labels)[:, None]).any(axis=1, keepdims=True).astype(float)


def _losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Note the cross-entropy in nats."""
    logs = np.log(np.clip(probabilities, SMALLEST_PROBABILITY, 1.0))
    return -np.sum(shares(labels, probabilities.shape[1]) * logs, axis=1, keepdims=True)


def _squares(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Note the squared distance from the label, from 0 to 2 (Brier 1950)."""
    distances = probabilities - shares(labels, probabilities.shape[1])
    return np.sum(distances**2, axis=1, keepdims=True)


def _occurrences(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Note, class by class, whether it is rightly predicted, predicted, and given."""
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)[:, None] == classes
    given = class_ids(labels)[:, None] == classes
    return np.concatenate([predicted & given, predicted, given], axis=1).astype(float)


def _averaged(means: np.ndarray, *, which: str, average: str) -> np.ndarray:
    """Make precision, recall or F1 of the classes, averaged over those that occur."""
    right, predicted, given = np.split(means, 3, axis=-1)
    below = {"precision": predicted, "recall": given, "f1": (predicted + given) / 2}[which]
    scores = np.divide(right, below, out=np.zeros_like(right), where=below > 0)
    weights = given if average == "weighted" else ((predicted + given) > 0).astype(float)
    return (scores * weights).sum(axis=-1) / weights.sum(axis=-1)


def _gaps(labels: np.ndarray, probabilities: np.ndarray, *, equal_counts: bool) -> np.ndarray:
    """Note how much surer than right the prediction is, in the column of its confidence's bin."""
    confidence = probabilities.max(axis=1)
    gap = confidence - _right(labels, probabilities)[:, 0]
    return _in_bins(gap, confidence, equal_counts=equal_counts)


def _class_gaps(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Note the same of each class's probability, in columns of its own."""
    images, classes = probabilities.shape
    gaps = probabilities - (class_ids(labels)[:, None] == np.arange(classes))
    # Of many classes it is large.
    found = np.zeros((images, classes * BINS), np.float32)
    for place in range(classes):
        bins = confidence_bins(probabilities[:, place])
        found[np.arange(images), place * BINS + bins] = gaps[:, place]
    return found


def _in_bins(
    values: np.ndarray, confidence: np.ndarray, *, equal_counts: bool = False
) -> np.ndarray:
    bins = confidence_bins(confidence, equal_counts=equal_counts)
    return np.where(bins[:, None] == np.arange(BINS), values[:, None], 0.0)


def confidence_bins(confidence: np.ndarray, *, equal_counts: bool = False) -> np.ndarray:
    """Return which of `BINS` bins each probability is in: of equal widths, or of equal counts.

    A bin holds its upper edge, and not its lower one (Guo et al. 2017).
    """
    if equal_counts:
        ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
        return ranks * BINS // len(confidence)
    # In 64 bits, as the edges are: an edge must not fall into the bin above it.
    bins = np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1
    return np.clip(bins, 0, BINS - 1)


def _sum_of_gaps(means: np.ndarray, *, classes: bool = False) -> np.ndarray:
    """Add up the bins' gaps, each weighted by its share of the images; of classes, the mean."""
    total = np.abs(means).sum(axis=-1)
    return total / (means.shape[-1] // BINS) if classes else total


def _average(which: str, average: str) -> Metric:
    return Metric(_occurrences, partial(_averaged, which=which, average=average))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_right, counted=True),
    "top_5_accuracy": Metric(partial(_right, among=5), counted=True),
    "loss": Metric(_losses),
    "precision_macro": _average("precision", "macro"),
    "recall_macro": _average("recall", "macro"),
    "f1_macro": _average("f1", "macro"),
    "precision_weighted": _average("precision", "weighted"),
    "recall_weighted": _average("recall", "weighted"),
    "f1_weighted": _average("f1", "weighted"),
    "brier": Metric(_squares),
    # Expected calibration error (Guo et al. 2017); with bins of equal counts (Nguyen and O'Connor
    # 2015); and the mean over the classes' probabilities (Kull et al. 2019).
    "ece": Metric(partial(_gaps, equal_counts=False), _sum_of_gaps),
    "adaptive_ece": Metric(partial(_gaps, equal_counts=True), _sum_of_gaps),
    "classwise_ece": Metric(_class_gaps, partial(_sum_of_gaps, classes=True)),
}


def metrics_of(classes: int) -> dict[str, Metric]:
    """Return the metrics of so many classes: the top 5 only where there are more than 5."""
    return {
        name: metric for name, metric in METRICS.items() if name != "top_5_accuracy" or classes > 5
    }


def all_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return every metric that applies."""
    applying = metrics_of(probabilities.shape[1])
    return {name: metric(labels, probabilities) for name, metric in applying.items()}


def per_class(
    labels: np.ndarray, probabilities: np.ndarray, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Return precision, recall, F1 and support (images) of each class."""
    columns = precision_recall_fscore_support(
        class_ids(labels),
        probabilities.argmax(axis=1),
        labels=np.arange(len(class_names)),
        zero_division=0.0,
    )
    names = ("precision", "recall", "f1", "support")
    return pd.DataFrame(
        dict(zip(names, columns, strict=True)), index=pd.Index(class_names, name="class")
    )


def confusion(
    labels: np.ndarray, probabilities: np.ndarray, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Return how many images of each given class (rows) got each prediction (columns)."""
    counts = confusion_matrix(
        class_ids(labels), probabilities.argmax(axis=1), labels=np.arange(len(class_names))
    )
    return pd.DataFrame(counts, index=pd.Index(class_names, name="given"), columns=class_names)


def class_ids(labels: np.ndarray) -> np.ndarray:
    """Return ``(n,)`` class indices; of soft labels, the most likely."""
    return labels.argmax(axis=1) if labels.ndim == 2 else labels


def shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return ``(n, classes)`` labels: soft ones as they are, indices as ones and zeros."""
    return labels if labels.ndim == 2 else np.eye(classes)[labels]
