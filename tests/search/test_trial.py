import pytest

from kclassify.config import resolve
from kclassify.data.sources import load_source, prepare
from kclassify.presets import PRESETS
from kclassify.runs import Run
from kclassify.search import job
from kclassify.search.budget import Budget
from kclassify.search.folder import SearchFolder
from kclassify.search.job import objective_of
from kclassify.search.sessions import Sessions
from kclassify.search.trial import NoTimeLeft, Task, run_task


def test_a_trial_whose_time_is_over_saves_its_step_and_goes_on_another_time(
    tiny_arrays, tiny_options, tmp_path
):
    given = {
        name: value for name, value in tiny_options.items() if name not in ("preset", "verbose")
    }
    config = resolve(next(iter(PRESETS)), {**given, "epochs": 2})
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    task, common = (
        Task(config, tmp_path / "run", 2),
        {"facts": {}, "objective": objective_of("val_accuracy")},
    )
    with pytest.raises(NoTimeLeft):
        run_task(task, Sessions(source), **common, end=0.0)
    assert len(list(Run(task.folder).checkpoints_dir.glob("step-*"))) == 1
    assert run_task(task, Sessions(source), **common).epochs == 2


def test_a_trial_of_a_time_goes_on_with_the_epochs_that_it_was_begun_with(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "measured_epoch", lambda *_: 0.5)
    made = make_job(tmp_path, budget=Budget(seconds=10.0))
    assert job._epochs(made, None, None, tmp_path / "trials" / "0" / "run") == 20
    run = Run(tmp_path / "trials" / "0" / "run")
    run.path.mkdir(parents=True)
    facts = {"data": "x", "class_names": ["a"], "input_shape": [8, 8, 3]}
    facts |= {"preset": "fast", "sizes": {}}
    run.write(run.config_file, {**facts, "config": {"epochs": 17}})
    assert job._epochs(made, None, None, run.path) == 17


def test_the_curves_are_of_the_runs_that_counted(tmp_path):
    """The first run of a trial that was tried again may have no history."""
    search = SearchFolder(tmp_path)
    (tmp_path / "trials" / "0" / "run").mkdir(parents=True)
    again = Run(tmp_path / "trials" / "0" / "run-half-batch")
    again.path.mkdir()
    again.history_file.write_text("epoch,val_accuracy\n1,0.5\n2,0.75\n")
    outcome = {"state": "done", "epochs": 2, "seconds": 1.0, "metrics": {}, "own_model": False}
    search.write(search.outcome_file("0"), {**outcome, "run": "trials/0/run-half-batch"})
    assert job._curves(make_job(tmp_path)) == [[0.5, 0.75]]


def make_job(folder, budget=None):
    return job.Job(
        trial="1", search=str(folder), facts={}, config={}, folder="trials/1/run",
        budget=budget or Budget(epochs=2), last=0, executions=1, objective="val_accuracy",
        hopeless=True,
    )  # fmt: skip
