import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.compression.channels import channel_groups, channels_of
from kclassify.compression.choosing import (
    CRITERIA,
    aim_of,
    channel_scores,
    filter_gradients,
    narrowed,
)
from kclassify.compression.narrowing import cost_left, without_channels
from kclassify.data.spec import Examples
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


def examples_for(model):
    images = images_for(model)
    return Examples(images, np.arange(len(images), dtype=np.int32) % 3, np.array(list("abcd")))


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


def half_of(channels):
    """Return the numbers of a random half of each group."""
    rng = np.random.default_rng(2)
    return np.concatenate(
        [rng.choice(group.channels, len(group) // 2, replace=False)
         for group in channel_groups(channels)]
    )  # fmt: skip


def answering_alike(channels, gone):
    """Return the network without some channels; check that it answers as the silenced one."""
    small, images = without_channels(channels, gone), images_for(channels.model)
    expected = silenced(channels, gone)(images)
    np.testing.assert_allclose(small(images), expected, atol=1e-4, rtol=1e-4)
    return small


@pytest.mark.parametrize("name", MODELS)
def test_every_model_answers_as_if_nobody_listened_to_what_is_gone(name):
    if name in REFUSED:
        shape, options = REFUSED[name]
        model = build_model(name, input_shape=shape, num_classes=3, **options)
        with pytest.raises(
            InputError, match=r"it is not known how channels go through .*Functional"
        ):
            narrowed(model, aim_of())
        return
    model = tiny(name)
    channels = channels_of(model)
    gone = half_of(channels)
    small = answering_alike(channels, gone)
    images = images_for(model)
    assert np.abs(silenced(channels, gone)(images) - model(images)).max() > 1e-3
    assert small.count_params() < model.count_params()
    assert count_macs(small) == pytest.approx(cost_left(channels, gone) * count_macs(model))


@pytest.mark.parametrize("name", TINY)
def test_no_more_operations_are_left_than_were_asked_for(name):
    model = tiny(name)
    for macs in (0.7, 0.4):
        left = count_macs(narrowed(model, aim_of(macs=macs))) / count_macs(model)
        assert 0.5 * macs < left <= macs


def test_fewer_parameters_are_taken_where_they_matter_least():
    model = build_model("convnet", input_shape=(16, 16, 3), num_classes=3, filters=16, depth=2)
    small = narrowed(model, aim_of(parameters=0.5), train=examples_for(model))
    channels = channels_of(model)
    widths = {layer.name: layer.filters for layer in small.layers if hasattr(layer, "filters")}
    kept = {name: width / model.get_layer(name).filters for name, width in widths.items()}
    assert small.count_params() < 0.6 * model.count_params()
    # Not the same share of each, and of none less than a quarter.
    assert len(set(kept.values())) > 1
    assert min(kept.values()) >= 0.25
    assert cost_left(channels, np.zeros(0, int), cost="parameters") == 1.0


def test_gradients_need_images():
    with pytest.raises(InputError, match="`train` must be given with the criterion 'gradient'"):
        narrowed(tiny("lenet"), aim_of(parameters=0.5))


def test_a_layer_that_is_not_trained_keeps_its_channels():
    model = tiny("lenet")
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    first.trainable = False
    small = narrowed(model, aim_of(parameters=0.5), train=examples_for(model))
    assert small.get_layer(first.name).filters == first.filters


def test_wide_groups_keep_whole_vectors():
    model = build_model("resnet", input_shape=(8, 8, 3), num_classes=3, depth=8, filters=16)
    small = narrowed(model, aim_of(macs=0.5))
    widths = {layer.filters for layer in small.layers if isinstance(layer, keras.layers.Conv2D)}
    assert all(width % 8 == 0 for width in widths)


def test_the_last_layer_and_what_is_frozen_stay_whole():
    model = tiny("fastnet")
    whole = model.get_layer("whitening").filters
    small = narrowed(model, aim_of(macs=0.3))
    assert small.get_layer("whitening").filters == whole
    assert small.output_shape == model.output_shape


def test_a_channel_that_others_are_normalized_with_stays():
    model = build_model(
        "convnet", input_shape=(8, 8, 3), num_classes=3, filters=8, depth=1, normalization="layer"
    )
    assert channel_groups(channels_of(model)) == []
    with pytest.raises(InputError, match="`macs` must be a share that pruning can leave"):
        narrowed(model, aim_of())


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
    gradients = filter_gradients(model, examples_for(model))
    scores = channel_scores(channels, group, criterion=criterion, gradients=gradients)
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
    small = narrowed(model, aim_of(macs=0.4))
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


@pytest.mark.parametrize("macs", [0, 1.0, 1, -0.5, "half"])
def test_a_share_that_is_none_is_named(macs):
    with pytest.raises(InputError, match="`macs` must be a share above 0 and below 1"):
        narrowed(tiny("lenet"), aim_of(macs=macs))


def test_what_is_not_understood_is_named():
    images = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1.0)(images))
    x = keras.layers.PReLU(name="odd")(x)
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(InputError, match=r"'odd' \(PReLU\)"):
        narrowed(model, aim_of())


def network(build):
    """Return a network of what `build` makes of images; the input has no name of its own."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(build(images))
    return keras.Model(images, keras.layers.Dense(2)(x))


def softmax(x):
    return keras.layers.Activation("softmax")(keras.layers.Conv2D(4, 3)(x))


def attention(x):
    return keras.layers.Conv2D(4, 3, activation="softmax")(x)


@keras.saving.register_keras_serializable("tests")
def shares(x):
    return x / keras.ops.sum(keras.ops.abs(x), axis=-1, keepdims=True)


def strange_activation(x):
    return keras.layers.Conv2D(4, 3, activation=shares)(x)


def scale_of_each(x):
    return keras.layers.Rescaling([1.0, 2.0, 3.0, 4.0])(keras.layers.Conv2D(4, 3)(x))


def all_normalized(x):
    return keras.layers.LayerNormalization(axis=(1, 2, 3))(keras.layers.Conv2D(4, 3)(x))


def grouped_norm(x):
    return keras.layers.GroupNormalization(2)(keras.layers.Conv2D(4, 3)(x))


@pytest.mark.parametrize(
    "build",
    [softmax, attention, strange_activation, scale_of_each, all_normalized, grouped_norm],
)
def test_channels_that_depend_on_one_another_stay_and_those_behind_them_go(build):
    channels = channels_of(network(lambda x: keras.layers.Conv2D(6, 3)(build(x))))
    assert [len(group) for group in channel_groups(channels)] == [6]
    answering_alike(channels, half_of(channels))


def test_squeeze_and_excite_is_followed_by_way_of_its_reshape():
    def build(x):
        x = keras.layers.Conv2D(6, 3, activation="relu")(x)
        gate = keras.layers.GlobalAveragePooling2D()(x)
        gate = keras.layers.Reshape((1, 1, 6))(gate)
        gate = keras.layers.Conv2D(4, 1, activation="relu")(gate)
        gate = keras.layers.Conv2D(6, 1, activation="sigmoid")(gate)
        return keras.layers.Multiply()([x, gate])

    channels = channels_of(network(build))
    found = sorted((len(group), len(group.producers)) for group in channel_groups(channels))
    assert found == [(4, 1), (6, 2)]
    answering_alike(channels, half_of(channels))


def called_in_a_row(x):
    conv = keras.layers.Conv2D(3, 3, padding="same", name="odd")
    return conv(conv(x))


def called_side_by_side(x):
    relu = keras.layers.ReLU(name="odd")
    parts = [relu(keras.layers.Conv2D(4, 3)(x)) for _ in range(2)]
    return keras.layers.Concatenate()(parts)


def of_groups(x):
    return keras.layers.Conv2D(6, 3, groups=3, name="odd")(x)


def reshaped(x):
    return keras.layers.Reshape((24, 8), name="odd")(x)


def of_another_axis(x):
    return keras.layers.BatchNormalization(axis=1, name="odd")(keras.layers.Conv2D(4, 3)(x))


@pytest.mark.parametrize(
    "build", [called_in_a_row, called_side_by_side, of_groups, reshaped, of_another_axis]
)
def test_what_would_be_followed_wrongly_is_named(build):
    with pytest.raises(InputError, match="it is not known how channels go through 'odd'"):
        narrowed(network(build), aim_of())


def test_a_sequential_model_is_refused():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(InputError, match="a Sequential model, which is not a functional one"):
        narrowed(model, aim_of())


def joined_and_added(x):
    parts = [keras.layers.Conv2D(width, 3, name=f"part{width}")(x) for width in (2, 6)]
    return keras.layers.Add()([keras.layers.Concatenate()(parts), keras.layers.Conv2D(8, 3)(x)])


def test_each_layer_keeps_its_best_channel():
    model = network(joined_and_added)
    kernel, bias = model.get_layer("part2").get_weights()
    model.get_layer("part2").set_weights([kernel * 1e-3, bias])
    small = narrowed(model, aim_of(macs=0.3))
    assert small.get_layer("part2").filters == 1
    assert count_macs(small) <= 0.3 * count_macs(model)


def test_channels_that_cannot_go_are_named():
    channels = channels_of(tiny("lenet"))
    first = channel_groups(channels)[0]
    with pytest.raises(InputError, match="`gone` must leave each layer a channel"):
        without_channels(channels, first.channels)
    with pytest.raises(InputError, match="`gone` must be channels of the groups"):
        without_channels(channels, channels.outputs["logits"][:1])


def test_a_scale_is_found_behind_an_addition():
    # A shortcut that is a bare convolution is normalized in the next block.
    channels = channels_of(tiny("wide_resnet"))
    for group in channel_groups(channels):
        assert (channel_scores(channels, group, criterion="batch_norm") > 0).all()


@pytest.mark.parametrize("multiple", [1, 4])
def test_what_is_kept_is_a_multiple_of_what_was_asked_for(multiple):
    small = narrowed(tiny("resnet"), aim_of(macs=0.4), multiple=multiple)
    widths = [layer.filters for layer in small.layers if isinstance(layer, keras.layers.Conv2D)]
    assert all(width % multiple == 0 for width in widths if width >= 8)


@pytest.mark.parametrize(
    "options", [{"macs": 0.5, "parameters": 0.5}, {"parameters": 2.0}, {"criterion": "l3"}], ids=str
)
def test_an_aim_is_checked(options):
    with pytest.raises(InputError, match=f"`{next(iter(options))}` must be"):
        aim_of(**options)


@pytest.mark.parametrize("multiple", [0, 2.0])
def test_a_multiple_is_checked(multiple):
    with pytest.raises(InputError, match="`multiple` must be"):
        narrowed(tiny("lenet"), aim_of(), multiple=multiple)


def test_what_is_left_opens_in_plain_keras(tmp_path):
    small = narrowed(tiny("wide_resnet"), aim_of(macs=0.5))
    small.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras", safe_mode=True)
    np.testing.assert_allclose(again(images_for(small)), small(images_for(small)), atol=1e-6)
