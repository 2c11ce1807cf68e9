"""Running the trials of a search, one after another, until the oracle has no more."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kclassify import runtime
from kclassify.checks import OutOfMemoryError, StorageError
from kclassify.config import FitConfig
from kclassify.search.budget import Budget
from kclassify.search.config import SearchConfig
from kclassify.search.folder import SearchFolder
from kclassify.search.space import Dimension, config_of

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.search.child import ProcessDiedError  # noqa: E402
from kclassify.search.job import Job  # noqa: E402
from kclassify.search.oracles import COMPLETED, FAILED, IDLE, INVALID, STOPPED  # noqa: E402
from kclassify.search.sessions import Sessions  # noqa: E402
from kclassify.search.trial import NoTimeLeft  # noqa: E402

IDLE_SECONDS = 0.2
RUN, SMALLER_RUN = "run", "run-half-batch"
# What half the batch may help against.
MEMORY = (
    MemoryError, OutOfMemoryError, tf.errors.ResourceExhaustedError, ProcessDiedError,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What all the trials of a search share.

    Attributes:
        config: how it searches.
        folder: where.
        base: what a trial has where the space says nothing.
        dimensions: the space.
        facts: what a run's `config.json` says, but for the configuration.
        sessions: of the data.
        hypermodel: the user's own space, where there is one.
        budget: how long the whole training of a trial is.
        began: when the search began, by `time.perf_counter`; as much earlier as it ran before.
        end: when to stop in order, by the same clock.
        epoch: seconds that an epoch of `base` takes.
    """

    config: SearchConfig
    folder: SearchFolder
    base: FitConfig
    dimensions: tuple[Dimension, ...]
    facts: dict[str, Any]
    sessions: Sessions
    hypermodel: Any = None
    budget: Budget = field(default=Budget(epochs=1))
    began: float = 0.0
    end: float = float("inf")
    epoch: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where a trial is trained, and from which unit of its budget to which.

    Attributes:
        root: the id of the trial in whose folder it began; Hyperband trains it on there.
        first: the unit at which it goes on.
        last: the unit at which it stops; 0 for the end of the budget.
    """

    root: str
    first: int
    last: int


# It gets KerasTuner's hyper-parameters too, for a hyper-model of the user's.
Execute = Callable[[Job, Any], dict[str, Any]]


def run_trials(
    setting: Setting,
    oracle: Any,
    execute: Execute,
    *,
    tuner_id: str,
    ended: Callable[[str], None],
) -> None:
    """Run what the oracle wants to be tried, until it wants no more or the time is over.

    Args:
        setting: of the search.
        oracle: KerasTuner's, or its client.
        execute: makes the trainings of a job, and returns what they came to.
        tuner_id: who asks.
        ended: called with the id of each trial that has ended.

    Raises:
        StorageError: the disk is full; the search goes on when there is room.
        Interrupted: by Ctrl-C or SIGTERM; all is saved.
    """
    while (trial := oracle.create_trial(tuner_id)).status != STOPPED:
        if trial.status == IDLE:
            time.sleep(IDLE_SECONDS)
            continue
        try:
            _run_trial(setting, oracle, trial, execute)
        except NoTimeLeft:
            return
        ended(trial.trial_id)


def _run_trial(setting: Setting, oracle: Any, trial: Any, execute: Execute) -> None:
    """Run a trial, whatever becomes of it, and tell the oracle."""
    id, name = trial.trial_id, setting.config.objective
    try:
        found = setting.folder.outcome(id) or _execute(setting, oracle, trial, execute)
        oracle.update_trial(id, {name: found["metrics"][name]})
        trial.status = COMPLETED
    except (StorageError, NoTimeLeft):
        raise
    except Exception as error:
        trial.message = "".join(traceback.format_exception_only(error)).strip()
        trial.status = INVALID if isinstance(error, MEMORY) else FAILED
        setting.folder.write(setting.folder.error_file(id), traceback.format_exc())
    oracle.end_trial(trial)


def _execute(setting: Setting, oracle: Any, trial: Any, execute: Execute) -> dict[str, Any]:
    began = time.perf_counter()
    job = job_of(setting, oracle, trial)
    found = execute(job, trial.hyperparameters)
    found |= {"seconds": round(time.perf_counter() - began, 3), "run": job.folder}
    setting.folder.write(setting.folder.outcome_file(trial.trial_id), found)
    return found


def job_of(setting: Setting, oracle: Any, trial: Any) -> Job:
    """Return what a trial has to train; with half the batch where that has failed before."""
    place = place_of(oracle, trial)
    config = config_of(setting.base, setting.dimensions, trial.hyperparameters.values)
    name = RUN
    if setting.folder.error_file(place.root).exists():
        config, name = config.replace(batch_size=max(1, config.batch_size // 2)), SMALLER_RUN
    folder = setting.folder.trial_dir(place.root) / name
    return Job(
        trial=trial.trial_id,
        search=str(setting.folder),
        facts=setting.facts,
        config=config.to_json(),
        folder=str(folder.relative_to(setting.folder.path)),
        budget=setting.budget,
        last=place.last,
        executions=setting.config.executions_per_trial,
        objective=setting.config.objective,
        hopeless=setting.config.tuner != "hyperband",
    )


def place_of(oracle: Any, trial: Any) -> Place:
    """Return where a trial is trained; Hyperband says from which one it goes on."""
    values = trial.hyperparameters.values
    first, last = values.get("tuner/initial_epoch", 0), values.get("tuner/epochs", 0)
    root = trial.trial_id
    while "tuner/trial_id" in values:
        root = values["tuner/trial_id"]
        values = oracle.get_trial(root).hyperparameters.values
    return Place(root, first, last)
