"""The tables of `robustness`, from which of the corrupted images are right."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from kclassify.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from kclassify.evaluation.intervals import wilson

# What images that were left as they are have for a corruption.
CLEAN = "clean"


def accuracy_table(clean: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Return a row for the clean images, of severity 0, and one for each corruption and severity.

    Args:
        clean: ``(m,)`` which of the clean images are right.
        right: ``(15, 5, n)`` the same with each corruption at each severity.
    """
    rows = [(CLEAN, 0), *product(CORRUPTIONS, SEVERITIES)]
    counts = np.array([clean.sum(), *right.sum(axis=2).ravel()])
    images = np.array([len(clean)] + [right.shape[2]] * (len(rows) - 1))
    low, high = wilson(counts, images)
    return pd.DataFrame(rows, columns=["corruption", "severity"]).assign(
        images=images, right=counts, accuracy=counts / images, low=low, high=high
    )


def corruption_table(table: pd.DataFrame, baseline: dict[str, float] | None) -> pd.DataFrame:
    """Return a row for each corruption, of means over its severities.

    Args:
        table: what `accuracy_table` returns.
        baseline: errors by corruption to divide by, `CLEAN` among them.
    """
    means = table.groupby("corruption", sort=False)["accuracy"].mean()
    found = pd.DataFrame({"accuracy": means, "error": 1 - means})
    if baseline is not None:
        theirs = pd.Series(baseline)
        increase = theirs - baseline[CLEAN]
        found["relative_error"] = found["error"] / theirs
        more = found["error"] - found["error"][CLEAN]
        found["relative_increase"] = more / increase.where(increase > 0)
    return found.drop(index=CLEAN).reset_index()


def class_table(
    names: Sequence[str],
    clean: tuple[np.ndarray, np.ndarray],
    worse: tuple[np.ndarray, np.ndarray],
) -> pd.DataFrame:
    """Return a row for each class; a class of which there is no image has no accuracy.

    Args:
        names: of the classes.
        clean: ``(m,)`` which of the clean images are right, and their class indices.
        worse: ``(15, 5, n)`` which of the corrupted ones are, and ``(n,)`` theirs.
    """
    (clean_right, clean_labels), (right, labels) = clean, worse
    accuracies = _of_classes(right.mean(axis=1), labels, len(names))
    images = np.bincount(labels, minlength=len(names))
    accuracy = accuracies.mean(axis=0)
    low, high = wilson(accuracy * images, images)
    worst = np.array(list(CORRUPTIONS))[accuracies.argmin(axis=0)]
    return pd.DataFrame(
        {
            "class": list(names),
            "images": images,
            "clean_accuracy": _of_classes(clean_right, clean_labels, len(names)),
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "worst_corruption": np.where(images > 0, worst, ""),
            "worst_accuracy": accuracies.min(axis=0),
        }
    )


def _of_classes(right: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the means (..., classes) of (..., n); NaN of a class without images."""
    members = np.eye(classes)[labels]
    images = members.sum(axis=0)
    return right @ members / np.where(images > 0, images, np.nan)


def by_severity(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies with a row for each corruption and a column for each severity."""
    found = table.pivot(index="corruption", columns="severity", values="accuracy")
    found = found.reindex(list(CORRUPTIONS)).drop(columns=0)
    return found.assign(mean=found.mean(axis=1))
