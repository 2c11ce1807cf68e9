"""A search from data to the best configuration, and through whatever may stop it."""

import json
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import kclassify
from kclassify.checks import InputError, OutOfMemoryError, StorageError
from kclassify.config import FitConfig
from kclassify.search.config import TUNERS
from kclassify.search.oracles import ORACLES
from kclassify.training.interruption import Interrupted

CLOCK = ["seconds"]


class PowerCut(BaseException):
    """Nothing catches it, so nothing is tidied up."""


def tune(data, asked, **changes):
    return kclassify.tune(data, **{**asked, **changes})


def without_clock(search):
    """Return the trials in their own order: of two equal ones, the quicker is first."""
    return search.trials.drop(columns=CLOCK).sort_values("trial", ignore_index=True)


def test_every_oracle_has_a_name():
    assert set(TUNERS) == set(ORACLES)


@pytest.mark.parametrize("tuner", TUNERS)
def test_every_tuner_finds_a_configuration_that_fit_takes(tuner, tiny_arrays, asked):
    found = tune(tiny_arrays, asked, tuner=tuner, max_trials=4)
    assert len(found.trials) == 4
    assert (found.trials["state"] == "done").all()
    best = found.trials["val_accuracy"].iloc[0]
    assert best == found.trials["val_accuracy"].max()
    for name in ("trials.csv", "best.json", "report.html", "search.json", "state.json"):
        assert Path("saved_models/s", name).is_file()
    config = FitConfig.from_json(json.loads(Path("saved_models/s/best.json").read_text()))
    assert config == found.best
    run = kclassify.fit(tiny_arrays, run_dir="r", verbose=False, **config.to_json())
    if tuner != "hyperband":  # which may have trained it for one of its two epochs
        assert run.summary["val_accuracy"] == pytest.approx(best)


def test_a_trial_is_what_fit_would_have_trained(tiny_arrays, asked):
    """The third session is the first one, used again."""
    found = tune(tiny_arrays, asked, space={"learning_rate": [0.1, 0.2, 0.3]})
    for trial in found.trials.itertuples():
        run = kclassify.Run(found.folder.path / trial.run)
        config = run.config["config"]
        alone = kclassify.fit(tiny_arrays, run_dir=f"alone-{trial.trial}", verbose=False, **config)
        clock = ["seconds", "images_per_second"]
        pd.testing.assert_frame_equal(run.history.drop(columns=clock),
                                      alone.history.drop(columns=clock))  # fmt: skip


class Cut(keras.callbacks.Callback):
    """Stop everything after so many steps of the search."""

    left = 0

    def on_train_batch_end(self, batch, logs=None):
        type(self).left -= 1
        if type(self).left == 0:
            raise PowerCut


@pytest.fixture
def cut_after(monkeypatch):
    """Have the search be cut after some steps, once."""
    from kclassify.search import trial

    def arrange(steps):
        Cut.left = steps
        train = trial.train

        def with_cut(*args, callbacks, **options):
            return train(*args, callbacks=[*callbacks, Cut()], **options)

        monkeypatch.setattr(trial, "train", with_cut)

    return arrange


# One of them has networks of two sizes.
SPACES = {"random": {"filters": [2, 4], "learning_rate": [0.1, 0.2]}, "hyperband": {}, "grid": {}}


@pytest.fixture(scope="module", params=SPACES)
def whole(request, tmp_path_factory, tiny_arrays, asked):
    """A search that nobody disturbed, and its options."""
    space = SPACES[request.param] or asked["space"]
    options = {**asked, "tuner": request.param, "space": space, "max_trials": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kclassify.training.session.IMAGES_PER_EXECUTION", 1)
        place = tmp_path_factory.mktemp("whole")
        yield kclassify.tune(tiny_arrays, **{**options, "directory": place}), options


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_a_search_that_was_killed_goes_on_and_finds_the_same(steps, whole, tiny_arrays, cut_after):
    expected, options = whole
    cut_after(steps)
    with pytest.raises(PowerCut):
        kclassify.tune(tiny_arrays, **options)
    found = kclassify.tune(tiny_arrays, **options)
    pd.testing.assert_frame_equal(without_clock(found), without_clock(expected))


def test_a_finished_search_is_not_run_again(tiny_arrays, asked, finished, monkeypatch):
    shutil.copytree(finished.folder.path, "saved_models/s")
    monkeypatch.setattr("kclassify.search.job.run_task", None)
    pd.testing.assert_frame_equal(tune(tiny_arrays, asked).trials, finished.trials)


def test_a_search_can_be_made_longer(tiny_arrays, asked, monkeypatch):
    tune(tiny_arrays, asked, time_budget="1h")
    assert len(tune(tiny_arrays, asked, time_budget="2h").trials) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {"filters": [2, 6]}}, r"another space \("),
        ({"tuner": "grid", "max_trials": 4}, "tuner 'random' instead of 'grid'"),
        ({"batch_size": 4}, "batch_size 8 instead of 4"),
        ({"epochs": 3}, "epochs 2 instead of 3"),
        ({"objective": "val_loss"}, "objective"),
    ],
)
def test_another_search_is_refused_with_what_differs(change, message, tiny_arrays, asked, finished):
    shutil.copytree(finished.folder.path, "saved_models/s")
    before = Path("saved_models/s/state.json").read_bytes()
    with pytest.raises(InputError, match=message):
        tune(tiny_arrays, asked, **change)
    assert Path("saved_models/s/state.json").read_bytes() == before


def test_a_search_goes_on_with_more_trials(tiny_arrays, asked, finished, capsys):
    shutil.copytree(finished.folder.path, "saved_models/s")
    again = tune(tiny_arrays, asked, verbose=True)
    assert "finished before" in capsys.readouterr().out
    assert len(again.trials) == 3
    more = tune(tiny_arrays, asked, max_trials=4)
    assert len(more.trials) == 4
    kept = more.trials[more.trials["trial"].isin(again.trials["trial"])]
    assert sorted(kept["seconds"]) == sorted(again.trials["seconds"])


def test_other_images_are_refused(tiny_arrays, asked, finished):
    shutil.copytree(finished.folder.path, "saved_models/s")
    images, labels = tiny_arrays
    with pytest.raises(InputError, match="other images or labels"):
        tune((images[::-1].copy(), labels), asked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuner": "bayes"}, "Did you mean 'bayesian'"),
        ({"objective": "val_acc"}, "Did you mean 'val_accuracy'"),
        ({"max_trials": 0}, "`max_trials` must be a whole number of at least 1"),
        ({"executions_per_trial": 0}, "executions_per_trial"),
        ({"time_budget": "soon"}, "a time such as"),
        ({"time_budget": "0.0001s"}, "`time_budget` must be at least an epoch"),
        ({"trial_time": -1}, "a time such as"),
        ({"train_fraction": 0}, "above 0, up to 1"),
        ({"train_fraction": 0.01}, "`train_fraction` must leave a batch of 8 images"),
        ({"space": {"learning_rate": [0.1]}}, "leave something to choose"),
        ({"tuner": "grid"}, "at least the size of the grid, 4"),
        ({"workers": 0}, "workers"),
        ({"chief": "nowhere"}, "a host and a port"),
        ({"chief": "127.0.0.1:8000", "project_name": None}, "`project_name` must be given"),
        ({"tuner_id": "one"}, "`chief` must be given"),
        ({"no_such": 1}, "no_such"),
        ({"hypermodel": lambda hp: {}, "space": {}}, "left out with a hypermodel"),
        ({"hypermodel": lambda hp: {}, "space": None}, "must have hyper-parameters"),
        ({"hypermodel": lambda hp: hp.Int("a", 1, 2), "space": None}, "must return a compiled"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(change, message, tiny_arrays, asked):
    with pytest.raises(InputError, match=message):
        tune(tiny_arrays, asked, **change)
    assert not Path("saved_models").exists()


def test_a_folder_that_holds_something_else_is_refused(tiny_arrays, asked):
    Path("saved_models/s").mkdir(parents=True)
    Path("saved_models/s/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        tune(tiny_arrays, asked)


def test_one_process_at_a_time(tiny_arrays, asked, finished):
    from kclassify.training.lock import sole_writer

    shutil.copytree(finished.folder.path, "saved_models/s")
    with (
        sole_writer(kclassify.Run(Path("saved_models/s"))),
        pytest.raises(InputError, match=r"`project_name` must be .* process"),
    ):
        tune(tiny_arrays, asked)


def test_trials_are_given_the_time_that_the_search_has(tiny_arrays, asked):
    options = {name: value for name, value in asked.items() if name != "epochs"}
    found = tune(tiny_arrays, options, time_budget="1h", max_trials=2, trial_time="0.05s")
    assert (found.trials["epochs"] >= 1).all()
    assert found.best.epochs == found.trials["epochs"].iloc[0]
    assert "time_budget='1s'" in found.command


def test_trials_are_trained_on_a_share_of_the_images_and_the_best_on_all(
    tiny_arrays, asked, capsys
):
    from kclassify.search.sessions import Sessions

    seen = []

    class Watched(Sessions):
        def get(self, config):
            seen.append({split: len(part) for split, part in self.source.splits.items()})
            return super().get(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kclassify.search.tune.Sessions", Watched)
        found = tune(tiny_arrays, asked, train_fraction=0.5, verbose=True)
    # Of 39, 13 of each class.
    assert {one["train"] for one in seen} == {18}
    assert {one["validation"] for one in seen} == {9}
    assert "on 18 training images" in capsys.readouterr().out
    assert "train_fraction" not in found.command
    with pytest.raises(InputError, match=r"train_fraction 0\.5 instead of 1"):
        tune(tiny_arrays, asked)


def test_the_time_ends_a_trial_which_goes_on_another_time(tiny_arrays, asked, monkeypatch):
    """The clock is over after the first trial."""
    from kclassify.search import tune as module

    settled = module.settled

    def short(setting, **given):
        from dataclasses import replace

        return replace(settled(setting, **given), end=0.0)

    with monkeypatch.context() as patch:
        patch.setattr(module, "settled", short)
        found = tune(tiny_arrays, asked)
    assert found.best is None
    assert "no trial has ended yet" in str(found)
    assert len(tune(tiny_arrays, asked).trials) == 3


def test_seeds_give_a_spread(tiny_arrays, asked):
    found = tune(tiny_arrays, asked, executions_per_trial=2, max_trials=2)
    assert found.trials["spread"].notna().all()
    runs = sorted(path.name for path in Path("saved_models/s/trials/0").iterdir())
    assert runs == ["outcome.json", "run", "run-1"]
    seeds = [kclassify.Run(Path("saved_models/s/trials/0", name)).config["config"]["seed"]
             for name in ("run", "run-1")]  # fmt: skip
    assert seeds == [0, 1]


def test_a_trial_that_raises_fails_alone_and_three_in_a_row_stop_it(tiny_arrays, asked):
    seen = []

    def failing(hp):
        seen.append(hp.Choice("x", list(range(8))))
        # The first builds it are those that look for its space.
        if len(seen) > 2:
            raise RuntimeError("broken on purpose")
        return {}

    with pytest.raises(InputError, match="three in a row failed, the last by RuntimeError: broken"):
        tune(tiny_arrays, asked, space=None, hypermodel=failing, max_trials=8)
    errors = sorted(Path("saved_models/s/trials").glob("*/error.txt"))
    assert len(errors) == 3
    assert "Traceback" in errors[0].read_text()


def test_a_value_that_the_network_does_not_take_fails_its_trial(tiny_arrays, asked):
    found = tune(tiny_arrays, asked, tuner="grid", max_trials=3, space={"filters": [4, -1, 8]})
    assert sorted(found.trials["state"]) == ["done", "done", "failed"]
    assert found.trials["state"].iloc[-1] == "failed"


def test_a_rate_that_diverges_is_the_last(tiny_arrays, asked):
    found = tune(tiny_arrays, asked, tuner="grid", max_trials=2, optimizer="sgd",
                 space={"learning_rate": [0.1, 1e30]})  # fmt: skip
    assert found.trials["state"].tolist() == ["done", "diverged"]
    assert found.trials["learning_rate"].tolist() == [0.1, 1e30]


@pytest.mark.parametrize("kind", [MemoryError, OutOfMemoryError])
def test_memory_that_runs_out_is_tried_once_more_with_half_the_batch(
    tiny_arrays, asked, monkeypatch, kind
):
    from kclassify.search import job

    run_task, calls = job.run_task, []

    def short(task, *args, **options):
        calls.append(task.config.batch_size)
        if len(calls) == 1:
            raise kind("out of memory on purpose")
        return run_task(task, *args, **options)

    monkeypatch.setattr(job, "run_task", short)
    found = tune(tiny_arrays, asked)
    assert calls[:2] == [8, 4]
    assert (found.trials["state"] == "done").all()
    first = found.trials.set_index("trial").loc["0"]
    assert first["run"] == "trials/0/run-half-batch"


def test_a_full_disk_stops_it_and_it_goes_on(tiny_arrays, asked, monkeypatch):
    from kclassify.search import job

    def full(*_, **__):
        raise StorageError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(job, "run_task", full)
        with pytest.raises(StorageError):
            tune(tiny_arrays, asked)
    assert len(tune(tiny_arrays, asked).trials) == 3


def compiled(hp):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dense(hp.Int("units", 4, 8, step=4), "relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(hp.Choice("rate", [0.01, 0.001])), loss, metrics=["accuracy"]
    )
    return model


def test_a_model_of_the_users_own_is_searched(tiny_arrays, asked):
    found = tune(tiny_arrays, asked, space=None, hypermodel=compiled, tuner="grid", max_trials=4)
    assert sorted(zip(found.trials["units"], found.trials["rate"], strict=True)) == [
        (4, 0.001), (4, 0.01), (8, 0.001), (8, 0.01)
    ]  # fmt: skip
    assert (found.trials["state"] == "done").all()


def test_arguments_of_fit_are_searched_define_by_run(tiny_arrays, asked):
    def space(hp):
        deep = hp.Boolean("deep")
        with hp.conditional_scope("deep", [True]):
            units = hp.Choice("units", [4, 8]) if deep else None
        return {"dense_units": units}

    found = tune(tiny_arrays, asked, space=None, hypermodel=space, tuner="grid", max_trials=3)
    assert len(found.trials) == 3
    assert found.trials["units"].isna().sum() == 1


@pytest.mark.parametrize("wrong", ["not compiled", "other classes"])
def test_a_model_that_does_not_fit_is_named(wrong, tiny_arrays, asked):
    def model(hp):
        found = compiled(hp)
        if wrong == "not compiled":
            return keras.Model(found.inputs, found.outputs)
        return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
                                 keras.layers.Dense(7)])  # fmt: skip

    with pytest.raises(InputError, match="must build compiled models"):
        tune(tiny_arrays, asked, space=None, hypermodel=model)


def test_the_test_images_are_not_looked_at(tiny_arrays, asked, monkeypatch):
    images, labels = tiny_arrays
    data = {"train": (images[:40], labels[:40]), "validation": (images[40:50], labels[40:50])}
    with_test = {**data, "test": (images[50:], labels[50:])}
    others = {**data, "test": (np.zeros_like(images[50:]), labels[50:])}
    first = tune(with_test, asked, project_name="one")
    second = tune(others, asked, project_name="two")
    pd.testing.assert_frame_equal(without_clock(first), without_clock(second))


def test_ctrl_c_keeps_what_was_found_and_says_how_to_go_on(tiny_arrays, asked, monkeypatch):
    from kclassify.search import job

    run_task, calls = job.run_task, []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted(signal.SIGINT)
        return run_task(*args, **options)

    monkeypatch.setattr(job, "run_task", interrupted)
    options = {**asked, "project_name": None}
    with pytest.raises(KeyboardInterrupt, match="--project-name arrays-search-"):
        kclassify.tune(tiny_arrays, **options)
    (folder,) = Path("saved_models").iterdir()
    assert len(pd.read_csv(folder / "trials.csv")) == 2
    found = kclassify.tune(tiny_arrays, **{**options, "project_name": folder.name})
    assert len(found.trials) == 3


def test_the_command_searches(capsys):
    from kclassify import cli

    Path("space.yaml").write_text("label_smoothing: [0.0, 0.1, 0.2]\n")
    words = ["--tuner", "random", "--max-trials", "2", "--epochs", "1", "--filters", "4"]
    command = ["tune", "digits", *words, "--space", "space.yaml", "--project-name", "mine"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "next: kclassify fit digits" in shown
    assert cli.main(command) == 0
    assert cli.main([*command, "--tuner", "gird"]) == 2
    assert "Did you mean 'grid'" in capsys.readouterr().err
