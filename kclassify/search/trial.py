"""One trial: a configuration that is trained in a run folder, from wherever it is to an epoch."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402

from kclassify.search.sessions import Sessions  # noqa: E402
from kclassify.training.callbacks import BestWeights, StopOnNaN  # noqa: E402
from kclassify.training.lock import sole_writer  # noqa: E402
from kclassify.training.resume import check_same, past_of  # noqa: E402
from kclassify.training.session import Session  # noqa: E402
from kclassify.training.time_budget import Plan  # noqa: E402
from kclassify.training.train import train  # noqa: E402

# A process whose parent has died, or that was told to stop, finishes its step and saves.
SECONDS_TO_WAIT = 60.0


@dataclass(frozen=True)
class Task:
    """What a trial has to do.

    Attributes:
        config: whose `epochs` the schedule is made for.
        folder: of the run; one that Hyperband trains longer goes on in its folder.
        until: the epoch to stop after.
    """

    config: FitConfig
    folder: Path
    until: int


@dataclass(frozen=True)
class Outcome:
    """How a trial went.

    Attributes:
        metrics: the best epoch's, of those at the full size of the images.
        state: ``"done"``, ``"diverged"``, ``"hopeless"`` or ``"unfinished"``.
        epochs: how many were trained in all.
    """

    metrics: dict[str, float]
    state: str
    epochs: int


class NoTimeLeft(Exception):  # noqa: N818
    """The search's time was over before the trial was; it is saved, and goes on another time."""


def run_task(
    task: Task,
    sessions: Sessions,
    *,
    facts: dict[str, Any],
    objective: Any,
    session: Session | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    end: float = math.inf,
) -> Outcome:
    """Train a trial from where it is, and return how it went.

    Args:
        task: what to train.
        sessions: of the data.
        facts: what all trials of the search have in common, as a run's `config.json` says it.
        objective: KerasTuner's, by which the best epoch is found.
        session: what to train, where it is not the one of the configuration.
        callbacks: Keras callbacks, called after kclassify's.
        end: when to stop in order, by `time.perf_counter`.

    Raises:
        NoTimeLeft: it was time to stop.
        Interrupted: by Ctrl-C or SIGTERM, after the step was saved.
    """
    run = Run(task.folder)
    run.path.mkdir(parents=True, exist_ok=True)
    facts = {**facts, "config": task.config.to_json()}
    found: list[tuple[BestWeights, StopOnNaN]] = []
    with _held(run):
        past = past_of(run, resume="auto")
        check_same(run, past, facts)
        if not run.config_file.exists():
            run.write(run.config_file, facts)
        session = session or sessions.get(task.config)
        plan = Plan(session.steps * task.config.epochs, task.until)
        train(
            run, sessions.source, session, plan, past, facts=facts, callbacks=callbacks, end=end,
            finish=lambda best, nan: found.append((best, nan)),
        )  # fmt: skip
    if not found:
        raise NoTimeLeft
    best, nan = found[0]
    # By its own early stopping, or at the end of what it was given.
    whole = best.stopped is not None or len(run.history) >= task.until
    return _outcome(run, objective, diverged=nan.step is not None, whole=whole)


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """Hold the run's folder; a process that is about to save and end is waited for."""
    patience = time.monotonic() + SECONDS_TO_WAIT
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(sole_writer(run))
                break
            except InputError:
                if time.monotonic() >= patience:
                    raise
                time.sleep(0.1)
        yield


def best_row(history: pd.DataFrame, objective: Any) -> pd.Series | None:
    """Return the best epoch by `objective`, of those with the largest images that were seen.

    An epoch whose loss is no number is none.
    """
    rows = history[history["loss"].map(math.isfinite) & history[objective.name].map(math.isfinite)]
    if "image_scale" in rows:
        rows = rows[rows["image_scale"] == rows["image_scale"].max()]
    if rows.empty:
        return None
    values = rows[objective.name]
    return rows.loc[values.idxmax() if objective.direction == "max" else values.idxmin()]


def _outcome(run: Run, objective: Any, *, diverged: bool, whole: bool) -> Outcome:
    history = run.history
    row = best_row(history, objective)
    if row is None:
        worst = 0.0 if objective.direction == "max" else math.inf
        return Outcome({objective.name: worst}, "diverged", len(history))
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    state = "diverged" if diverged else "done" if whole else "hopeless"
    return Outcome({name: float(row[name]) for name in names}, state, len(history))
