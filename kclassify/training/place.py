"""A training in a run folder: held for one process, gone on with, and finished."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from kclassify import runtime
from kclassify.checks import make_folder, parse_duration
from kclassify.data.spec import Source
from kclassify.runs import Run
from kclassify.training.beginning import write_beginning
from kclassify.training.interruption import giving_way
from kclassify.training.lock import sole_writer, taken

runtime.prepare()

import keras  # noqa: E402

from kclassify.training.callbacks import Progress  # noqa: E402
from kclassify.training.ending import finish  # noqa: E402
from kclassify.training.notes import description, notes, say, silent  # noqa: E402
from kclassify.training.resume import Past, check_same, past_of  # noqa: E402
from kclassify.training.session import Session  # noqa: E402
from kclassify.training.time_budget import (  # noqa: E402
    Deadline,
    Plan,
    estimate,
    whole_epochs,
    within_budget,
)
from kclassify.training.train import train  # noqa: E402


@dataclass(frozen=True)
class Place:
    """A run folder that this process may write to, with what an earlier one left in it.

    Attributes:
        run: the run.
        new: whether its folder was not there yet.
        past: what to go on from.
        began: when the work began, by `time.perf_counter`; a time budget counts from there.
        verbose: whether it is shown what is done.
        again: what goes on with it, in words.
        held: what keeps other processes out.
    """

    run: Run
    new: bool
    past: Past
    began: float
    verbose: bool
    again: str
    held: ExitStack = field(repr=False)

    @property
    def tell(self) -> Callable[..., None]:
        """Print a line, or do not."""
        return say if self.verbose else silent

    def take(self) -> None:
        """Keep other processes out of the folder, which is there."""
        before = self.held.enter_context(sole_writer(self.run))
        if before:
            self.tell(f"note      {before} ended before it had finished {self.run}")

    def finished(self, facts: dict[str, Any]) -> bool:
        """Tell whether the run of `facts` was finished before.

        Raises:
            InputError: the folder has a run of other facts.
        """
        check_same(self.run, self.past, facts)
        if self.run.complete:
            weights = self.run.summary["weights_sha256"]
            self.tell(f"finished before: {self.run} is as it was, with weights {weights[:12]}")
        return self.run.complete

    def begin(self, facts: dict[str, Any], source: Source) -> None:
        """Make the folder, if it was not there, and write what does not change.

        Raises:
            InputError: another process has made it in the meantime.
        """
        if self.new:
            self._make_folder()
            self.take()
        write_beginning(self.run, facts, source)

    def _make_folder(self) -> None:
        try:
            make_folder("run_dir", self.run.path)
        except FileExistsError as error:
            raise taken(self.run) from error


@contextmanager
def taken_place(
    path: os.PathLike[str], *, again: str, resume: str = "auto", began: float, verbose: bool
) -> Iterator[Place]:
    """Hold a run folder, if it is there, and read what is left in it.

    Args:
        path: of the folder.
        again: what goes on with a training that is stopped, in words.
        resume: as `fit` takes it.
        began: when the work began, by `time.perf_counter`.
        verbose: whether it is shown what is done.

    Raises:
        InputError: another process holds it, or `resume` does not agree with what it has.
    """
    run = Run(Path(path))
    with ExitStack() as held:
        new = not run.path.is_dir()
        place = Place(run, new, Past({}, None), began, verbose, again, held)
        if not new:
            place.take()
        yield replace(place, past=past_of(run, resume=resume))


def train_in(
    place: Place,
    source: Source,
    session: Session,
    *,
    facts: dict[str, Any],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train to the end, from wherever the run is, and save the best weights."""
    run, past = place.run, place.past
    place.tell(description(source, session, run))
    plan, deadline = _plan(session, source, place)
    place.tell(notes(source, session, plan, past), end="")
    place.begin(facts, source)
    shown = [Progress(session.schedule, done=_steps_done(past))] if place.verbose else []
    # Of several workers the chief alone has saved anything.
    saved = f"{run} is saved; " if session.replicas.chief else ""
    with giving_way(f"{saved}{place.again} goes on from there"):
        best = train(
            run, source, session, plan, past,
            facts=facts, callbacks=[*shown, *callbacks, *deadline],
            finish=partial(finish, run, session),
        )  # fmt: skip
    place.tell(
        f"best validation accuracy {best.accuracy:.4f} in epoch {best.best_epoch}, kept in {run}"
    )


def _steps_done(past: Past) -> int:
    return past.checkpoint.step if past.checkpoint else 0


def _plan(session: Session, source: Source, place: Place) -> tuple[Plan, list[Deadline]]:
    """Return how long the training is, and the callback that keeps it to a time, if there is one.

    A time that a fit has left when it is stopped is what it has when it goes on.
    """
    budget = session.config.time_budget
    if place.past.checkpoint is not None:
        plan = Plan(**place.past.checkpoint.facts["plan"])
        return plan, [] if budget is None else [Deadline(session, plan, end=math.inf)]
    if budget is None:
        return whole_epochs(session), []
    plan = within_budget(session, source, started=place.began)
    end = place.began + parse_duration("time_budget", budget)
    place.tell(estimate(session, plan, end=end))
    return plan, [Deadline(session, plan, end=end)]
