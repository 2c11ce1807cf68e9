"""A job: what the trainings of one trial need to know, so that any process can make them."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kclassify import runtime
from kclassify.config import FitConfig
from kclassify.runs import Run
from kclassify.search.budget import Budget, epoch_seconds
from kclassify.search.config import OBJECTIVES
from kclassify.search.folder import SearchFolder

runtime.prepare()

import keras_tuner  # noqa: E402

from kclassify.search.hopeless import Hopeless  # noqa: E402
from kclassify.search.hypermodel import HyperModel, config_or_session  # noqa: E402
from kclassify.search.sessions import Sessions  # noqa: E402
from kclassify.search.trial import Outcome, Task, run_task  # noqa: E402
from kclassify.training.session import Session  # noqa: E402

MEASURING_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """The trainings of one trial.

    Attributes:
        trial: its id.
        search: the folder of the search.
        facts: what a run's `config.json` says, but for the configuration.
        config: of the trial, as JSON types.
        folder: of its run, below the search's.
        budget: how long its whole training is.
        last: the unit of the budget to stop at; 0 for the end.
        executions: how often it is trained, with seeds of their own.
        objective: what it is judged by.
        hopeless: whether to stop it where it is worse than others were.
    """

    trial: str
    search: str
    facts: dict[str, Any]
    config: dict[str, Any]
    folder: str
    budget: Budget
    last: int
    executions: int
    objective: str
    hopeless: bool

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the job that `to_text` gave."""
        values = json.loads(text)
        return cls(**{**values, "budget": Budget(**values["budget"])})


def objective_of(name: str) -> keras_tuner.Objective:
    """Return what is best, as KerasTuner says it."""
    return keras_tuner.Objective(name, OBJECTIVES[name])


def measured_epoch(sessions: Sessions, config: FitConfig) -> float:
    """Return the seconds of an epoch of a configuration, measured on its first steps."""
    splits = sessions.source.splits
    pace = sessions.pace(config, seconds=MEASURING_SECONDS)
    return epoch_seconds(
        pace, config, images=len(splits["train"]), validation=len(splits["validation"])
    )


def run_job(
    job: Job,
    sessions: Sessions,
    *,
    end: float,
    hypermodel: HyperModel | None = None,
    hp: Any = None,
) -> dict[str, Any]:
    """Make the trainings of a job and return what they came to.

    Args:
        job: what to train.
        sessions: of the data.
        end: when to stop in order, by `time.perf_counter`.
        hypermodel: the user's own, which makes of `hp` what to train.
        hp: KerasTuner's hyper-parameters of the trial.

    Raises:
        NoTimeLeft: it was time to stop.
    """
    outcomes = []
    for number in range(job.executions):
        config, session = FitConfig.from_json(job.config), None
        config = config.replace(seed=config.seed + number)
        if hypermodel is not None:
            config, session = config_or_session(hypermodel, hp, config, sessions.source)
        folder = _folder(job, number)
        config = config.replace(epochs=_epochs(job, sessions, config, folder))
        task = Task(config, folder, _last(job, config))
        outcomes.append(_run(job, sessions, task, session=session, end=end))
    return _summary(outcomes, job.objective) | {"own_model": session is not None}


def _folder(job: Job, number: int) -> Path:
    folder = Path(job.search) / job.folder
    return folder.with_name(folder.name + f"-{number}" * bool(number))


def _epochs(job: Job, sessions: Sessions, config: FitConfig, folder: Path) -> int:
    if job.budget.epochs is not None:
        return job.budget.epochs
    begun = Run(folder)
    if begun.config_file.is_file():
        # Another process, or another minute, would measure another number.
        return int(begun.config["config"]["epochs"])
    return job.budget.epochs_of(measured_epoch(sessions, config))


def _last(job: Job, config: FitConfig) -> int:
    return job.budget.until(job.last, config.epochs) if job.last else config.epochs


def _run(
    job: Job, sessions: Sessions, task: Task, *, session: Session | None, end: float
) -> Outcome:
    objective = objective_of(job.objective)
    return run_task(
        task,
        sessions,
        facts=job.facts,
        session=session,
        objective=objective,
        callbacks=[Hopeless(objective, _curves(job))] if job.hopeless else [],
        end=end,
    )


def _curves(job: Job) -> list[list[float]]:
    """Return the objective of each epoch, of every trial of the search that has ended."""
    search = SearchFolder(Path(job.search))
    ended = [search.outcome(path.name) for path in sorted(search.path.glob("trials/*"))]
    # One that was tried again has more than one run.
    runs = [Run(search.path / outcome["run"]) for outcome in ended if outcome]
    return [run.history[job.objective].tolist() for run in runs]


def _summary(outcomes: Sequence[Outcome], objective: str) -> dict[str, Any]:
    shared = [name for name in outcomes[0].metrics if all(name in one.metrics for one in outcomes)]
    metrics = {name: statistics.fmean(one.metrics[name] for one in outcomes) for name in shared}
    values = [one.metrics[objective] for one in outcomes]
    return {
        "state": next((one.state for one in outcomes if one.state != "done"), "done"),
        "epochs": outcomes[0].epochs,
        "metrics": metrics,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
    }
