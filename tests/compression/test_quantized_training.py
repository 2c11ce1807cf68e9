import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.compression.quantization import write_quantized
from kclassify.compression.quantized_training import quantized_form
from kclassify.models.engines import ENGINES
from kclassify.models.folding import fold_batch_norm
from kclassify.models.registry import MODELS, build_model

import keras  # isort: skip


def folded(name="convnet", **options):
    options = options or {"filters": 8, "depth": 2}
    return fold_batch_norm(build_model(name, input_shape=(8, 8, 3), num_classes=3, **options))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), np.uint8)


def test_weights_come_back_and_outputs_are_near(images):
    model = folded()
    form = quantized_form(model, images=images)
    for ours, theirs in zip(form.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    logits = np.asarray(model(images))
    lost = np.abs(np.asarray(form(images)) - logits).max()
    assert 0 < lost < 0.1 * np.ptp(logits)
    # The model itself is as it was.
    assert np.array_equal(np.asarray(model(images)), logits)


def test_rounding_loses_as_much_as_the_integers_do(images, tmp_path):
    pytest.importorskip("ai_edge_litert")
    model = folded("resnet", depth=8, filters=8)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            # One filter in each that is far larger: activations of a wide range round coarsely.
            kernel[..., 0] *= 8
            layer.set_weights([kernel, bias])
    file = tmp_path / "network.tflite"
    write_quantized(model, file, scheme="litert_int8", images=images)
    served = ENGINES[".tflite"](file)(images)
    form = quantized_form(model, images=images)
    logits = np.asarray(model(images))
    simulated, real = (
        np.mean(np.abs(found - logits)) for found in (np.asarray(form(images)), served)
    )
    # Not the same answers: a step more or less in one layer moves what comes after it.
    assert 0.5 * real < simulated < 2 * real
    assert real > 0.01 * logits.std()


def of_layers(*layers):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for layer in layers:
        x = layer(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def outputs_of(form, name, images):
    return np.asarray(keras.Model(form.input, form.get_layer(name).output)(images))


def test_a_depthwise_kernel_has_steps_of_its_own_in_each_channel(images, monkeypatch):
    layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")
    model = of_layers(layer)
    (kernel, bias) = layer.get_weights()
    # Steps of the largest channel would leave nothing of the others.
    layer.set_weights([kernel * np.array([1.0, 1e-3, 1e-3])[:, None], bias])
    seen = []
    plain = keras.ops.depthwise_conv

    def spied(inputs, kernel, *arguments, **options):
        seen.append(kernel)
        return plain(inputs, kernel, *arguments, **options)

    form = quantized_form(model, images=images)
    monkeypatch.setattr(keras.src.ops, "depthwise_conv", spied)
    form(images)
    rounded = np.asarray(seen[-1])
    whole = layer.kernel.numpy()
    assert np.abs(rounded - whole).max() > 0
    largest = np.abs(whole).max(axis=(0, 1))
    assert (np.abs(rounded - whole).max(axis=(0, 1)) <= 0.51 * largest / 127).all()


@pytest.mark.parametrize(("activation", "alone"), [("relu", True), ("silu", False)])
def test_only_a_relu_is_one_with_the_layer_before_it(images, activation, alone):
    layers = keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Activation(activation)
    form = quantized_form(of_layers(*layers), images=images)
    values = len(np.unique(outputs_of(form, "conv", images)))
    assert (values > 256) is alone


def test_gradients_pass_the_rounding(images):
    import tensorflow as tf

    form = quantized_form(folded(), images=images)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(form(images, training=True) ** 2)
    found = tape.gradient(loss, [variable.value for variable in form.trainable_variables])
    assert all(part is not None and np.abs(part).max() > 0 for part in found)
    labels = np.arange(40) % 3
    form.compile(keras.optimizers.Adam(0.01),
                 keras.losses.SparseCategoricalCrossentropy(from_logits=True))  # fmt: skip
    losses = form.fit(images, labels, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("application", "lenet")])
def test_every_model_has_a_quantized_form(name, images):
    options = {"fastnet": {"filters": (8,)}, "resnet": {"depth": 8}, "wide_resnet": {"depth": 10}}
    model = folded(name, **options.get(name, {"filters": 4}))
    form = quantized_form(model, images=images)
    assert np.isfinite(np.asarray(form(images))).all()


def test_a_model_within_the_model_is_refused():
    model = build_model("application", input_shape=(32, 32, 3), num_classes=2,
                        backbone="MobileNetV3Small")  # fmt: skip
    with pytest.raises(InputError, match="does not reach into the model"):
        quantized_form(model, images=np.zeros((1, 32, 32, 3), np.uint8))


def test_a_loss_over_the_budget_is_trained_away_in_a_run_of_its_own(
    tiny_arrays, tiny_options, monkeypatch, no_measuring
):
    pytest.importorskip("ai_edge_litert")
    parent = kclassify.fit(tiny_arrays, run_dir="parent", **{**tiny_options, "epochs": 5})
    written = []

    def spoiled(model, path, **options):
        """Lose much the first time, as a network that rounds badly does."""
        if not written:
            model.get_layer("logits").set_weights(
                [-weight for weight in model.get_layer("logits").get_weights()]
            )
        written.append(path)
        write_quantized(model, path, **options)

    monkeypatch.setattr("kclassify.compression.quantize.write_quantized", spoiled)
    found = kclassify.compress(
        parent, technique="quantize", run_dir="small", epochs=1, verbose=False
    )
    aware = kclassify.Run.open("small-aware")
    assert aware.config["compression"]["technique"] == "quantized_training"
    weights = keras.saving.load_model(found.run.model_file, compile=False).get_weights()
    trained = keras.saving.load_model(aware.model_file, compile=False).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(weights, trained, strict=True))
    assert len(written) == 2
