"""Training on images that do not fit memory: packed, and read a window at a time."""

import keras
import numpy as np
import pytest

import kclassify
from kclassify.data import shards
from kclassify.data.spec import PackedImages


class PowerCut(BaseException):
    """Nothing catches it, so nothing is tidied up."""


class Cut(keras.callbacks.Callback):
    """End the process, as it were, after a step of the whole training."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            raise PowerCut


@pytest.fixture(scope="module", autouse=True)
def single_steps():
    """Have each step be a call into TensorFlow, so that a fit can be cut after any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kclassify.training.session.IMAGES_PER_EXECUTION", 1)
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tiny_arrays):
    """The tiny arrays in files of five."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 5 * (192 + shards.OVERHEAD))
        place = tmp_path_factory.mktemp("sets") / "packed"
        return kclassify.pack(tiny_arrays, place, verbose=False)


@pytest.fixture(scope="module")
def options(tiny_options):
    """Windows of two steps, twelve steps an epoch; all that the order and the coins decide."""
    return {
        **tiny_options, "epochs": 3, "augmentation": "flip_crop", "checkpoint_every": 1e-9,
        "memory_budget": "8KB", "batch_size": 4,
    }  # fmt: skip


@pytest.fixture(scope="module")
def streamed(tmp_path_factory, packed, options):
    """A finished run that never had its images in memory."""
    return kclassify.fit(packed, run_dir=tmp_path_factory.mktemp("runs") / "r", **options)


def test_a_fit_streams_and_says_how(packed, options, capsys):
    run = kclassify.fit(packed, run_dir="r", **{**options, "verbose": True, "epochs": 1})
    assert isinstance(run.source.splits["train"].images, PackedImages)
    said = next(line for line in capsys.readouterr().out.split("\n") if "streamed" in line)
    assert "in windows of 8 images" in said
    assert "each a random sample in random order, in 8KB of memory" in said


@pytest.mark.parametrize("step", [1, 3, 12, 19])
def test_after_a_power_cut_it_ends_with_the_same_weights(packed, options, streamed, step):
    with pytest.raises(PowerCut):
        kclassify.fit(packed, run_dir="r", callbacks=[Cut(step)], **options)
    run = kclassify.fit(packed, run_dir="r", **options)
    assert run.summary["weights_sha256"] == streamed.summary["weights_sha256"]


def test_it_is_evaluated_as_from_memory(packed, streamed):
    own = kclassify.evaluate(streamed, verbose=False)
    again = kclassify.evaluate(str(streamed), verbose=False)
    given = kclassify.evaluate(streamed, data=packed, verbose=False)
    images, labels = (
        getattr(streamed.source.splits["test"].take(np.arange(packed.images["test"])), name)
        for name in ("images", "labels")
    )
    memory = kclassify.evaluate(streamed, data=(images, labels), verbose=False)
    for other in (again, given, memory):
        assert other.metrics == own.metrics


def test_classes_are_weighed_and_mixed_as_in_memory(packed, options):
    run = kclassify.fit(
        packed, run_dir="r", **{**options, "augmentation": "mixup", "class_weights": "balanced"}
    )
    assert run.summary["epochs_trained"] == 3


def test_a_search_trains_on_it(packed, options):
    found = kclassify.tune(
        packed, max_trials=2, tuner="random", verbose=False,
        **{name: value for name, value in options.items() if name != "verbose"},
    )  # fmt: skip
    assert len(found.trials) == 2


def test_it_is_analysed_and_exported(streamed, unverified):
    kclassify.evaluate(streamed, verbose=False)
    found = kclassify.analyze(streamed, parts=("explanation", "learned", "slices"), verbose=False)
    assert set(found) == {"explanation", "learned", "slices"}
    assert kclassify.export(streamed).is_dir()
