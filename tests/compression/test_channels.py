import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.compression.channels import (
    CRITERIA,
    channel_groups,
    channel_scores,
    channels_of,
    macs_left,
    narrowed,
    without_channels,
)
from kclassify.models.cost import count_macs
from kclassify.models.registry import MODELS, build_model

import keras  # isort: skip

# The smallest of each; those that cannot be pruned say so.
TINY = {
    "lenet": ((16, 16, 3), {}),
    "convnet": ((8, 8, 3), {"filters": 6, "depth": 2, "dense_units": 6}),
    "fastnet": ((8, 8, 3), {"filters": (6, 8)}),
    "resnet": ((8, 8, 3), {"depth": 8, "filters": 6}),
    "wide_resnet": ((8, 8, 3), {"depth": 10, "width": 1}),
}
REFUSED = {"application": ((32, 32, 3), {"backbone": "MobileNetV3Small"})}


def tiny(name):
    shape, options = TINY[name]
    model = build_model(name, input_shape=shape, num_classes=3, **options)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        # Positive, as variances have to be, and away from the identity that some begin with.
        if weight.ndim == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(weight.numpy() + 0.1 * rng.normal(size=weight.shape))
    return model


def images_for(model, count=4):
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def silenced(channels, gone):
    """Return the same network, in which nobody listens to the channels that are to go."""
    model = channels.model
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            lost = np.isin(channels.roots(channels.inputs[layer.name]), gone)
            weights[0][..., lost, :] = 0
            layer.set_weights(weights)
    return copy


@pytest.mark.parametrize("name", MODELS)
def test_every_model_answers_as_if_nobody_listened_to_what_is_gone(name):
    if name in REFUSED:
        shape, options = REFUSED[name]
        model = build_model(name, input_shape=shape, num_classes=3, **options)
        with pytest.raises(
            InputError, match=r"it is not known how channels go through .*Functional"
        ):
            narrowed(model)
        return
    model = tiny(name)
    channels = channels_of(model)
    rng = np.random.default_rng(2)
    gone = np.concatenate(
        [rng.choice(group.channels, len(group) // 2, replace=False)
         for group in channel_groups(channels)]
    )  # fmt: skip
    small = without_channels(channels, gone)
    expected, images = silenced(channels, gone), images_for(model)
    assert np.abs(expected(images) - model(images)).max() > 1e-3
    np.testing.assert_allclose(small(images), expected(images), atol=1e-4, rtol=1e-4)
    assert small.count_params() < model.count_params()
    assert count_macs(small) == pytest.approx(macs_left(channels, gone) * count_macs(model))


@pytest.mark.parametrize("name", TINY)
def test_no_more_operations_are_left_than_were_asked_for(name):
    model = tiny(name)
    for macs in (0.7, 0.4):
        left = count_macs(narrowed(model, macs=macs)) / count_macs(model)
        assert 0.5 * macs < left <= macs


def test_wide_groups_keep_whole_vectors():
    model = build_model("resnet", input_shape=(8, 8, 3), num_classes=3, depth=8, filters=16)
    small = narrowed(model, macs=0.5)
    widths = {layer.filters for layer in small.layers if isinstance(layer, keras.layers.Conv2D)}
    assert all(width % 8 == 0 for width in widths)


def test_what_is_added_together_goes_together():
    channels = channels_of(tiny("resnet"))
    groups = channel_groups(channels)
    # A stage of one block: its stream has the shortcut or the stem, and the second convolution.
    found = sorted((len(group), len(group.producers)) for group in groups)
    assert found == [(6, 1), (6, 2), (12, 1), (12, 2), (24, 1), (24, 2)]


def test_the_last_layer_and_what_is_frozen_stay_whole():
    model = tiny("fastnet")
    whole = model.get_layer("whitening").filters
    small = narrowed(model, macs=0.3)
    assert small.get_layer("whitening").filters == whole
    assert small.output_shape == model.output_shape


def test_a_channel_that_others_are_normalized_with_stays():
    model = build_model(
        "convnet", input_shape=(8, 8, 3), num_classes=3, filters=8, depth=1, normalization="layer"
    )
    assert channel_groups(channels_of(model)) == []
    with pytest.raises(InputError, match="`macs` must be a share that pruning can leave"):
        narrowed(model)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_least_filter_goes_first(criterion):
    model = tiny("resnet")
    channels = channels_of(model)
    group = channel_groups(channels)[1]
    (name,) = group.producers
    layer = model.get_layer(name)
    kernel, *rest = layer.get_weights()
    kernel[..., 2] *= 1e-3
    layer.set_weights([kernel, *rest])
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    behind = next(
        n for n in norms if np.array_equal(channels.inputs[n.name], channels.outputs[name])
    )
    gamma = behind.gamma.numpy()
    gamma[2] = -1e-3
    behind.gamma.assign(gamma)
    scores = channel_scores(channels, group, criterion=criterion)
    if criterion == "random":
        again = channel_scores(channels, group, criterion=criterion)
        other = channel_scores(channels, group, criterion=criterion, seed=1)
        assert np.array_equal(scores, again)
        assert not np.array_equal(scores, other)
    else:
        assert scores.argmin() == 2
        assert (scores >= 0).all()


def test_separable_depthwise_concatenated_and_flattened_channels_are_followed():
    images = keras.Input((8, 8, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255)(images)
    a = keras.layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2)(x)
    b = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = keras.layers.Concatenate()([a, b])
    x = keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.SeparableConv2D(8, 3, strides=2)(x)
    x = keras.layers.Dense(5, activation="relu")(keras.layers.Flatten()(x))
    model = keras.Model(images, keras.layers.Dense(3)(x))
    channels = channels_of(model)
    assert sorted(len(group) for group in channel_groups(channels)) == [4, 5, 6, 8]
    small = narrowed(model, macs=0.4)
    assert small(images_for(model)).shape == (4, 3)
    assert count_macs(small) <= 0.4 * count_macs(model)
    # Without those that matter to nobody, nothing changes.
    (first,) = (g for g in channel_groups(channels) if len(g) == 4)
    layer = model.get_layer(first.producers[0])
    kernel, bias = layer.get_weights()
    kernel[..., 1], bias[1] = 0, 0
    layer.set_weights([kernel, bias])
    less = without_channels(channels, first.channels[1:2])
    np.testing.assert_allclose(less(images_for(model)), model(images_for(model)), atol=1e-5)


def test_no_scale_to_go_by_is_said():
    channels = channels_of(tiny("lenet"))
    with pytest.raises(InputError, match="there is no batch normalization with a scale behind"):
        channel_scores(channels, channel_groups(channels)[0], criterion="batch_norm")


@pytest.mark.parametrize("macs", [0, 1.0, 1, -0.5, "half", None])
def test_a_share_that_is_none_is_named(macs):
    with pytest.raises(InputError, match="`macs` must be a share above 0 and below 1"):
        narrowed(tiny("lenet"), macs=macs)


def test_what_is_not_understood_is_named():
    images = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1.0)(images))
    x = keras.layers.PReLU(name="odd")(x)
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(InputError, match=r"'odd' \(PReLU\)"):
        narrowed(model)


def test_what_is_left_opens_in_plain_keras(tmp_path):
    small = narrowed(tiny("wide_resnet"), macs=0.5)
    small.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras", safe_mode=True)
    np.testing.assert_allclose(again(images_for(small)), small(images_for(small)), atol=1e-6)
