import numpy as np
import pytest

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.evaluation.adversarial import (
    ATTACKS,
    attacked_accuracy,
    fgsm,
    on_floats,
    pgd,
    slope_of,
)
from kclassify.evaluation.answers import answers_of
from kclassify.evaluation.intervals import wilson
from kclassify.models.registry import build_model
from kclassify.models.temperature import with_temperature
from kclassify.models.test_time import VIEWS, with_test_time

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_model("convnet", input_shape=(8, 8, 3), num_classes=3, filters=4, depth=1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), "uint8")


@pytest.fixture(scope="module")
def labels(model, images):
    """What the model says, so that all are right until they are attacked."""
    return answers_of(model)(images)


@pytest.mark.parametrize("tta", VIEWS)
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_floats_get_the_same_logits(model, images, tta, temperature):
    whole = with_temperature(with_test_time(model, tta), temperature)
    floats = on_floats(whole)
    assert floats.input.dtype == "float32"
    found = floats(images.astype(np.float32), training=False)
    np.testing.assert_allclose(found, whole(images, training=False), rtol=1e-5, atol=1e-5)


def test_the_weights_are_shared(model):
    ours = {id(weight) for weight in on_floats(model).weights}
    assert ours == {id(weight) for weight in model.weights}


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_the_slope_is_that_of_finite_differences(images, tta):
    model, few = with_test_time(without_corners(), tta), images[:4].astype(np.float32)
    floats, given = on_floats(model), np.array([0, 1, 2, 0])

    def losses(pixels):
        logits = floats(pixels, training=False)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(given, logits).numpy()

    slope = slope_of(model)(few, given)
    assert slope.shape == few.shape
    direction = np.random.default_rng(1).normal(size=few.shape).astype(np.float32)
    difference = (losses(few + direction / 2) - losses(few - direction / 2)).astype(float)
    along = (slope * direction).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(along, difference, rtol=0.01, atol=1e-6)


def without_corners():
    """Return a network without largest values, at which a slope would jump."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 64, offset=-2)(inputs)
    x = keras.layers.Conv2D(8, 3, activation="tanh")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("epsilon", [1, 5, 255])
def test_no_value_is_changed_by_more_than_epsilon(model, images, labels, attack, epsilon):
    before = images.copy()
    found = attack(slope_of(model), images, labels, epsilon, np.random.default_rng(0))
    assert found.dtype == np.uint8
    change = np.abs(found.astype(int) - images)
    assert 0 < change.max() <= epsilon
    np.testing.assert_array_equal(images, before)


def test_the_loss_goes_up_and_further_by_pgd(model, images, labels):
    floats, slope = on_floats(model), slope_of(model)

    def loss(changed):
        logits = floats(changed.astype(np.float32), training=False)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy().mean()

    rng = np.random.default_rng(0)
    one, many = (attack(slope, images, labels, 8, rng) for attack in (fgsm, pgd))
    assert loss(images) < loss(one) <= loss(many) * 1.02


def a_plane(shape, weights):
    """Return a network whose logits are the pixels times `weights`."""
    inputs = keras.Input(shape, dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    network = keras.Model(inputs, keras.layers.Dense(weights.shape[1], use_bias=False)(flat))
    network.layers[-1].set_weights([weights.astype(np.float32)])
    return network


def test_of_a_plane_the_steps_are_the_sign_of_its_slope():
    network = a_plane((2, 2, 1), np.array([[1, 0], [0, 1], [1, 0], [0, 1]]))
    images = np.full((1, 2, 2, 1), 100, np.uint8)
    for attack in ATTACKS.values():
        found = attack(slope_of(network), images, np.array([0]), 3, np.random.default_rng(0))
        assert found.ravel().tolist() == [97, 103, 97, 103]


def test_the_further_images_may_be_changed_the_fewer_are_right(images):
    weights = np.random.default_rng(0).normal(size=(192, 3))
    network = a_plane((8, 8, 3), weights)
    found = attacked_accuracy(network, images, answers_of(network)(images), epsilons=[9, 2, 2, 64])
    assert found["attack"].tolist() == ["fgsm"] * 4 + ["pgd"] * 4
    assert found["epsilon"].tolist() == [0, 2, 9, 64] * 2
    for _, rows in found.groupby("attack"):
        accuracies = rows["accuracy"].to_numpy()
        assert (accuracies[0], accuracies[-1]) == (1.0, 0.0)
        assert 0 < accuracies[2] < 1
        assert (np.diff(accuracies) <= 0).all()
    np.testing.assert_allclose(found[["low", "high"]].T, wilson(found["right"], 20))


def test_the_seed_decides_and_how_many_are_attacked_at_once_does_not_matter_to_fgsm(
    model, images, labels, monkeypatch
):
    found = [attacked_accuracy(model, images, labels, epsilons=[8], seed=3) for _ in range(2)]
    assert found[0].equals(found[1])
    monkeypatch.setattr("kclassify.evaluation.adversarial.BATCH", 7)
    parted = attacked_accuracy(model, images, labels, epsilons=[8], seed=3)
    assert parted["right"][:2].tolist() == found[0]["right"][:2].tolist()


def test_without_epsilons_there_are_no_rows(model, images, labels):
    found = attacked_accuracy(model, images, labels, epsilons=())
    assert found.empty
    assert list(found) == ["attack", "epsilon", "images", "right", "accuracy", "low", "high"]


@pytest.mark.parametrize("epsilons", [[0], [256], [0.5], 8, [True], ["4"]])
def test_other_epsilons_are_refused(model, images, labels, epsilons):
    with pytest.raises(InputError, match="`epsilons` must be a list of whole numbers from 1"):
        attacked_accuracy(model, images, labels, epsilons=epsilons)


def test_answers_are_those_of_the_model_whatever_the_number(model, images, labels):
    expected = np.asarray(model(images, training=False)).argmax(axis=1)
    np.testing.assert_array_equal(labels, expected)
    many = np.tile(images, (14, 1, 1, 1))
    np.testing.assert_array_equal(answers_of(model)(many), np.tile(expected, 14))
