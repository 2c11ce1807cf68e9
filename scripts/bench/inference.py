"""`kclassify.load` answers as fast as ONNX Runtime does, and in a tenth of `model.predict`'s time.

All compute the probabilities of uint8 images by the same network: one image at a time (p50 and
p99 of the calls, in milliseconds) and 256 at a time (images a second). `kclassify-onnx` and
`kclassify-litert` are the files of the same export, loaded by `kclassify.load`; `signature` is the
exported SavedModel as TensorFlow's guide calls it; `empty-call` is a call into TensorFlow that does
next to nothing; `kclassify-caller` has the variable that docs/performance.md names for processes
that only serve; `torch` is eager, channels last, in inference mode. The weights are random, and no
bias is zero: see `spread_biases`.

    python scripts/bench/inference.py --network resnet20
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import harness
import networks

from kclassify.presets import PRESETS

MOST_IMAGES = 256
# `fast` is what that preset trains.
FAST = PRESETS["fast"]
MODELS = {**networks.KCLASSIFY, "fast": (FAST["model"], FAST["model_args"])}


def onnxruntime(options):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported(options) / "model.onnx")
    return measure(lambda images: session.run(None, {"images": images}), options)


def kclassify(options, file=""):
    path = exported(options) / file
    from kclassify import load

    return measure(load(path).probabilities, options)


def kclassify_caller(options):
    os.environ["TF_ONEDNN_THREADPOOL_USE_CALLER_THREAD"] = "1"
    return kclassify(options)


def kclassify_onnx(options):
    return kclassify(options, "model.onnx")


def kclassify_litert(options):
    return kclassify(options, "model.tflite")


def signature(options):
    path = exported(options)
    from kclassify import runtime

    runtime.prepare()
    import tensorflow as tf

    model = tf.saved_model.load(path)
    serve = model.signatures["serving_default"]
    return measure(
        lambda images: serve(images=tf.constant(images))["probabilities"].numpy(), options
    )


def empty_call(options):
    from kclassify import runtime

    runtime.prepare()
    import tensorflow as tf

    from kclassify.models.engines import direct

    images = tf.TensorSpec((None, *networks.SHAPE), tf.uint8)
    corner = tf.function(lambda images: tf.cast(images[:, 0, 0, 0], tf.float32))
    return measure(direct(corner.get_concrete_function(images), tf.float32), options)


def keras_call(options):
    model = keras_model(options)
    return measure(lambda images: model(images, training=False).numpy(), options)


def keras_predict(options):
    model = keras_model(options)
    return measure(lambda images: model.predict(images, batch_size=MOST_IMAGES, verbose=0), options)


@harness.needs("torch")
def torch(options):
    import torch

    if options.network not in networks.NAMES:
        return {}
    net = networks.torch_network(options.network).eval()

    def answer(images):
        with torch.inference_mode():
            inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
            return torch.softmax(net(inputs), dim=1).numpy()

    return measure(answer, options)


def measure(answer, options):
    """Return what calls of one image and of many take."""
    images, _ = harness.cifar10(MOST_IMAGES, split="test")
    single = calls(answer, [images[place : place + 1] for place in range(16)], options.seconds)
    many = calls(answer, [images], options.seconds)
    return {
        "p50_ms": 1e3 * single[len(single) // 2],
        "p99_ms": 1e3 * single[len(single) * 99 // 100],
        "images_per_second": len(images) / many[len(many) // 2],
    }


def calls(answer, batches, seconds):
    """Return the seconds that each call took, the shortest first."""
    for batch in 2 * batches:
        answer(batch)
    times, started = [], time.perf_counter()
    while time.perf_counter() < started + seconds:
        batch = batches[len(times) % len(batches)]
        before = time.perf_counter()
        answer(batch)
        times.append(time.perf_counter() - before)
    return sorted(times)


def keras_model(options):
    path = exported(options).parent.parent / "model.keras"
    from kclassify import runtime

    runtime.prepare()
    import keras

    return keras.saving.load_model(path, compile=False)


def exported(options) -> Path:
    """Return the export of the network, made by a process of its own when it is out of date."""
    folder = harness.HERE / "build" / f"inference-{options.network}"
    code = harness.HERE.parent.parent / "kclassify"
    newest = max(file.stat().st_mtime for file in code.rglob("*.py"))
    summary = folder / "export" / "1" / "verification.json"
    if not summary.exists() or summary.stat().st_mtime < newest:
        make = f"import inference; inference.make({options.network!r}, {str(folder)!r})"
        subprocess.run([sys.executable, "-c", make], cwd=harness.HERE, check=True)
    return summary.parent


def make(network: str, folder: str) -> None:
    """Write what `kclassify.fit` would have left of an untrained network, and export it."""
    import shutil

    from kclassify import export
    from kclassify.config import FitConfig
    from kclassify.models.registry import build_model
    from kclassify.models.weights import weights_hash
    from kclassify.runs import Run

    networks.register()
    name, arguments = MODELS[network]
    model = build_model(name, input_shape=networks.SHAPE, num_classes=networks.CLASSES, **arguments)
    spread_biases(model)
    images, _ = harness.cifar10(MOST_IMAGES, split="test")
    shutil.rmtree(folder, ignore_errors=True)
    run = Run(Path(folder))
    facts = {
        "data": "cifar10", "preset": "default", "sizes": {}, "input_shape": networks.SHAPE,
        "class_names": [str(number) for number in range(networks.CLASSES)],
        "config": FitConfig(model=name, model_args=arguments).to_json(),
    }  # fmt: skip
    run.write(run.config_file, facts)
    model.save(run.model_file)
    run.write(run.samples_file, {"images": images})
    run.write(run.summary_file, {"weights_sha256": weights_hash(model)})
    export(run, formats=("saved_model", "onnx", "litert"))


def spread_biases(model) -> None:
    """Give biases and moving averages other values than zero, as training does.

    TensorFlow leaves out a bias of zeros, and fuses an activation with a convolution only where
    there is one.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "onnxruntime": onnxruntime,
        "kclassify": kclassify,
        "kclassify-caller": kclassify_caller,
        "kclassify-onnx": kclassify_onnx,
        "kclassify-litert": kclassify_litert,
        "signature": signature,
        "empty-call": empty_call,
        "keras-predict": keras_predict,
        "keras-call": keras_call,
        "torch": torch,
    },
    options={
        "network": harness.Option("conv289", help="which", choices=list(MODELS)),
        "seconds": harness.Option(8.0, quick=0.5, help="for each of the two batch sizes"),
    },
    targets=[
        harness.Target("p50_ms", "kclassify-onnx", over="onnxruntime", at_most=1.2),
        harness.Target("p50_ms", "kclassify-litert", over="onnxruntime", at_most=1.2),
        harness.Target("p50_ms", "kclassify", over="onnxruntime", at_most=1.2),
        harness.Target("p50_ms", "kclassify", over="keras-predict", at_most=0.1),
        harness.Target("images_per_second", "kclassify", over="onnxruntime", at_least=1.0),
        harness.Target("images_per_second", "kclassify-onnx", over="onnxruntime", at_least=1.0),
        harness.Target("images_per_second", "kclassify", over="torch"),
    ],
    variant=("network",),
)

if __name__ == "__main__":
    BENCHMARK.main()
