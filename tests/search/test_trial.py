import pytest

from kclassify.config import resolve
from kclassify.data.sources import load_source, prepare
from kclassify.presets import PRESETS
from kclassify.runs import Run
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
