"""Metrics: scikit-learn computes them from the probabilities of one pass, pandas carries them.

A metric is a function ``(labels, probabilities) -> float`` and a line in `METRICS`. Soft labels
are judged by their most likely class, except in the loss.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

SMALLEST_PROBABILITY = 1e-7


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of images whose most likely class is the given one."""
    return float(np.mean(class_ids(labels) == probabilities.argmax(axis=1)))


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray, *, k: int) -> float:
    """Return the share of images whose given class is among the `k` most likely."""
    classes = np.arange(probabilities.shape[1])
    return float(top_k_accuracy_score(class_ids(labels), probabilities, k=k, labels=classes))


def loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean cross-entropy in nats, for integer and for soft labels."""
    logs = np.log(np.clip(probabilities, SMALLEST_PROBABILITY, 1.0))
    if labels.ndim == 2:
        return float(-np.mean(np.sum(labels * logs, axis=1)))
    return float(-np.mean(logs[np.arange(len(labels)), labels]))


def averaged(labels: np.ndarray, probabilities: np.ndarray, *, which: int, average: str) -> float:
    """Return precision (0), recall (1) or F1 (2), averaged over the classes that occur."""
    scores = precision_recall_fscore_support(
        class_ids(labels), probabilities.argmax(axis=1), average=average, zero_division=0.0
    )
    return float(scores[which])


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "top_5_accuracy": partial(top_k_accuracy, k=5),
    "loss": loss,
    "precision_macro": partial(averaged, which=0, average="macro"),
    "recall_macro": partial(averaged, which=1, average="macro"),
    "f1_macro": partial(averaged, which=2, average="macro"),
    "precision_weighted": partial(averaged, which=0, average="weighted"),
    "recall_weighted": partial(averaged, which=1, average="weighted"),
    "f1_weighted": partial(averaged, which=2, average="weighted"),
}


def all_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return every metric; the top 5 only where there are more than 5 classes."""
    return {
        name: metric(labels, probabilities)
        for name, metric in METRICS.items()
        if name != "top_5_accuracy" or probabilities.shape[1] > 5
    }


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
