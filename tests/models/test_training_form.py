import keras
import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.models.folding import fold_batch_norm
from kclassify.models.registry import build_model
from kclassify.models.training_form import fuse, training_form


def fused(**options):
    layer = keras.layers.BatchNormalization(**options)
    fuse(layer)
    return layer


def batch(shape=(8, 6, 6, 5)):
    return np.random.default_rng(0).normal(2.0, 3.0, shape).astype("float32")


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"momentum": 0.6}])
def test_the_fused_layer_has_kerass_answers_gradients_weights_and_config(options):
    import tensorflow as tf

    ours, keras_own = fused(**options), keras.layers.BatchNormalization(**options)
    weights = keras.random.normal((8, 6, 6, 5), seed=1)
    found = []
    for layer in (ours, keras_own):
        x = tf.Variable(batch())
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(weights * layer(x, training=True))
        gradients = tape.gradient(value, [x, *layer.trainable_variables])
        found.append([*gradients, *layer.get_weights(), layer(batch(), training=False)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


def test_a_frozen_layer_uses_and_keeps_its_statistics():
    layer = fused()
    layer.build((None, 6, 6, 5))
    layer.trainable = False
    before = layer.get_weights()
    np.testing.assert_allclose(layer(batch(), training=True), layer(batch(), training=False))
    np.testing.assert_array_equal(before, layer.get_weights())


@pytest.mark.parametrize(("channels", "kernel"), [(16, "bfloat16"), (24, "float32")])
def test_in_16_bits_the_kernel_is_given_what_it_is_quick_with(channels, kernel):
    import tensorflow as tf

    layer = fused(dtype="mixed_bfloat16")
    layer.build((None, 6, 6, channels))
    x = tf.cast(batch((8, 6, 6, channels)), tf.bfloat16)
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(x).graph
    (normalizing,) = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert normalizing.get_attr("T") == kernel
    expected = keras.layers.BatchNormalization(dtype="mixed_bfloat16")(x, training=True)
    found = layer(x, training=True)
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(
        tf.cast(found, tf.float32), tf.cast(expected, tf.float32), atol=0.05, rtol=0.05
    )


def test_vectors_are_left_to_keras():
    ours, keras_own = fused(), keras.layers.BatchNormalization()
    x = batch((8, 5))
    np.testing.assert_allclose(ours(x, training=True), keras_own(x, training=True), atol=1e-5)


def test_a_form_for_any_size_takes_any_size():
    model = build_model("fastnet", input_shape=(8, 8, 3), num_classes=2, filters=(4, 8))
    form = training_form(model, any_size=True)
    assert form(np.zeros((1, 12, 10, 3), "uint8")).shape == (1, 2)


def test_a_network_of_one_size_says_so():
    model = build_model("lenet", input_shape=(32, 32, 3), num_classes=2)
    with pytest.raises(InputError, match="`progressive` must be None for 'lenet'"):
        training_form(model, any_size=True)


def test_the_form_is_saved_as_kerass_own(tmp_path):
    model = build_model("fastnet", input_shape=(8, 8, 3), num_classes=2, filters=(4, 8))
    form = training_form(model)
    form.save(tmp_path / "form.keras")
    again = keras.saving.load_model(tmp_path / "form.keras", safe_mode=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), "uint8")
    np.testing.assert_allclose(again(images), form(images), atol=1e-5)


@pytest.mark.parametrize("copied", [training_form, fold_batch_norm], ids=lambda f: f.__name__)
def test_what_layers_make_of_their_weights_is_copied_too(copied):
    """As EfficientNet's do, whose file holds the mean and variance of ImageNet."""
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    inner_inputs = keras.Input((4, 4, 3))
    inner = keras.Model(inner_inputs, keras.layers.Normalization(axis=-1)(inner_inputs))
    x = keras.layers.GlobalAveragePooling2D()(inner(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    layer = inner.layers[-1]
    layer.adapt_mean.assign([0.4, 0.5, 0.6])
    layer.adapt_variance.assign([0.1, 0.2, 0.3])
    layer.finalize_state()
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    np.testing.assert_allclose(copied(model)(images), model(images), atol=1e-5)
