import keras
import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.models.registry import build_model
from kclassify.models.test_time import VIEWS, with_test_time

SHAPE = (8, 6, 3)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_model("convnet", input_shape=SHAPE, num_classes=4, filters=4, depth=2)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


def mirrored_mean(model, images):
    return (model(images).numpy() + model(np.ascontiguousarray(images[:, :, ::-1])).numpy()) / 2


def test_none_is_the_model_itself(model):
    assert with_test_time(model, "none") is model


def test_flip_is_the_mean_over_the_image_and_its_mirror_image(model, images):
    found = with_test_time(model, "flip")(images).numpy()
    np.testing.assert_allclose(found, mirrored_mean(model, images), atol=1e-6)
    assert np.abs(found - model(images)).max() > 1e-3


def test_flip_shift_weighs_six_views_as_airbench_does(model, images):
    height, width = SHAPE[:2]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifts = [padded[:, :height, :width], padded[:, 2 : 2 + height, 2 : 2 + width]]
    shifted = np.mean([mirrored_mean(model, shift) for shift in shifts], axis=0)
    expected = 0.5 * mirrored_mean(model, images) + 0.5 * shifted
    found = with_test_time(model, "flip_shift")(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - mirrored_mean(model, images)).max() > 1e-3


@pytest.mark.parametrize("tta", [name for name in VIEWS if name != "none"])
def test_it_has_the_models_form_and_weights(model, tta):
    views = with_test_time(model, tta)
    assert views.input.name == "images"
    assert (views.input.dtype, views.input_shape) == ("uint8", model.input_shape)
    assert (views.output.dtype, views.output_shape) == ("float32", model.output_shape)
    assert [id(weight) for weight in views.weights] == [id(weight) for weight in model.weights]


@pytest.mark.parametrize("tta", [name for name in VIEWS if name != "none"])
def test_it_saves_and_opens_in_plain_keras(model, images, tmp_path, tta):
    views = with_test_time(model, tta)
    views.save(tmp_path / "views.keras")
    again = keras.saving.load_model(tmp_path / "views.keras", safe_mode=True)
    np.testing.assert_array_equal(again(images), views(images))


@pytest.mark.parametrize("tta", VIEWS)
def test_the_network_is_shown_as_many_views_as_are_counted(images, tta):
    inputs = keras.Input(SHAPE, dtype="uint8")
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, x):
            seen.append(x.shape[0])
            return keras.ops.cast(x, "float32")

    x = keras.layers.Flatten()(Recorder()(inputs))
    model = with_test_time(keras.Model(inputs, keras.layers.Dense(2)(x)), tta)
    seen.clear()
    model(images)
    assert seen == [VIEWS[tta] * len(images)]


def test_an_unknown_name_names_the_nearest(model):
    with pytest.raises(InputError, match=r"`tta` must be.*Did you mean 'flip'"):
        with_test_time(model, "flp")


def test_a_single_row_of_pixels_cannot_be_shifted():
    inputs = keras.Input((1, 6, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    assert with_test_time(model, "flip").output_shape == (None, 2)
    with pytest.raises(InputError, match=r"`tta` must be 'none' or 'flip'.*\(1, 6\)"):
        with_test_time(model, "flip_shift")
