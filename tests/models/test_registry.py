import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.models.registry import build_model


def build(name="convnet", input_shape=(8, 8, 3), num_classes=3, **arguments):
    return build_model(name, input_shape=input_shape, num_classes=num_classes, **arguments)


def test_a_misspelt_model_names_the_nearest():
    with pytest.raises(InputError, match=r"`model` must be one of .*Did you mean 'resnet'\?"):
        build("resnt")


def test_a_misspelt_argument_names_the_nearest():
    with pytest.raises(InputError, match=r"`fliters` must be .*Did you mean 'filters'\?"):
        build(fliters=8)


def test_an_argument_of_another_model_is_refused():
    with pytest.raises(InputError, match="`width` must be an argument of 'convnet'"):
        build(width=2)


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 8, 3, 1), (0, 8, 3), (8.0, 8, 3), (None, None, 3), 8, (True, 8, 3)]
)
def test_input_shape_is_three_whole_numbers(shape):
    with pytest.raises(InputError, match=r"`input_shape` must be \(height, width, channels\)"):
        build(input_shape=shape)


@pytest.mark.parametrize("num_classes", [1, 0, -3, 2.0, "10", None, True])
def test_there_are_at_least_two_classes(num_classes):
    with pytest.raises(InputError, match="`num_classes` must be"):
        build(num_classes=num_classes)


def test_numpys_numbers_and_lists_are_taken(tmp_path):
    model = build(input_shape=list(np.array([8, 8, 3])), num_classes=np.int64(4), depth=1)
    assert model.output_shape == (None, 4)
    model.save(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lenet", {"activation": "rleu"}, "`activation` .*Did you mean 'relu'"),
        ("lenet", {"kernel_initializer": "he"}, "`kernel_initializer` must be one of"),
        ("convnet", {"normalization": "bacth"}, "`normalization` .*Did you mean 'batch'"),
        ("convnet", {"normalization": None}, "`normalization` must be one of"),
        ("convnet", {"filters": 0}, "`filters` must be a whole number of at least 1"),
        ("convnet", {"kernel_size": 2.5}, "`kernel_size` must be a whole number"),
        ("convnet", {"depth": 0}, "`depth` must be a whole number"),
        ("convnet", {"depth": 4}, "`depth` must be at most 3 stages for images of 8x8"),
        ("convnet", {"dropout": 1.0}, "`dropout` must be a number of at least 0 and below 1"),
        ("convnet", {"dropout": "half"}, "`dropout` must be a number"),
        ("convnet", {"dense_units": 0}, "`dense_units` must be a whole number"),
        ("resnet", {"depth": 18}, r"`depth` must be 6n \+ 2.*\[8, 14, 20, .*110\]"),
        ("resnet", {"depth": 116}, r"`depth` must be 6n \+ 2"),
        ("resnet", {"filters": -1}, "`filters` must be a whole number"),
        ("wide_resnet", {"depth": 4}, r"`depth` must be 6n \+ 4"),
        ("wide_resnet", {"depth": 20}, r"`depth` must be 6n \+ 4"),
        ("wide_resnet", {"width": 0}, "`width` must be a whole number"),
    ],
)
def test_values_are_checked(name, arguments, message):
    with pytest.raises(InputError, match=message):
        build(name, input_shape=(16, 16, 3) if name == "lenet" else (8, 8, 3), **arguments)
