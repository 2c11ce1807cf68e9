import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.compression.low_rank import factorized, paying
from kclassify.models.registry import build_model

import keras  # isort: skip


def low_rank_network():
    """A network whose dense and 1x1 kernels have rank 3 beneath a little noise."""
    images = keras.Input((8, 8, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(16, 1, name="wide")(x)
    x = keras.layers.Conv2D(16, 1, strides=2, activation="relu", name="square")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(20, activation="relu", name="hidden")(x)
    model = keras.Model(images, keras.layers.Dense(5, name="logits")(x))
    rng = np.random.default_rng(0)
    for name in ("square", "hidden"):
        layer = model.get_layer(name)
        kernel, bias = layer.get_weights()
        rows, columns = kernel.shape[-2:]
        product = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, columns)) / rows
        noise = 1e-4 * rng.normal(size=(rows, columns))
        layer.set_weights([(product + noise).reshape(kernel.shape), rng.normal(size=bias.shape)])
    return model


def test_kernels_of_low_rank_become_products_with_the_same_answers():
    model = low_rank_network()
    small = factorized(model, energy=0.999)
    found = {one.layer: one.rank for one in paying(model, energy=0.999)}
    assert found == {"square": 3, "hidden": 3}
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(small(images), model(images), atol=2e-2)
    assert small.count_params() < model.count_params()


def test_the_product_is_the_nearest_of_its_rank():
    model = low_rank_network()
    (hidden,) = (one for one in paying(model, energy=0.9) if one.layer == "hidden")
    kernel = model.get_layer("hidden").kernel.numpy()
    singular = np.linalg.svd(kernel, compute_uv=False)
    lost = np.linalg.norm(kernel - hidden.first @ hidden.second)
    assert lost == pytest.approx(np.linalg.norm(singular[hidden.rank :]), rel=1e-3)
    assert np.sum(singular[: hidden.rank] ** 2) >= 0.9 * np.sum(singular**2)


def test_what_a_model_within_keeps_of_its_weights_is_there_too():
    inner_inputs = keras.Input((8, 8, 3))
    inner = keras.Model(inner_inputs, keras.layers.Normalization(axis=-1)(inner_inputs))
    layer = inner.layers[-1]
    layer.adapt_mean.assign([40.0, 50.0, 60.0])
    layer.adapt_variance.assign([10.0, 20.0, 30.0])
    layer.finalize_state()
    images = keras.Input((8, 8, 3), dtype="uint8", name="images")
    x = keras.layers.Flatten()(inner(keras.layers.Rescaling(1.0)(images)))
    dense = keras.layers.Dense(20, name="hidden")
    model = keras.Model(images, keras.layers.Dense(5, name="logits")(dense(x)))
    rng = np.random.default_rng(0)
    dense.set_weights([rng.normal(size=(192, 2)) @ rng.normal(size=(2, 20)) / 192, np.zeros(20)])
    some = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(
        factorized(model, energy=0.9999)(some), model(some), rtol=1e-2, atol=1e-2
    )


def test_what_is_saved_is_of_keras_own_layers(tmp_path):
    small = factorized(low_rank_network(), energy=0.9)
    small.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras", safe_mode=True)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(again(images), small(images), atol=1e-6)


def test_a_network_for_which_it_does_not_pay_says_so():
    model = build_model("fastnet", input_shape=(8, 8, 3), num_classes=3, filters=(4,))
    with pytest.raises(InputError, match="it pays in no layer: 'logits', the largest, would have"):
        factorized(model, energy=0.99)


@pytest.mark.parametrize("energy", [0, 1.0, -0.5, "all", True])
def test_an_energy_that_is_none_is_named(energy):
    with pytest.raises(InputError, match="`energy` must be a number between 0 and 1"):
        factorized(low_rank_network(), energy=energy)
