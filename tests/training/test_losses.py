import keras
import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.data.spec import Examples
from kclassify.training.losses import LOSSES, ClassifierLoss, class_weights

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 4)).astype("float32")
LABELS = RNG.integers(0, 4, 12).astype("int32")
ONE_HOT = np.eye(4, dtype="float32")[LABELS]


@pytest.mark.parametrize("loss", LOSSES)
def test_integer_and_one_hot_labels_agree(loss):
    function = ClassifierLoss(loss, label_smoothing=0.1)
    assert float(function(LABELS, LOGITS)) == pytest.approx(float(function(ONE_HOT, LOGITS)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_keras_own_on_one_hot_labels(smoothing):
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    ours = ClassifierLoss(label_smoothing=smoothing)
    assert float(ours(LABELS, LOGITS)) == pytest.approx(float(theirs(ONE_HOT, LOGITS)), rel=1e-5)


def test_focal_is_keras_own():
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0, from_logits=True)
    expected = float(theirs(ONE_HOT, LOGITS))
    assert float(ClassifierLoss("focal")(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-5)


def test_class_weights_of_a_mixed_label_are_the_mix_of_the_weights():
    weights = np.array([1.0, 3.0, 1.0, 1.0], "float32")
    mixed = np.array([[0.5, 0.5, 0, 0]], "float32")
    plain = float(ClassifierLoss()(mixed, LOGITS[:1]))
    weighted = float(ClassifierLoss(class_weights=weights)(mixed, LOGITS[:1]))
    assert weighted == pytest.approx(2.0 * plain)


def test_balanced_weights_give_every_class_the_same_total():
    labels = np.array([0] * 30 + [1] * 10, "int32")
    train = Examples(np.zeros((40, 1, 1, 1), np.uint8), labels, np.arange(40).astype(str))
    weights = class_weights("balanced", train, ("a", "b"))
    assert weights[0] * 30 == pytest.approx(weights[1] * 10)
    assert np.mean(weights[labels]) == pytest.approx(1.0)


def test_balanced_counts_the_classes_that_are_there():
    train = Examples(np.zeros((3, 1, 1, 1), "uint8"), np.array([0, 0, 2], "int32"), np.zeros(3))
    weights = class_weights("balanced", train, ("a", "b", "c"))
    assert weights[[0, 2]].tolist() == [0.75, 1.5]


def test_class_weights_name_classes():
    with pytest.raises(InputError, match="Did you mean 'cat'"):
        class_weights({"cats": 2.0}, None, ("cat", "dog"))
    with pytest.raises(InputError, match=r"must name classes of the data.*Received: 0"):
        class_weights({0: 2.0}, None, ("cat", "dog"))
    with pytest.raises(InputError, match="at least 0"):
        class_weights({"cat": -1.0}, None, ("cat", "dog"))
    with pytest.raises(InputError, match="numbers of at least 0"):
        class_weights({"cat": "2"}, None, ("cat", "dog"))
    assert class_weights({"cat": 2.0}, None, ("cat", "dog")).tolist() == [2.0, 1.0]
