import keras
import pytest

from kclassify.models.cost import count_macs, count_parameters
from kclassify.models.registry import build_model


def sequential(*layers, input_shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(input_shape), *layers])


def test_lenet_by_hand():
    model = build_model("lenet", input_shape=(32, 32, 3), num_classes=10)
    convolutions = 28 * 28 * 6 * 75 + 10 * 10 * 16 * 150
    dense = 400 * 120 + 120 * 84 + 84 * 10
    assert count_macs(model) == convolutions + dense == 651_720
    assert count_parameters(model) == 62_006


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (keras.layers.Conv2D(4, 3), 6 * 6 * 4 * 27),
        (keras.layers.Conv2D(4, 3, strides=2, padding="same"), 4 * 4 * 4 * 27),
        (keras.layers.Conv2D(6, 3, groups=3, padding="same"), 8 * 8 * 6 * 9),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 9 * 3 * 2),
        (keras.layers.SeparableConv2D(5, 3), 6 * 6 * (9 * 3 + 3 * 5)),
        (keras.layers.Dense(7), 8 * 8 * 3 * 7),
        (keras.layers.MaxPooling2D(), 0),
        (keras.layers.BatchNormalization(), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers_by_hand(layer, macs):
    assert count_macs(sequential(layer)) == macs


def test_nested_models_are_counted_once():
    inner = sequential(keras.layers.Conv2D(4, 3))
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner, keras.layers.Flatten()])
    assert count_macs(outer) == 6 * 6 * 4 * 27
    assert count_macs(keras.Model(outer.inputs, outer.outputs)) == 6 * 6 * 4 * 27


def test_a_nested_backbone_is_counted():
    model = build_model(
        "application", input_shape=(32, 32, 3), num_classes=2, backbone="ConvNeXtTiny"
    )
    # The stem is a Sequential inside the backbone: 8 x 8 positions of 4 x 4 x 3 x 96.
    assert count_macs(model) > 8 * 8 * 4 * 4 * 3 * 96
    assert count_parameters(model) == model.count_params()


def test_frozen_weights_and_moving_statistics_count():
    layer = keras.layers.BatchNormalization(trainable=False)
    assert count_parameters(sequential(layer)) == 4 * 3
