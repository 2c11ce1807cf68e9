"""What every network of the registry promises; one that is listed is tested."""

import inspect
from functools import cache
from importlib import import_module

import keras
import numpy as np
import pytest

from kclassify.models.folding import fold_batch_norm
from kclassify.models.registry import MODELS, build_model
from kclassify.models.training_form import training_form

SHAPE = (32, 32, 3)
# The smallest of each family; what is not here is tested with its defaults.
SMALL = {
    "convnet": {"filters": 8},
    "fastnet": {"filters": (8, 16)},
    "resnet": {"depth": 8},
    "wide_resnet": {"depth": 10, "width": 1},
    "application": {"backbone": "MobileNetV3Small"},
}

pytestmark = pytest.mark.parametrize("name", MODELS)


def build(name, input_shape=SHAPE, num_classes=10):
    keras.utils.set_random_seed(0)
    arguments = SMALL.get(name, {})
    return build_model(name, input_shape=input_shape, num_classes=num_classes, **arguments)


@cache
def shared(name):
    """Return a model for the tests that leave it as it is."""
    return build(name)


def images(count=8, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def all_layers(model):
    for layer in model.layers:
        yield layer
        yield from all_layers(layer) if isinstance(layer, keras.Model) else ()


def test_takes_uint8_and_gives_float32_logits(name):
    model = shared(name)
    assert model.input.dtype == "uint8"
    assert model.input.name == "images"
    assert model.input.shape == (None, *SHAPE)
    outputs = model(images())
    assert outputs.shape == (8, 10)
    assert outputs.dtype == "float32"
    # Neither probabilities nor log-probabilities.
    assert outputs.numpy().min() < 0 < outputs.numpy().max()


def test_logits_are_float32_under_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(name)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == "float32"
    assert any(layer.compute_dtype == "bfloat16" for layer in all_layers(model))


@pytest.mark.parametrize(("channels", "num_classes"), [(1, 2), (3, 7)])
def test_channels_and_classes_are_free(name, channels, num_classes):
    shape = (*SHAPE[:2], channels)
    model = build(name, shape, num_classes)
    assert model(images(2, shape)).shape == (2, num_classes)


def test_arguments_are_the_builders_signature(name):
    module, function = MODELS[name].builder.split(":")
    parameters = inspect.signature(getattr(import_module(module), function)).parameters.values()
    keyword_only = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    assert MODELS[name].arguments == keyword_only
    assert [p.name for p in parameters][:2] == ["input_shape", "num_classes"]
    assert all(p.default is not p.empty for p in parameters if p.kind is p.KEYWORD_ONLY)


def test_layers_are_keras_own(name):
    for layer in all_layers(shared(name)):
        assert type(layer).__module__.startswith("keras."), layer


def test_saved_file_opens_in_plain_keras(name, tmp_path):
    model = shared(name)
    model.save(tmp_path / "model.keras")
    registered = keras.saving.get_custom_objects().values()
    assert not [thing for thing in registered if thing.__module__.startswith("kclassify")]
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again(images()), model(images()))


def test_configuration_round_trips(name):
    model = shared(name)
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert again.get_config()["layers"] == model.get_config()["layers"]
    np.testing.assert_array_equal(again(images()), model(images()))


def test_outputs_depend_on_the_image(name):
    model = shared(name)
    random, constant = model(images(1)), model(np.full((1, *SHAPE), 127, np.uint8))
    # Relative, since an untrained MobileNet's signal fades to 1e-10 on its way.
    assert np.abs(random - constant).max() > 1e-2 * np.abs(random).max() > 0


def test_one_step_changes_every_trainable_weight(name):
    model = build(name)
    model.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    before = [weight.numpy() for weight in model.trainable_weights]
    model.train_on_batch(images(32), np.arange(32) % 10)
    pairs = zip(model.trainable_weights, before, strict=True)
    same = [weight.path for weight, old in pairs if np.array_equal(weight.numpy(), old)]
    assert same == []


def test_same_seed_gives_same_weights(name):
    for one, other in zip(shared(name).get_weights(), build(name).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_form_for_training_gives_the_same_answers(name, policy):
    model, form = shared(name), training_form(shared(name), policy=policy)
    tolerance = 1e-4 if policy == "float32" else 0.05
    assert [w.shape for w in form.weights] == [w.shape for w in model.weights]
    assert len(form.trainable_variables) == len(model.trainable_variables)
    expected = model(images(), training=False).numpy()
    found = form(images(), training=False).numpy()
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert form.output.dtype == "float32"


def test_the_form_for_training_learns_the_same_statistics(name):
    model, form = build(name), training_form(build(name))
    np.testing.assert_allclose(
        form(images(), training=True), model(images(), training=True), atol=2e-4, rtol=1e-3
    )
    for found, expected in zip(form.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


def test_folding_batch_normalization_keeps_the_logits(name):
    model = build(name)
    norms = [x for x in all_layers(model) if isinstance(x, keras.layers.BatchNormalization)]
    rng = np.random.default_rng(0)
    for norm in norms:
        norm.moving_mean.assign(rng.normal(0, 0.3, norm.moving_mean.shape))
        norm.moving_variance.assign(rng.uniform(0.5, 1.5, norm.moving_mean.shape))
    folded = fold_batch_norm(model)
    assert not norms or len(folded.weights) < len(model.weights)
    logits, expected = folded(images(), training=False), model(images(), training=False).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    probabilities, wanted = keras.ops.softmax(logits), keras.ops.softmax(expected)
    np.testing.assert_allclose(probabilities, wanted, rtol=0, atol=1e-5)
