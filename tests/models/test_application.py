import keras
import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.models.application import BACKBONES, FAMILIES
from kclassify.models.registry import build_model

TINY = "MobileNetV3Small"


def build(input_shape=(32, 32, 3), **arguments):
    arguments = {"backbone": TINY, **arguments}
    return build_model("application", input_shape=input_shape, num_classes=3, **arguments)


def base_of(model):
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


@pytest.mark.parametrize("family", FAMILIES)
def test_scaling_is_the_familys_own(family):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    ours = keras.Model(inputs, FAMILIES[family].scaling(inputs))(pixels)
    module = "mobilenet_v3" if family == "mobilenet_v3" else family
    theirs = getattr(keras.applications, module).preprocess_input(pixels.astype("float32"))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_every_backbone_has_a_family():
    modules = {getattr(keras.applications, name).__module__.split(".")[-1] for name in BACKBONES}
    assert modules == set(FAMILIES)


def test_caffe_scaling_reopens_in_plain_keras(tmp_path):
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    model = keras.Model(inputs, FAMILIES["vgg16"].scaling(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(again(pixels), model(pixels))


def test_a_frozen_backbone_learns_nothing():
    model = build(trainable=False)
    before = base_of(model).get_weights()
    model.compile(optimizer="sgd", loss="mse", jit_compile=False)
    model.train_on_batch(np.ones((4, 32, 32, 3), np.uint8), np.ones((4, 3)))
    for old, new in zip(before, base_of(model).get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(model.trainable_weights) == 2


def test_grey_images_are_repeated():
    model = build((32, 32, 1))
    colour = build((32, 32, 3))
    colour.set_weights(model.get_weights())
    grey = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    # With the batch's own statistics, since an untrained MobileNet's signal fades otherwise.
    outputs = model(grey, training=True).numpy()
    assert np.abs(outputs).max() > 0.01
    repeated = np.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(outputs, colour(repeated, training=True), atol=1e-4)


def test_weights_come_from_a_file(tmp_path):
    path = tmp_path / "backbone.weights.h5"
    source = base_of(build())
    source.save_weights(path)
    for old, new in zip(
        source.get_weights(), base_of(build(weights=path)).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "MobilNetV2"}, r"`backbone` must be one of .*Did you mean 'MobileNetV2'\?"),
        ({"pooling": "mean"}, r"`pooling` must be one of \['avg', 'max'\]"),
        ({"trainable": "no"}, "`trainable` must be True or False"),
        ({"dropout": -0.1}, "`dropout` must be a number"),
        ({"weights": "nowhere.h5"}, "`weights` must be .*Received: weights='nowhere.h5'"),
        ({"input_shape": (31, 40, 3)}, "`input_shape` must be at least 32x32"),
        ({"input_shape": (32, 32, 4)}, "`input_shape` must be .* with 1 or 3 channels"),
        ({"backbone": "Xception", "input_shape": (70, 80, 3)}, "at least 71x71"),
        ({"backbone": "InceptionV3", "input_shape": (74, 80, 3)}, "at least 75x75"),
    ],
)
def test_bad_values_are_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        build(**arguments)


def test_a_file_of_other_weights_is_refused(tmp_path):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(InputError, match=r"`weights` must be .*MobileNetV3Small without its top"):
        build(weights=str(tmp_path / "other.weights.h5"))


def test_a_failed_download_says_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise Exception("URL fetch failure on https://example.org: None -- timed out")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", unreachable)
    with pytest.raises(InputError, match=r"URL fetch failure.*Pass the path of a local file"):
        build((224, 224, 3), weights="imagenet")
