"""A run made by hand: an untrained network with random layers, which an export must switch off."""

import keras
import numpy as np
import pytest

from kclassify.models.weights import weights_hash
from kclassify.runs import Run

CLASS_NAMES = ["ant", "bee", "caf\u00e9", "dog"]
INPUT_SHAPE = (12, 10, 3)


@pytest.fixture(scope="session")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (70, *INPUT_SHAPE)).astype(np.uint8)


@pytest.fixture(scope="session")
def model():
    inputs = keras.Input(INPUT_SHAPE, dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.RandomFlip(seed=0)(x)
    x = keras.layers.RandomTranslation(0.3, 0.3, seed=0)(x)
    initializer = keras.initializers.RandomNormal(stddev=1.0, seed=0)
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=initializer)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(keras.layers.Dropout(0.5, seed=0)(x))
    initializer = keras.initializers.RandomNormal(stddev=0.2, seed=1)
    return keras.Model(inputs, keras.layers.Dense(4, kernel_initializer=initializer)(x))


@pytest.fixture(scope="session")
def make_run(model, images):
    def make(path):
        run = Run(path)
        path.mkdir(parents=True)
        model.save(run.model_file)
        manifest = {"data": "x", "preset": "fast", "input_shape": [], "sizes": {}, "config": {}}
        run.write(run.config_file, {**manifest, "class_names": CLASS_NAMES})
        run.write(run.samples_file, {"images": images, "ids": np.arange(len(images)).astype(str)})
        run.write(run.summary_file, {"weights_sha256": weights_hash(model)})
        return run

    return make


@pytest.fixture(scope="session")
def run(make_run, tmp_path_factory):
    """A finished run; do not write into it."""
    return make_run(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="session")
def exported(run):
    """The one export that the tests read; do not write into it."""
    from kclassify.serving.saved_model import export

    return export(run)


@pytest.fixture(scope="session")
def expected(model, images):
    """The probabilities that the Keras model gives `images`."""
    return keras.ops.softmax(model.predict(images, verbose=0)).numpy()


@pytest.fixture(
    scope="session",
    params=[
        ("onnx", "model.onnx", ("tf2onnx", "onnxruntime")),
        ("litert", "model.tflite", ("ai_edge_litert",)),
    ],
    ids=lambda parameter: parameter[0],
)
def other_format(request, make_run, tmp_path_factory):
    """The file of an export in another format; do not write into its folder."""
    from kclassify.serving import saved_model

    name, file, packages = request.param
    for package in packages:
        pytest.importorskip(package)
    honest = saved_model.verify
    with pytest.MonkeyPatch.context() as patch:
        # The SavedModel is verified in `exported`; here only the other format needs a process.
        patch.setattr(
            saved_model,
            "verify",
            lambda *args, **kwargs: honest(*args, **{**kwargs, "formats": [name]}),
        )
        run = make_run(tmp_path_factory.mktemp(name) / "made")
        return saved_model.export(run, formats=(name,)) / file
