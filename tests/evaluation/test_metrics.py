import numpy as np
import pytest

from kclassify.evaluation import metrics
from kclassify.evaluation.metrics import METRICS, all_metrics, confusion, per_class

NAMES = ("a", "b", "c")
LABELS = np.array([0, 0, 0, 1, 1, 2], "int32")
# Two of three a's right, one b taken for an a, the c right.
PREDICTED = np.array([0, 0, 1, 1, 0, 2])
PROBABILITIES = np.full((6, 3), 0.2)
PROBABILITIES[np.arange(6), PREDICTED] = 0.6


def test_known_values():
    found = all_metrics(LABELS, PROBABILITIES)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["loss"] == pytest.approx(-(4 * np.log(0.6) + 2 * np.log(0.2)) / 6)
    assert found["precision_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["recall_macro"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["recall_weighted"] == pytest.approx(4 / 6)
    assert "top_5_accuracy" not in found


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
    assert value == pytest.approx(0.0 if name == "loss" else 1.0)
    assert METRICS[name](one_hot, one_hot) == pytest.approx(value)
    worse = METRICS[name](labels, np.roll(one_hot, 1, axis=1) * 0.9 + 0.1 / 7)
    assert worse > value if name == "loss" else worse <= value


def test_loss_of_soft_labels_is_the_cross_entropy():
    soft = np.array([[0.5, 0.5]])
    assert metrics.loss(soft, np.array([[0.25, 0.75]])) == pytest.approx(
        -0.5 * (np.log(0.25) + np.log(0.75))
    )


def test_a_class_that_is_absent_from_the_split_keeps_its_row():
    table = per_class(np.array([0, 1]), np.eye(3)[[0, 1]], NAMES)
    assert table.loc["c", "support"] == 0
    assert table.loc["c", "f1"] == 0.0


def test_top_5_counts_the_five_most_likely():
    probabilities = np.tile(np.array([6, 5, 4, 3, 2, 1]) / 21, (6, 1))
    assert metrics.top_k_accuracy(np.arange(6), probabilities, k=5) == pytest.approx(5 / 6)
