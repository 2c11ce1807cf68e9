import keras
import numpy as np
import pytest

from kclassify.models.folding import fold_batch_norm

layers = keras.layers
SHAPE = (8, 8, 3)


def randomized(norm, *, scale=(0.5, 2.0), seed=0):
    """Give a batch normalization statistics that make a difference."""
    rng = np.random.default_rng(seed)
    shape = norm.moving_mean.shape
    norm.moving_mean.assign(rng.normal(size=shape))
    norm.moving_variance.assign(rng.uniform(0.5, 2.0, shape))
    for weight, values in (
        (norm.gamma, rng.uniform(*scale, shape)),
        (norm.beta, rng.normal(size=shape)),
    ):
        if weight is not None:
            weight.assign(values)


def network(build, *, shape=SHAPE, **options):
    """Return a model of `build`, which is given the images, with random statistics everywhere."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build(inputs))
    for norm in norms(model):
        randomized(norm, **options)
    return model


def norms(model):
    found = []
    for layer in model.layers:
        found += norms(layer) if isinstance(layer, keras.Model) else []
        found += [layer] if isinstance(layer, layers.BatchNormalization) else []
    return found


def images(shape=SHAPE):
    return np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")


def folded_alike(model, *, left):
    """Fold `model`; check how many normalizations are left, and that the answers are the same."""
    folded = fold_batch_norm(model)
    assert len(norms(folded)) == left
    x = images(model.input_shape[1:])
    expected = model(x, training=False)
    np.testing.assert_allclose(folded(x, training=False), expected, rtol=1e-4, atol=1e-5)
    return folded


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(5, 3, padding="same", use_bias=False),
        lambda: layers.Conv2D(5, 3, strides=2, bias_initializer="normal"),
        lambda: layers.Conv2D(6, 3, groups=3),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, bias_initializer="normal"),
        lambda: layers.Dense(7, use_bias=False),
    ],
    ids=["plain", "strides_and_bias", "groups", "depthwise", "dense"],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}])
def test_each_kind_takes_a_normalization_in(layer, options):
    model = network(lambda x: layers.BatchNormalization(**options)(layer()(x)))
    folded = folded_alike(model, left=0)
    assert len(folded.layers) == len(model.layers) - 1
    assert len(folded.weights) == 2


def test_the_model_is_left_as_it_is():
    model = network(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    before = [weight.copy() for weight in model.get_weights()]
    fold_batch_norm(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(norms(model)) == 1


def after_an_activation(x):
    return layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))


def read_twice(x):
    x = layers.Conv2D(4, 3)(x)
    return layers.Add()([layers.BatchNormalization()(x), x])


def called_twice(x):
    conv, norm = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    return norm(conv(norm(conv(x))))


def another_axis(x):
    return layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(x))


def behind_another_layer(x):
    return layers.BatchNormalization()(layers.Activation("relu")(layers.Conv2D(4, 3)(x)))


def behind_average_pooling(x):
    return layers.BatchNormalization()(layers.AveragePooling2D(2)(layers.Conv2D(4, 3)(x)))


@pytest.mark.parametrize(
    "build",
    [
        after_an_activation,
        read_twice,
        called_twice,
        another_axis,
        behind_another_layer,
        behind_average_pooling,
        layers.BatchNormalization(),
    ],
)
def test_where_it_would_change_the_answers_it_stays(build):
    folded_alike(network(build), left=1)


def test_a_convolution_that_is_an_output_too_is_left():
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3)(inputs)
    model = keras.Model(inputs, [x, layers.BatchNormalization()(x)])
    randomized(*norms(model))
    folded = fold_batch_norm(model)
    assert len(norms(folded)) == 1
    for one, other in zip(folded(images()), model(images()), strict=True):
        np.testing.assert_array_equal(one, other)


def pooled(x):
    return layers.BatchNormalization()(layers.MaxPooling2D(padding="same")(layers.Conv2D(4, 2)(x)))


def test_max_pooling_stands_between_only_where_no_scale_is_negative():
    folded_alike(network(pooled), left=0)
    folded_alike(network(pooled, scale=(-1.0, 1.0)), left=1)


def test_a_pooling_that_is_read_twice_is_left():
    def build(x):
        x = layers.MaxPooling2D()(layers.Conv2D(4, 3)(x))
        return layers.Add()([layers.BatchNormalization()(x), x])

    folded_alike(network(build), left=1)


def test_layers_of_16_bits_are_left():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network(lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(norms(fold_batch_norm(model))) == 1


def test_a_normalization_that_was_told_not_to_train_is_folded():
    build = lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3)(x), training=False)  # noqa: E731
    folded_alike(network(build), left=0)


def test_nested_functional_models_are_folded_and_sequential_ones_left():
    def build(x):
        inputs = keras.Input(SHAPE)
        inner = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
        x = keras.Model(inputs, inner)(x)
        return keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()])(x)

    folded_alike(network(build), left=1)


def test_operations_and_layers_with_their_own_weights_are_kept():
    def build(x):
        x = keras.ops.flip(x, axis=2)
        x = layers.GroupNormalization(2)(layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
        return layers.Dense(2)(layers.Flatten()(x))

    folded_alike(network(build), left=0)


def test_what_was_folded_saves_and_opens(tmp_path):
    folded = fold_batch_norm(network(pooled))
    folded.save(tmp_path / "folded.keras")
    again = keras.saving.load_model(tmp_path / "folded.keras", safe_mode=True)
    np.testing.assert_array_equal(again(images()), folded(images()))
