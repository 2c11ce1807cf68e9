"""A fit that was stopped, after any step and by whatever, ends as if it had not been."""

import json
import os
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError, StorageError
from kclassify.training.checkpoint import read_checkpoint

# 4 steps an epoch; a checkpoint after each of them.
STEPS = 4
CLOCK = ["seconds", "images_per_second"]


class PowerCut(BaseException):
    """Nothing catches it, so nothing is tidied up."""


class Stopper(keras.callbacks.Callback):
    """Do something after one step of the whole training, once."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            self.action()


def cut():
    raise PowerCut


@pytest.fixture(scope="module", autouse=True)
def single_steps():
    """Have each step be a call into TensorFlow, so that a fit can be stopped after any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kclassify.training.session.IMAGES_PER_EXECUTION", 1)
        yield


@pytest.fixture(scope="module")
def options(tiny_options):
    """Everything that has a state: dropout, augmentation, EMA, schedule, early stopping."""
    return {
        **tiny_options, "epochs": 4, "batch_size": 9, "augmentation": "flip_crop", "dropout": 0.5,
        "ema": 0.9, "early_stopping": 3, "schedule": "cosine", "checkpoint_every": 1e-9,
        "optimizer": "adam", "learning_rate": 0.01,
    }  # fmt: skip


def outcome(run):
    history = run.history.drop(columns=CLOCK)
    return run.summary["weights_sha256"], history.to_csv(), run.summary["best_epoch"]


def newest(path):
    return read_checkpoint(max(Path(path, "checkpoints").glob("step-*")))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_arrays, options):
    path = tmp_path_factory.mktemp("undisturbed") / "r"
    return outcome(kclassify.fit(tiny_arrays, run_dir=path, **options))


@pytest.mark.parametrize("step", [1, 3, STEPS, STEPS + 2, 4 * STEPS])
def test_after_a_power_cut_the_same_call_ends_with_the_same_weights(
    tiny_arrays, options, undisturbed, step
):
    with pytest.raises(PowerCut):
        kclassify.fit(tiny_arrays, run_dir="r", callbacks=[Stopper(step, cut)], **options)
    run = kclassify.fit(tiny_arrays, run_dir="r", **options)
    assert outcome(run) == undisturbed
    assert not run.checkpoints_dir.exists()
    assert not list(run.path.rglob(".*"))


@pytest.fixture(scope="module")
def skipping(options):
    """Nor is every epoch of the same images."""
    return {**options, "skip_learned": 0.4, "progressive": (0.5, 1.0)}


@pytest.fixture(scope="module")
def undisturbed_skipping(tmp_path_factory, tiny_arrays, skipping):
    path = tmp_path_factory.mktemp("skipping") / "r"
    return outcome(kclassify.fit(tiny_arrays, run_dir=path, **skipping))


@pytest.mark.parametrize("steps", [(1, 2 * STEPS), (2 * STEPS + 2,), (5, 3 * STEPS + 1, 4 * STEPS)])
def test_what_is_left_out_stays_so_after_a_power_cut(
    tiny_arrays, skipping, undisturbed_skipping, steps
):
    for step in steps:
        with pytest.raises(PowerCut):
            kclassify.fit(tiny_arrays, run_dir="r", callbacks=[Stopper(step, cut)], **skipping)
    run = kclassify.fit(tiny_arrays, run_dir="r", **skipping)
    assert outcome(run) == undisturbed_skipping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(tiny_arrays, options, undisturbed, number, capsys):
    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    stopper = Stopper(STEPS + 2, lambda: os.kill(os.getpid(), number))
    rare = {**options, "checkpoint_every": "1h"}
    with pytest.raises(expected) as stop:
        kclassify.fit(tiny_arrays, run_dir="r", callbacks=[stopper], **rare)
    if number == signal.SIGTERM:
        assert stop.value.code == 143
        assert "--run-dir r goes on" in capsys.readouterr().err
    assert newest("r").step == STEPS + 2
    assert outcome(kclassify.fit(tiny_arrays, run_dir="r", **options)) == undisturbed


def test_stopped_again_and_again_it_still_ends_the_same(tiny_arrays, options, undisturbed):
    for step in (1, 2, 3, 6, 7, 11):
        with pytest.raises(PowerCut):
            kclassify.fit(tiny_arrays, run_dir="r", callbacks=[Stopper(step, cut)], **options)
    assert outcome(kclassify.fit(tiny_arrays, run_dir="r", **options)) == undisturbed


def test_no_image_is_repeated_or_left_out(tiny_arrays, tiny_options):
    """The metric of the epoch that was cut counts each of its images once."""
    options = {**tiny_options, "batch_size": 9, "epochs": 2, "checkpoint_every": 1e-9}
    seen = []

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(int(self.model.metrics[0].count))

    with pytest.raises(PowerCut):
        kclassify.fit(
            tiny_arrays, run_dir="r", callbacks=[Count(), Stopper(STEPS + 2, cut)], **options
        )
    kclassify.fit(tiny_arrays, run_dir="r", callbacks=[Count()], **options)
    assert len(set(seen)) == 1
    assert len(seen) == 2


def test_when_training_has_ended_only_the_saving_is_made_again(
    tiny_arrays, options, undisturbed, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("kclassify.training.place.finish", lambda *_: cut())
        with pytest.raises(PowerCut):
            kclassify.fit(tiny_arrays, run_dir="r", **options)
    monkeypatch.setattr("keras.Model.train_step", None)
    assert outcome(kclassify.fit(tiny_arrays, run_dir="r", **options)) == undisturbed


def test_growing_images_and_a_users_callbacks_go_on(tiny_arrays, tiny_options):
    class Mine(keras.callbacks.Callback):
        """Counts epochs, and says which steps it was told of."""

        def __init__(self):
            super().__init__()
            self.state = {"epochs": 0, "mean": np.zeros(2)}
            self.batches, self.begun, self.ended = [], 0, 0

        def on_train_begin(self, logs=None):
            self.begun += 1

        def on_train_end(self, logs=None):
            self.ended += 1

        def on_train_batch_end(self, batch, logs=None):
            self.batches.append(batch)

        def on_epoch_end(self, epoch, logs=None):
            self.state = {"epochs": self.state["epochs"] + 1, "mean": self.state["mean"] + 1}

    options = {key: tiny_options[key] for key in ("augmentation", "verbose")}
    options |= {"model": "fastnet", "filters": (8,), "epochs": 4, "batch_size": 9}
    options |= {"progressive": (0.5, 1.0), "checkpoint_every": 1e-9}
    options |= {"validation_fraction": 0.2, "test_fraction": 0.2}
    early = keras.callbacks.EarlyStopping("val_loss", patience=9)
    whole = kclassify.fit(tiny_arrays, run_dir="whole", callbacks=[early, Mine()], **options)
    with pytest.raises(PowerCut):
        kclassify.fit(
            tiny_arrays, run_dir="r", callbacks=[early, Mine(), Stopper(STEPS + 2, cut)], **options
        )
    mine = Mine()
    run = kclassify.fit(tiny_arrays, run_dir="r", callbacks=[early, mine], **options)
    assert outcome(run) == outcome(whole)
    assert mine.state["epochs"] == 4
    assert mine.state["mean"].tolist() == [4, 4]
    assert mine.batches == [1, 2, 3, *range(STEPS), *range(STEPS)]
    assert (mine.begun, mine.ended) == (1, 1)


@pytest.fixture(scope="module")
def was_cut(tmp_path_factory, tiny_arrays, options):
    """A run that was cut after its second epoch; do not write into it."""
    path = tmp_path_factory.mktemp("cut") / "r"
    with pytest.raises(PowerCut):
        kclassify.fit(tiny_arrays, run_dir=path, callbacks=[Stopper(2 * STEPS + 1, cut)], **options)
    return path


@pytest.fixture
def half(was_cut):
    """A copy of it."""
    return Path(shutil.copytree(was_cut, "r"))


def content(path):
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 9}, "epochs 4 instead of 9"),
        ({"learning_rate": 0.02}, r"learning_rate 0\.01 instead of 0\.02"),
        ({"seed": 1}, "seed 0 instead of 1"),
        ({"resume": "never"}, "unfinished run"),
        ({"resume": "perhaps"}, "`resume` must be one of"),
        ({"callbacks": [keras.callbacks.EarlyStopping()]}, "begun with"),
    ],
    ids=["epochs", "rate", "seed", "never", "perhaps", "callbacks"],
)
def test_what_differs_is_refused_and_nothing_is_lost(tiny_arrays, options, half, changes, message):
    before = content(half)
    with pytest.raises(InputError, match=message):
        kclassify.fit(tiny_arrays, run_dir=half, **{**options, **changes})
    assert content(half) == before


def test_after_a_refusal_it_goes_on(tiny_arrays, options, undisturbed, half):
    with pytest.raises(InputError, match="begun with"):
        kclassify.fit(
            tiny_arrays, run_dir=half, callbacks=[keras.callbacks.EarlyStopping()], **options
        )
    assert outcome(kclassify.fit(tiny_arrays, run_dir=half, **options)) == undisturbed


def test_other_images_are_refused(tiny_arrays, options, half):
    images, labels = tiny_arrays
    with pytest.raises(InputError, match="other images or labels"):
        kclassify.fit((images ^ 1, labels), run_dir=half, **options)


@pytest.mark.parametrize("name", ["config.json", "history.csv", "environment.json", "samples.npz"])
def test_a_damaged_file_beside_the_checkpoints_is_written_anew(
    tiny_arrays, options, undisturbed, half, name
):
    (half / name).write_bytes(b"{")
    run = kclassify.fit(tiny_arrays, run_dir=half, **options)
    assert outcome(run) == undisturbed
    assert json.loads(run.config_file.read_text())["config"]["epochs"] == 4
    kclassify.export(run)


def test_of_a_damaged_checkpoint_the_one_before_is_taken(
    tiny_arrays, options, undisturbed, half, capsys
):
    newest = max(half.glob("checkpoints/step-*"))
    (newest / "arrays.npz").write_bytes(b"PK")
    run = kclassify.fit(tiny_arrays, run_dir=half, **{**options, "verbose": True})
    shown = capsys.readouterr().out
    assert "damaged checkpoint is passed over" in shown
    assert newest.name in shown
    assert outcome(run) == undisturbed


def test_with_no_whole_checkpoint_it_begins_again(tiny_arrays, options, undisturbed, half):
    for path in half.glob("checkpoints/step-*"):
        (path / "facts.json").unlink()
    assert outcome(kclassify.fit(tiny_arrays, run_dir=half, **options)) == undisturbed


def test_a_damaged_configuration_alone_is_refused(tiny_arrays, options):
    Path("r").mkdir()
    Path("r", "config.json").write_text('{"config": ')
    with pytest.raises(InputError, match=r"config\.json', which is not JSON"):
        kclassify.fit(tiny_arrays, run_dir="r", **options)


def test_a_finished_run_is_returned_as_it_is(tiny_arrays, options, capsys):
    options = {**options, "epochs": 1}
    run = kclassify.fit(tiny_arrays, run_dir="r", **options)
    written = run.model_file.stat().st_mtime_ns
    again = kclassify.fit(tiny_arrays, run_dir="r", **{**options, "verbose": True})
    assert "finished before: r is as it was" in capsys.readouterr().out
    assert again == run
    assert run.model_file.stat().st_mtime_ns == written
    with pytest.raises(InputError, match="holds a finished run"):
        kclassify.fit(tiny_arrays, run_dir="r", resume="never", **options)


def test_must_wants_a_run(tiny_arrays, options):
    with pytest.raises(InputError, match="resume='must'"):
        kclassify.fit(tiny_arrays, run_dir="r", resume="must", **options)


def test_a_full_disk_stops_it_in_a_sentence_and_it_goes_on(
    tiny_arrays, options, undisturbed, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        action = lambda: patch.setattr("numpy.savez", full)  # noqa: E731
        with pytest.raises(StorageError, match="no space is left"):
            kclassify.fit(tiny_arrays, run_dir="r", callbacks=[Stopper(6, action)], **options)
    assert newest("r").step == 5
    assert outcome(kclassify.fit(tiny_arrays, run_dir="r", **options)) == undisturbed


def test_a_time_budget_that_was_cut_goes_on_with_the_time_that_was_left(tiny_arrays, tiny_options):
    options = {key: value for key, value in tiny_options.items() if key != "epochs"}
    options |= {"time_budget": "15s", "checkpoint_every": 1e-9}
    with pytest.raises(PowerCut):
        kclassify.fit(tiny_arrays, run_dir="r", callbacks=[Stopper(9, cut)], **options)
    saved = newest("r")
    run = kclassify.fit(tiny_arrays, run_dir="r", **options)
    assert run.complete
    assert len(run.history) > saved.facts["epoch"]


def test_what_auto_chose_stays_chosen(tiny_arrays, options, monkeypatch):
    options = {**options, "batch_size": "auto"}
    with pytest.raises(PowerCut):
        kclassify.fit(tiny_arrays, run_dir="r", callbacks=[Stopper(9, cut)], **options)
    chosen = newest("r").facts["manifest"]["config"]["batch_size"]
    with pytest.raises(InputError, match="epochs 4 instead of 9"):
        kclassify.fit(tiny_arrays, run_dir="r", **{**options, "epochs": 9})
    run = kclassify.fit(tiny_arrays, run_dir="r", **options)
    assert run.config["config"]["batch_size"] == chosen
    # Finished: another machine would find another one, and nobody asks.
    monkeypatch.setattr("kclassify.training.batch_size.largest_batch", None)
    assert kclassify.fit(tiny_arrays, run_dir="r", **options) == run


@pytest.mark.parametrize("changes", [{}, {"skip_learned": 0.4}])
def test_a_callback_whose_state_begins_with_the_training_goes_on(
    tiny_arrays, tiny_options, changes
):
    class Mine(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.count = 0

        def on_train_batch_end(self, batch, logs=None):
            self.count += 1

        @property
        def state(self):
            return {"count": self.count}

        @state.setter
        def state(self, state):
            self.count = state["count"]

    options = {**tiny_options, "batch_size": 9, "epochs": 3, "checkpoint_every": 1e-9, **changes}
    with pytest.raises(PowerCut):
        kclassify.fit(
            tiny_arrays, run_dir="r", callbacks=[Mine(), Stopper(STEPS + 2, cut)], **options
        )
    mine = Mine()
    kclassify.fit(tiny_arrays, run_dir="r", callbacks=[mine], **options)
    assert mine.count == 3 * STEPS
