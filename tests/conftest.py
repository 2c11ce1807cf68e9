"""Fixtures shared by all the tests. Everything is tiny: 8x8 images, three classes, one epoch."""

import gc
import signal

import numpy as np
import pytest

from kclassify import runtime

runtime.prepare()
# A collection need not look through the million objects that TensorFlow consists of.
gc.freeze()
# A shell has what it starts in the background ignore Ctrl-C, which the tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Run every test in an empty folder of its own, where runs and other files land."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unverified(monkeypatch):
    """Skip the fresh process that verifies an export, for tests of what comes before and after."""
    monkeypatch.setattr("kclassify.serving.saved_model.verify", lambda *_, **__: {"images": 0})


@pytest.fixture(scope="session")
def tiny_arrays():
    """Sixty 8x8 colour images of three classes that a network can tell apart by brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    noise = rng.integers(0, 60, (60, 8, 8, 3))
    return (noise + labels[:, None, None, None] * 90).astype(np.uint8), labels


@pytest.fixture(scope="session")
def tiny_options():
    """The smallest useful fit."""
    return {
        "model": "convnet",
        "filters": 4,
        "depth": 1,
        "epochs": 1,
        "batch_size": 8,
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "augmentation": "none",
        "verbose": False,
    }


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_arrays, tiny_options):
    """A finished run on the tiny arrays; do not write into it."""
    import kclassify

    path = tmp_path_factory.mktemp("runs") / "tiny"
    options = {**tiny_options, "epochs": 3}
    return kclassify.fit(
        tiny_arrays, run_dir=path, class_names=("dark", "grey", "light"), **options
    )
