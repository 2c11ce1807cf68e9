import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from kclassify.evaluation.metrics import (
    BINS,
    METRICS,
    all_metrics,
    confidence_bins,
    confusion,
    per_class,
)

NAMES = ("a", "b", "c")
LABELS = np.array([0, 0, 0, 1, 1, 2], "int32")
# Two of three a's right, one b taken for an a, the c right.
PREDICTED = np.array([0, 0, 1, 1, 0, 2])
PROBABILITIES = np.full((6, 3), 0.2)
PROBABILITIES[np.arange(6), PREDICTED] = 0.6
LOWER_IS_BETTER = ("loss", "brier", "ece", "adaptive_ece", "classwise_ece")


def average(which):
    def score(labels, probabilities, classes, kind):
        predicted = probabilities.argmax(axis=1)
        return which(labels, predicted, average=kind, zero_division=0.0)

    return score


def ece(labels, probabilities, edges):
    """Compute it bin by bin, as the paper's formula is written."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    return total


def adaptive_ece(labels, probabilities):
    order = np.argsort(probabilities.max(axis=1), kind="stable")
    sure, right = probabilities.max(axis=1)[order], (probabilities.argmax(axis=1) == labels)[order]
    places = np.arange(len(order)) * BINS // len(order)
    return sum(
        np.mean(places == place) * abs(right[places == place].mean() - sure[places == place].mean())
        for place in np.unique(places)
    )


def classwise_ece(labels, probabilities):
    found = []
    for index in range(probabilities.shape[1]):
        sure, given = probabilities[:, index], labels == index
        places = np.clip(np.ceil(sure * BINS) - 1, 0, BINS - 1)
        found.append(
            sum(
                np.mean(places == place)
                * abs(given[places == place].mean() - sure[places == place].mean())
                for place in np.unique(places)
            )
        )
    return np.mean(found)


def independent(name, labels, probabilities):
    """Return what another implementation says."""
    classes = np.arange(probabilities.shape[1])
    predicted, one_hot = probabilities.argmax(axis=1), np.eye(len(classes))[labels]
    if name == "accuracy":
        return sk.accuracy_score(labels, predicted)
    if name == "top_5_accuracy":
        return sk.top_k_accuracy_score(labels, probabilities, k=5, labels=classes)
    if name == "loss":
        return sk.log_loss(labels, np.clip(probabilities, 1e-7, 1), labels=classes)
    if name == "brier":
        return sum(np.mean((probabilities[:, k] - one_hot[:, k]) ** 2) for k in classes)
    if name == "ece":
        return ece(labels, probabilities, np.linspace(0, 1, BINS + 1))
    if name == "adaptive_ece":
        return adaptive_ece(labels, probabilities)
    if name == "classwise_ece":
        return classwise_ece(labels, probabilities)
    which, kind = name.split("_")
    score = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[which]
    return score(labels, predicted, average=kind, zero_division=0.0)


def random_case(seed):
    """Return labels and probabilities: sharp or flat, with classes that are absent, few images."""
    rng = np.random.default_rng(seed)
    classes, images = int(rng.integers(6, 12)), int(rng.integers(1, 200))
    labels = rng.integers(0, rng.integers(1, classes + 1), images)
    logits = rng.normal(size=(images, classes)) * rng.choice([0.01, 1.0, 30.0])
    logits[np.arange(images), labels] += rng.choice([0.0, 2.0])
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return labels, values / values.sum(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_what_another_implementation_says(name):
    for seed in range(1000):
        labels, probabilities = random_case(seed)
        found = METRICS[name](labels, probabilities)
        assert found == pytest.approx(independent(name, labels, probabilities), abs=1e-6), seed


def test_known_values():
    found = all_metrics(LABELS, PROBABILITIES)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["loss"] == pytest.approx(-(4 * np.log(0.6) + 2 * np.log(0.2)) / 6)
    assert found["precision_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["recall_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["recall_weighted"] == pytest.approx(4 / 6)
    assert found["ece"] == pytest.approx(4 / 6 - 0.6)
    assert found["brier"] == pytest.approx((4 * (0.16 + 0.08) + 2 * (0.36 + 0.64 + 0.04)) / 6)
    assert "top_5_accuracy" not in found


def test_a_bin_holds_its_upper_edge():
    bins = confidence_bins(np.array([0.0, 1 / BINS, 1 / BINS + 1e-9, 1.0]))
    assert bins.tolist() == [0, 0, 1, BINS - 1]
    assert confidence_bins(np.arange(30) / 30, equal_counts=True).tolist() == sorted(
        list(range(BINS)) * 2
    )


def test_per_class_and_confusion_agree_with_the_predictions():
    table = per_class(LABELS, PROBABILITIES, NAMES)
    assert table.loc["a", "precision"] == pytest.approx(2 / 3)
    assert table["support"].tolist() == [3, 2, 1]
    counts = confusion(LABELS, PROBABILITIES, NAMES)
    assert counts.to_numpy().tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert np.trace(counts) / counts.to_numpy().sum() == pytest.approx(4 / 6)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_perfect_on_perfect_predictions_and_takes_one_hot_labels(name):
    labels = np.arange(21, dtype="int32") % 7
    one_hot = np.eye(7, dtype="float32")[labels]
    value = METRICS[name](labels, one_hot)
    assert value == pytest.approx(0.0 if name in LOWER_IS_BETTER else 1.0)
    assert METRICS[name](one_hot, one_hot) == pytest.approx(value)
    worse = METRICS[name](labels, np.roll(one_hot, 1, axis=1) * 0.9 + 0.1 / 7)
    assert worse > value if name in LOWER_IS_BETTER else worse <= value


def test_loss_and_brier_score_of_soft_labels():
    soft, probabilities = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    expected = -0.5 * (np.log(0.25) + np.log(0.75))
    assert METRICS["loss"](soft, probabilities) == pytest.approx(expected)
    assert METRICS["brier"](soft, probabilities) == pytest.approx(2 * 0.25**2)


def test_a_class_that_is_absent_from_the_split_keeps_its_row():
    table = per_class(np.array([0, 1]), np.eye(3)[[0, 1]], NAMES)
    assert table.loc["c", "support"] == 0
    assert table.loc["c", "f1"] == 0.0


def test_top_5_counts_the_five_most_likely():
    probabilities = np.tile(np.array([6, 5, 4, 3, 2, 1]) / 21, (6, 1))
    assert METRICS["top_5_accuracy"](np.arange(6), probabilities) == pytest.approx(5 / 6)
