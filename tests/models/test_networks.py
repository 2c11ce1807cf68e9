"""Each network is the one that its paper or tutorial describes."""

import keras
import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.models.registry import build_model


def build(name, input_shape=(32, 32, 3), **arguments):
    return build_model(name, input_shape=input_shape, num_classes=10, **arguments)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def count(model, kind):
    return kinds(model).count(kind)


def trainable(model):
    return sum(weight.numpy().size for weight in model.trainable_weights)


def test_lenet_is_the_tutorials():
    model = build("lenet")
    assert model.count_params() == 62_006
    pixels = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 32, 32, 3), np.uint8)
    rescaled = model.layers[1](pixels).numpy()
    np.testing.assert_allclose([rescaled.min(), rescaled.max()], [-1, 1], atol=1e-6)
    assert kinds(model)[2:] == [
        *("Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D"),
        *("Flatten", "Dense", "Dense", "Dense"),
    ]


def test_lenet_says_how_small_an_image_may_be():
    assert build("lenet", (16, 16, 1)).output_shape == (None, 10)
    with pytest.raises(InputError, match="at least 16x16"):
        build("lenet", (32, 15, 3))


def test_convnet_pools_straight_after_the_first_convolution():
    stage = kinds(build("convnet", (8, 8, 3), depth=1))[2:-2]
    assert stage == [
        *("Conv2D", "MaxPooling2D", "BatchNormalization", "Activation"),
        *("Conv2D", "BatchNormalization", "Activation"),
    ]


def test_convnet_doubles_its_width_and_halves_its_image():
    model = build("convnet", filters=8, depth=3)
    shapes = [layer.output.shape[1:] for layer in model.layers if "Conv2D" in str(type(layer))]
    assert shapes == [(32, 32, 8), (16, 16, 8), (16, 16, 16), (8, 8, 16), (8, 8, 32), (4, 4, 32)]


def test_convnet_is_as_deep_as_tiny_and_odd_images_allow():
    for shape, depth in [((8, 8, 1), 3), ((7, 9, 3), 3), ((5, 5, 3), 3), ((2, 40, 3), 1)]:
        model = build("convnet", shape, filters=4, depth=depth)
        assert np.isfinite(model(np.zeros((1, *shape), np.uint8))).all()
        with pytest.raises(InputError, match=f"`depth` must be at most {depth}"):
            build("convnet", shape, filters=4, depth=depth + 1)


@pytest.mark.parametrize(
    ("normalization", "kind"),
    [
        ("batch", "BatchNormalization"),
        ("layer", "LayerNormalization"),
        ("group", "GroupNormalization"),
        ("none", None),
    ],
)
def test_convolutions_have_a_bias_only_without_normalization(normalization, kind):
    model = build("convnet", (8, 8, 3), filters=36, depth=2, normalization=normalization)
    biased = {layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    assert biased == {normalization == "none"}
    assert [name for name in kinds(model) if "Normalization" in name] == [kind] * 4 * bool(kind)
    assert np.isfinite(model(np.zeros((1, 8, 8, 3), np.uint8))).all()


def test_options_reach_the_layers():
    model = build(
        "convnet", (8, 8, 3), depth=1, kernel_size=5, activation="gelu", dropout=0.3,
        kernel_initializer="orthogonal", dense_units=12,
    )  # fmt: skip
    by_kind = {type(layer).__name__: layer for layer in model.layers[:-1]}
    assert by_kind["Conv2D"].kernel_size == (5, 5)
    assert by_kind["Activation"].activation is keras.activations.gelu
    assert type(by_kind["Conv2D"].kernel_initializer).__name__ == "Orthogonal"
    assert by_kind["Dense"].units == 12
    assert by_kind["Dropout"].rate == 0.3


def test_batch_normalization_follows_within_short_trainings():
    layers = build("convnet", (8, 8, 3), depth=1).layers
    assert {v.momentum for v in layers if isinstance(v, keras.layers.BatchNormalization)} == {0.9}


@pytest.mark.parametrize(("depth", "convolutions"), [(8, 9), (20, 21)])
def test_resnet_has_its_depth(depth, convolutions):
    """`depth` counts the last layer, and not the two shortcuts."""
    model = build("resnet", depth=depth)
    assert count(model, "Conv2D") == convolutions
    assert count(model, "Add") == (depth - 2) // 2


def test_resnet_20_has_the_papers_parameters():
    # He et al.: 0.27 million; 269,722 with option A, and two projections in option B.
    assert trainable(build("resnet")) == 269_722 + 16 * 32 + 32 * 64 + 2 * (32 + 64)


def test_wide_resnet_has_the_authors_parameters():
    # Counted by the authors' code (2.7 million in their table).
    assert trainable(build("wide_resnet")) == 2_748_890


def test_wide_resnet_drops_inside_its_blocks():
    model = build("wide_resnet", depth=16, width=1, dropout=0.3)
    assert count(model, "Dropout") == 6
    assert kinds(model)[2:5] == ["Conv2D", "BatchNormalization", "Activation"]


def test_fastnet_begins_by_passing_on_what_it_gets():
    model = build_model("fastnet", input_shape=(16, 16, 3), num_classes=2, filters=(8, 32))
    convolutions = [one for one in model.layers if type(one) is keras.layers.Conv2D]
    # The first one whitens.
    for layer in convolutions[1:]:
        kernel = layer.kernel.numpy()
        passed = min(kernel.shape[2:])
        same = np.zeros((3, 3, kernel.shape[2], passed))
        same[1, 1, range(passed), range(passed)] = 1
        assert np.array_equal(kernel[..., :passed], same)
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.6}
    assert not any(norm.scale for norm in norms)
