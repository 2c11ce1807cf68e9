import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.compression.quantization import (
    SCHEMES,
    check_scheme,
    layer_errors,
    write_quantized,
)
from kclassify.models.engines import ENGINES
from kclassify.models.quantized import file_model
from kclassify.models.registry import build_model
from kclassify.runs import Run

import keras  # isort: skip

# Which of 100 of the logits' spread a scheme may lose on random networks.
LOST = {"litert_int8": 0.1, "litert_dynamic": 0.1, "onnx_int8": 0.2}


def needs(scheme):
    for package in SCHEMES[scheme].packages:
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def model():
    found = build_model("resnet", input_shape=(8, 8, 3), num_classes=5, depth=8, filters=8)
    rng = np.random.default_rng(0)
    for weight in found.weights:
        if weight.ndim == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return found


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (32, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_file_gives_the_networks_logits_at_any_batch_size(model, images, scheme, tmp_path):
    needs(scheme)
    file = tmp_path / f"network{SCHEMES[scheme].ending}"
    write_quantized(model, file, scheme=scheme, images=images)
    engine, expected = ENGINES[file.suffix](file), np.asarray(model(images, training=False))
    found = engine(images)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= LOST.get(scheme, 1e-2) * np.ptp(expected)
    parts = np.concatenate([engine(images[:1]), engine(images[1:8]), engine(images[8:])])
    # How integers are rounded does not depend on how many images come together.
    np.testing.assert_allclose(parts, found, atol=1e-4 * np.ptp(expected))


def test_integers_are_what_litert_computes_with(model, images, tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    sizes = {}
    for scheme in ("litert_float32", "litert_int8"):
        file = tmp_path / f"{scheme}.tflite"
        write_quantized(model, file, scheme=scheme, images=images)
        sizes[scheme] = file.stat().st_size
    interpreter = litert.Interpreter(str(file))
    kinds = {one["index"]: one["dtype"] for one in interpreter.get_tensor_details()}
    convolutions = [one for one in interpreter._get_ops_details() if one["op_name"] == "CONV_2D"]
    assert len(convolutions) == 9
    for one in convolutions:
        assert kinds[one["inputs"][0]] == kinds[one["inputs"][1]] == np.int8
        assert kinds[one["outputs"][0]] == np.int8
    # What is stored beside the weights counts for more in so small a network.
    assert sizes["litert_int8"] <= 0.5 * sizes["litert_float32"]


def test_onnx_runtime_computes_every_convolution_with_integers(model, images, tmp_path):
    needs("onnx_int8")
    import onnx
    import onnxruntime

    file, planned = tmp_path / "network.onnx", tmp_path / "planned.onnx"
    write_quantized(model, file, scheme="onnx_int8", images=images)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(planned)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(planned).graph.node]
    assert kinds.count("QLinearConv") == 9
    assert "Conv" not in kinds


def test_a_depthwise_kernel_is_rounded_channel_by_channel(images):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    layer = keras.layers.DepthwiseConv2D(3, name="depthwise")
    x = layer(keras.layers.Conv2D(48, 1)(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))
    kernel, bias = layer.get_weights()
    # Were its steps those of all, the noise would be that of 48 channels instead of one.
    kernel[..., 0, 0] *= 20
    layer.set_weights([kernel, bias])
    found = layer_errors(model, images=images).set_index("layer")
    assert found.loc["depthwise", "kernel_db"] > 40


def test_a_file_is_asked_through_keras(model, images, tmp_path):
    needs("litert_float32")
    file = tmp_path / "network.tflite"
    write_quantized(model, file, scheme="litert_float32", images=images)
    asked = file_model(file, (8, 8, 3), 5)
    np.testing.assert_allclose(asked(images), model(images, training=False), atol=1e-2)
    assert asked.output_shape == (None, 5)
    assert not asked.weights


def test_the_layer_that_loses_most_comes_first(model, images):
    plain = layer_errors(model, images=images).set_index("layer")
    kernel = model.get_layer("logits").kernel
    before = kernel.numpy()
    # One weight that is far away takes all the steps of its column.
    kernel.assign(np.where(np.arange(before.size).reshape(before.shape) == 0, 100.0, before))
    wide = layer_errors(model, images=images)
    kernel.assign(before)
    assert wide["outputs_db"].is_monotonic_increasing
    assert len(wide) == 10
    assert wide.set_index("layer").loc["logits", "weights"] == before.size
    assert (plain["kernel_db"] > 30).all()
    assert (plain["outputs_db"] > 25).all()


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, tiny_arrays, tiny_options, no_measuring):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path_factory.mktemp("runs")
    parent = kclassify.fit(tiny_arrays, run_dir=path / "parent", **{**tiny_options, "epochs": 3})
    return kclassify.compress(parent, technique="quantize", verbose=False).run


def test_a_quantized_run_serves_the_file_that_was_evaluated(quantized, tiny_arrays):
    images, _ = tiny_arrays
    version = kclassify.export(quantized)
    assert sorted(path.name for path in version.iterdir()) == [
        "assets.extra", "model.tflite", "verification.json",
    ]  # fmt: skip
    served, run = kclassify.load(version), kclassify.load(quantized)
    np.testing.assert_allclose(served.probabilities(images), run.probabilities(images), atol=1e-6)
    with np.load(quantized.predictions_file("test")) as stored:
        ids, expected = stored["ids"], stored["probabilities"]
    places = [int(name.rpartition("/")[2].rpartition("[")[2].strip("]")) for name in ids]
    np.testing.assert_allclose(served.probabilities(images[places]), expected, atol=1e-4)
    assert served.predict(images[0]).shape[0] == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda run: kclassify.explain(run, verbose=False),
        lambda run: kclassify.analyze(run, parts=["learned"], verbose=False),
        lambda run: kclassify.robustness(run, verbose=False),
        lambda run: kclassify.compress(run, technique="prune", verbose=False),
    ],
)
def test_what_needs_gradients_names_the_parent(quantized, call):
    with pytest.raises(InputError, match=r"`run` must have a Keras model .*parent"):
        call(quantized)


@pytest.mark.parametrize(
    "options", [{"tta": "flip"}, {"formats": "onnx"}, {"label_sets": 0.9}]
)  # fmt: skip
def test_what_a_file_cannot_have_is_refused_at_export(quantized, options):
    with pytest.raises(InputError, match="must be left out for a quantized run"):
        kclassify.export(quantized, **options)


def test_a_file_that_was_changed_is_not_taken_for_the_run(quantized, tmp_path):
    import shutil

    copy = Run(tmp_path / "copy")
    shutil.copytree(quantized.path, copy.path)
    file = copy.path / "quantized.tflite"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"another than summary\.json names"):
        kclassify.evaluate(copy, verbose=False)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("kclassify.checks.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'kclassify\[litert\]'"):
        check_scheme("litert_int8")
    with pytest.raises(InputError, match=r"pip install 'kclassify\[onnx\]'"):
        check_scheme("onnx_int8")
