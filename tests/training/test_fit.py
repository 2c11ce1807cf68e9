import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import kclassify
from kclassify.checks import DivergedError, InputError
from kclassify.config import FitConfig
from kclassify.data.images import resize_images
from kclassify.data.sources import load_source, prepare
from kclassify.models.weights import weights_hash
from kclassify.training.beginning import run_facts
from kclassify.training.callbacks import BestWeights, StopOnNaN
from kclassify.training.cluster import Cluster
from kclassify.training.fit import Settled, _train
from kclassify.training.place import taken_place
from kclassify.training.replicas import Replicas

SIZES = {"train": 60, "validation": 16, "test": 3}


def test_the_run_folder_is_whole(tiny_run):
    assert tiny_run.complete
    history = tiny_run.history
    assert list(history["epoch"]) == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(history)
    assert (history["images_per_second"] > 0).all()
    assert tiny_run.config["class_names"] == ["dark", "grey", "light"]
    assert tiny_run.config["sizes"] == {"train": 39, "validation": 9, "test": 12}
    with np.load(tiny_run.samples_file) as samples:
        assert samples["images"].dtype == np.uint8
        assert len(samples["images"]) == len(samples["ids"]) == 48
    leftovers = list(tiny_run.path.rglob(".*"))
    assert leftovers == []


def test_the_kept_weights_are_those_of_the_best_epoch(tiny_arrays, tiny_options):
    seen = {}

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch + 1] = (logs["val_accuracy"], -logs["val_loss"], weights_hash(self.model))

    run = kclassify.fit(
        tiny_arrays, run_dir="r", callbacks=[Spy()], **{**tiny_options, "epochs": 4}
    )
    best = max(seen, key=lambda epoch: seen[epoch][:2])
    saved = keras.saving.load_model(run.model_file, compile=False)
    assert run.summary["best_epoch"] == best
    assert weights_hash(saved) == run.summary["weights_sha256"] == seen[best][2]


def test_best_weights_are_kept_when_later_epochs_are_worse():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    best = BestWeights(model, patience=2)
    best.set_model(model)
    for epoch, accuracy in enumerate((0.5, 0.9, 0.7, 0.8)):
        model.set_weights([np.full((2, 1), float(epoch)), np.zeros(1)])
        best.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 1.0, "val_accuracy": accuracy})
    assert best.best_epoch == 2
    assert best.stopped == "early_stopping"
    assert model.stop_training
    assert best.weights[0].tolist() == [[1.0], [1.0]]


def test_an_epoch_of_larger_images_is_better_than_any_of_smaller_ones():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    best = BestWeights(model, patience=2)
    best.set_model(model)
    for epoch, (scale, accuracy) in enumerate(((0.5, 0.9), (0.5, 0.8), (1.0, 0.6), (1.0, 0.5))):
        logs = {"loss": 1.0, "val_loss": 1.0, "val_accuracy": accuracy, "image_scale": scale}
        best.on_epoch_end(epoch, logs)
    assert (best.best_epoch, best.accuracy) == (3, 0.6)
    # Nor do those of smaller ones count as epochs without a better one.
    assert best.stopped is None


def test_where_images_grow_validation_images_grow_with_them(tiny_arrays, tiny_options):
    validated = []

    class Spy(keras.callbacks.Callback):
        """Find the loss of the validation images at the size that is noted."""

        def on_epoch_end(self, epoch, logs=None):
            images, labels = data["validation"]
            size = (round(len(images[0]) * logs["image_scale"]),) * 2
            shrunk = np.array(resize_images(images, size))
            logits = self.model(shrunk, training=False)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            validated.append(float(np.mean(losses)))

    images, labels = tiny_arrays
    data = {split: (images[:count], labels[:count]) for split, count in SIZES.items()}
    options = {key: tiny_options[key] for key in ("batch_size", "augmentation", "verbose")}
    run = kclassify.fit(
        data, run_dir="r", callbacks=[Spy()], model="fastnet", filters=(8,), epochs=4,
        mixed_precision=False, label_smoothing=0.0, progressive=(0.5, 1.0), **options,
    )  # fmt: skip
    assert run.history["image_scale"].tolist() == [0.5, 0.5, 1.0, 1.0]
    # The loss tells sizes apart where the accuracy may not.
    np.testing.assert_allclose(run.history["val_loss"], validated, rtol=0.02)
    assert run.summary["best_epoch"] > 2


def test_an_epoch_whose_loss_is_no_number_is_never_the_best():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    best = BestWeights(model, patience=None)
    best.set_model(model)
    best.on_epoch_end(0, {"loss": float("nan"), "val_loss": 1.0, "val_accuracy": 0.9})
    assert best.best_epoch is None


def test_a_loss_that_is_nan_stops_the_fit_with_advice(tiny_arrays, tiny_options):
    options = {**tiny_options, "epochs": 50, "optimizer": "sgd", "normalization": "none"}
    with pytest.raises(DivergedError, match="tenth of the learning rate") as error:
        kclassify.fit(tiny_arrays, run_dir="r", learning_rate=1e20, **options)
    assert "no model" in str(error.value)
    assert not kclassify.Run(Path("r")).complete


def test_nan_after_a_good_epoch_keeps_the_good_weights(tiny_arrays, tiny_options):
    class Poison(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                kernel = self.model.trainable_variables[0]
                kernel.assign(np.full(kernel.shape, np.nan))

    with pytest.raises(DivergedError, match="weights of epoch 1 are kept"):
        kclassify.fit(
            tiny_arrays, run_dir="r", callbacks=[Poison()], **{**tiny_options, "epochs": 3}
        )
    run = kclassify.Run.open("r")
    assert run.summary["stopped"] == "nan"
    model = keras.saving.load_model(run.model_file, compile=False)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    found = kclassify.evaluate(run, data=tiny_arrays, verbose=False)
    assert np.isfinite(found.metrics["loss"])


def test_stop_on_nan_takes_infinity_too():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = StopOnNaN()
    callback.set_model(model)
    callback.on_train_batch_end(0, {"loss": float("inf")})
    assert model.stop_training


@pytest.mark.parametrize(
    "options",
    [
        {"ema": 0.5},
        {"augmentation": "mixup"},
        {"augmentation": "cutmix", "class_weights": "balanced"},
        {"augmentation": "randaugment", "loss": "focal"},
        {"class_weights": {"light": 2.0}},
        {"weight_clip": 0.1, "gradient_clip": 1.0},
        {"optimizer": "muon", "schedule": "cosine"},
        {"batch_size": 1},
        {"deterministic": True},
    ],
    ids=str,
)
def test_options_train(tiny_arrays, tiny_options, options):
    names = ("dark", "grey", "light")
    run = kclassify.fit(tiny_arrays, run_dir="r", class_names=names, **{**tiny_options, **options})
    assert np.isfinite(run.history["loss"]).all()
    if "weight_clip" in options:
        model = keras.saving.load_model(run.model_file, compile=False)
        kernels = [w for w in model.trainable_variables if "kernel" in w.name]
        assert all(np.abs(w).max() <= 0.1 for w in kernels)


def test_averaged_weights_keep_to_what_the_weights_are_clipped_to(tiny_arrays, tiny_options):
    run = kclassify.fit(
        tiny_arrays, run_dir="r", ema=0.9, weight_clip=0.01, **{**tiny_options, "epochs": 1}
    )
    model = keras.saving.load_model(run.model_file, compile=False)
    kernels = [w.numpy() for w in model.trainable_variables if "kernel" in w.name]
    assert max(np.abs(kernel).max() for kernel in kernels) <= np.float32(0.01)


def test_no_step_is_traced_again_while_images_grow(tiny_arrays, tiny_options, monkeypatch):
    # Python runs it only to trace it.
    traced, counts = [], []
    plain = keras.Model.train_step

    def train_step(self, data):
        traced.append(1)
        return plain(self, data)

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counts.append(len(traced))

    monkeypatch.setattr(keras.Model, "train_step", train_step)
    options = {**tiny_options, "model": "fastnet", "filters": (4, 8), "epochs": 3}
    del options["depth"]
    kclassify.fit(
        tiny_arrays, run_dir="r", progressive=(0.5, 0.75, 1.0), callbacks=[Count()], **options
    )
    assert counts
    assert counts[0] == counts[-1] > 0


def test_ema_keeps_the_averaged_weights(tiny_arrays, tiny_options):
    runs = [
        kclassify.fit(tiny_arrays, run_dir=f"r{ema}", ema=ema, **tiny_options)
        for ema in (None, 0.9)
    ]
    plain, averaged = (run.summary["weights_sha256"] for run in runs)
    assert plain != averaged


def test_one_seed_gives_one_result(tiny_arrays, tiny_options):
    hashes = [
        kclassify.fit(tiny_arrays, run_dir=f"r{n}", seed=seed, **tiny_options).summary[
            "weights_sha256"
        ]
        for n, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_every_epoch_takes_exactly_its_steps(tiny_options):
    # 45 steps of 32, of which 4 would go into one call; Keras then takes 48 an epoch.
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(int(self.model.optimizer.iterations))

    options = {"filters": 4, "depth": 1, "verbose": False, "callbacks": [Spy()]}
    kclassify.fit("digits", run_dir="r", epochs=2, batch_size=32, **options)
    assert seen == [45, 90]


def test_model_keras_opens_in_plain_keras_without_kclassify(tiny_run):
    code = (
        "import sys, keras; model = keras.saving.load_model(sys.argv[1], safe_mode=True); "
        "assert not any(name.startswith('kclassify') for name in sys.modules); "
        "print(model.output_shape)"
    )
    command = [sys.executable, "-I", "-c", code, str(tiny_run.model_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("(None, 3)")


def test_early_stopping_ends_the_fit(tiny_arrays, tiny_options):
    # The rate is so small that no epoch is better than the first ones.
    options = {**tiny_options, "epochs": 30, "early_stopping": 1, "learning_rate": 1e-12}
    options |= {"normalization": "none"}
    run = kclassify.fit(tiny_arrays, run_dir="r", **options)
    assert run.summary["stopped"] == "early_stopping"
    assert run.summary["epochs_trained"] < 30


def test_verbose_prints_the_plan_and_an_eta(tiny_arrays, tiny_options, capsys):
    kclassify.fit(tiny_arrays, run_dir="r", **{**tiny_options, "verbose": True})
    shown = capsys.readouterr()
    assert "39 train, 9 validation, 12 test" in shown.out
    assert "MACs an image" in shown.out
    assert "epoch 1:" in shown.out + shown.err
    assert "step/s" in shown.err


def test_tensorboard_writes_logs(tiny_arrays, tiny_options):
    run = kclassify.fit(tiny_arrays, run_dir="r", tensorboard=True, **tiny_options)
    assert list((run.path / "tensorboard").rglob("events*"))


def test_tensorboard_names_its_extra_where_it_is_missing(tiny_arrays, tiny_options, monkeypatch):
    monkeypatch.setattr("kclassify.checks.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"kclassify\[tensorboard\]"):
        kclassify.fit(tiny_arrays, run_dir="r", tensorboard=True, **tiny_options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 64}, "batch_size"),
        ({"device": "gpu:7"}, "device"),
        ({"model": "resnt"}, "Did you mean 'resnet'"),
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"model": "resnet", "depth": 21, "filters": 4}, "depth"),
        ({"class_weights": {"darc": 2.0}}, "Did you mean 'dark'"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_before_anything_is_written(
    tiny_arrays, tiny_options, options, message, tmp_path
):
    options = {**tiny_options, "class_names": ("dark", "grey", "light"), **options}
    with pytest.raises(InputError, match=message):
        kclassify.fit(tiny_arrays, run_dir="r", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_write_permission_is_refused(tiny_arrays, tiny_options, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="not writable"):
        kclassify.fit(tiny_arrays, run_dir="r", **tiny_options)


def test_mixed_precision_is_refused_where_the_units_are_missing(
    tiny_arrays, tiny_options, monkeypatch
):
    monkeypatch.setattr("kclassify.runtime.processor_flags", lambda: {"avx2"})
    with pytest.raises(InputError, match="bfloat16 units"):
        kclassify.fit(tiny_arrays, run_dir="r", mixed_precision=True, **tiny_options)


@pytest.mark.parametrize(
    ("flags", "wanted", "policy"),
    [
        ({"avx512_bf16"}, None, "mixed_bfloat16"),
        ({"avx512_bf16"}, False, "float32"),
        ({"avx2"}, None, "float32"),
    ],
)
def test_training_in_16_bits_is_kept_in_32(
    tiny_arrays, tiny_options, monkeypatch, capsys, flags, wanted, policy
):
    monkeypatch.setattr("kclassify.runtime.processor_flags", lambda: flags)
    options = {**tiny_options, "verbose": True, "mixed_precision": wanted}
    run = kclassify.fit(tiny_arrays, run_dir="r", **options)
    assert f", {policy}, on CPU:0" in capsys.readouterr().out
    assert keras.config.dtype_policy().name == "float32"
    model = keras.saving.load_model(run.model_file, compile=False)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


@pytest.mark.parametrize(
    ("name", "value"), [("data_service", "grpc://127.0.0.1:9"), ("mixed_precision", True)]
)
def test_what_one_of_several_workers_refuses_the_others_are_told(
    tiny_arrays, tmp_path, monkeypatch, name, value
):
    told = []

    class Second(Replicas):
        def gather(self, one):
            told.append(one)
            return [one, one]

    monkeypatch.setattr("kclassify.runtime.processor_flags", lambda: {"avx2"})
    config = FitConfig(batch_size=8, **{name: value})
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    settled = Settled(config, source, run_facts(tiny_arrays, "fast", config, source))
    second = Second(("CPU:0",), cluster=Cluster(("a:1", "b:2"), 1))
    with (
        taken_place(tmp_path / "own", again="", began=0.0, verbose=False) as place,
        pytest.raises(InputError, match=f"`{name}` must"),
    ):
        _train(place, tmp_path / "run", second, lambda _: settled, ())
    assert str(told[-1]).startswith(f"`{name}` must")


def test_an_operation_without_a_repeatable_kernel_is_named(tiny_arrays, tiny_options, monkeypatch):
    import tensorflow as tf

    def fit(*_, **__):
        raise tf.errors.UnimplementedError(None, None, "no deterministic kernel of Foo\nat ...")

    monkeypatch.setattr("keras.Model.fit", fit)
    with pytest.raises(InputError, match=r"TensorFlow says: no deterministic kernel of Foo\. "):
        kclassify.fit(tiny_arrays, run_dir="r", deterministic=True, **tiny_options)


def test_the_manifest_holds_what_evaluate_needs_to_find_the_data(tiny_run):
    config = FitConfig()
    frame = pd.DataFrame({"path": [], "label": []})
    assert run_facts("digits", "fast", config, tiny_run.source)["reference"] == "digits"
    assert run_facts(frame, "fast", config, tiny_run.source)["reference"] is None
    json.dumps(tiny_run.config)


def test_a_taken_folder_is_compared_with_what_was_asked_for(tmp_path):
    run = kclassify.fit("digits", epochs=1, run_dir="r", verbose=False)
    with pytest.raises(InputError, match=r"epochs 1 instead of 30\. Give the same"):
        kclassify.fit("digits", run_dir="r", verbose=False)
    assert kclassify.fit("digits", epochs=1, run_dir="r", verbose=False) == run
