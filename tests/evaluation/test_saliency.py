import keras
import numpy as np
import pytest

from kclassify.evaluation.saliency import METHODS, class_probability, grad_cam, on_floats
from kclassify.models.registry import MODELS, build_model

SMALL = {
    "lenet": {},
    "convnet": {"filters": 4, "depth": 2},
    "fastnet": {"filters": (8, 16)},
    "resnet": {"depth": 8, "filters": 4},
    "wide_resnet": {"depth": 10, "width": 1},
    "application": {"backbone": "MobileNetV3Small"},
}


def small(name, *, channels=3):
    options = SMALL[name]
    return build_model(name, input_shape=(32, 32, channels), num_classes=3, **options)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")


def corner_network():
    """Class 1 is how bright the upper left quarter is, class 0 says nothing."""
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(x))
    kernel = np.zeros((8, 8, 2), "float32")
    kernel[:4, :4, 1] = 0.05
    model.layers[-1].set_weights([kernel.reshape(64, 2)])
    return model


def test_every_model_has_small_options():
    assert set(SMALL) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_on_floats_answers_as_before_and_has_gradients(name, images):
    import tensorflow as tf

    model = small(name)
    floats = tf.constant(images, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(floats)
        features, logits = on_floats(model)(floats, training=False)
        total = tf.reduce_sum(logits**2)
    np.testing.assert_allclose(logits, model(images, training=False), rtol=1e-4, atol=1e-5)
    to_pixels, to_features = tape.gradient(total, [floats, features])
    assert np.abs(to_pixels).max() > 0
    assert np.abs(to_features).max() > 0
    assert min(features.shape[1:3]) >= 5


def test_the_feature_map_of_a_nested_grey_backbone_is_found():
    model = small("application", channels=1)
    shapes = on_floats(model).output_shape
    assert shapes[0][1:3] == (8, 8)
    assert shapes[1] == (None, 3)


@pytest.mark.parametrize("method", METHODS)
def test_maps_have_the_size_of_the_images_and_are_not_below_zero(method, images):
    maps = METHODS[method](small("convnet"), images, np.array([0, 1, 2, 0]))
    assert maps.shape == (4, 32, 32)
    assert maps.min() >= 0
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("method", METHODS)
def test_maps_point_to_what_the_network_looks_at(method):
    images = np.random.default_rng(0).integers(50, 256, (3, 8, 8, 3), "uint8")
    images[:, :4, :4] = np.random.default_rng(1).integers(200, 256, (3, 4, 4, 3))
    maps = METHODS[method](corner_network(), images, np.ones(3, int))
    inside = maps[:, :4, :4].sum(axis=(1, 2)) / np.maximum(maps.sum(axis=(1, 2)), 1e-9)
    assert (inside > 0.6).all()


def test_where_features_are_averaged_grad_cam_is_what_its_paper_says(images):
    import tensorflow as tf

    model = small("resnet")
    floats = on_floats(model)
    with tf.GradientTape() as tape:
        features, logits = floats(tf.constant(images, tf.float32), training=False)
        target = logits[:, 1]
    gradients = tape.gradient(target, features).numpy()
    expected = np.zeros(features.shape[:3])
    for image in range(4):
        for channel in range(features.shape[-1]):
            weight = gradients[image, :, :, channel].mean()
            expected[image] += weight * features.numpy()[image, :, :, channel]
    expected = tf.image.resize(np.maximum(expected, 0)[..., None], (32, 32))[..., 0]
    found = grad_cam(model, images, np.ones(4, int))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_probability_is_the_softmax_of_the_logits(images):
    model = small("convnet")
    expected = keras.ops.softmax(model(images, training=False)).numpy()[np.arange(4), [0, 1, 2, 0]]
    found = class_probability(model)(images, np.array([0, 1, 2, 0]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
