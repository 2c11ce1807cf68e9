"""Going on with a training: what is left in its folder, and callbacks that keep it going.

A training that is stopped after any step, by whatever, ends as if it had not been.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, parse_duration
from kclassify.runs import Run
from kclassify.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from kclassify.training.interruption import StopRequest

runtime.prepare()

import keras  # noqa: E402

from kclassify.training.session import Session  # noqa: E402
from kclassify.training.state import (  # noqa: E402
    callback_states,
    model_arrays,
    set_callback_states,
    set_model_arrays,
)
from kclassify.training.time_budget import Plan  # noqa: E402

RESUME = ("auto", "never", "must")
# Several workers ask each other after so many steps whether to stop or to save.
STEPS_BETWEEN_QUESTIONS = 10
# What neither the weights nor the history depend on; of a data service with one worker.
FREE_FIELDS = ("data_dir", "data_service", "checkpoint_every", "tensorboard")
FREE_FACTS = ("kclassify", "reference", "config")


class Stopped(Exception):  # noqa: N818
    """A step was finished and saved, because somebody asked to stop."""


@dataclass(frozen=True)
class Past:
    """What an earlier process left in a run folder.

    Attributes:
        manifest: what the run was begun with; empty for a new one.
        checkpoint: the newest whole one.
        damaged: what is wrong with those after it.
    """

    manifest: dict[str, Any]
    checkpoint: Checkpoint | None
    damaged: tuple[str, ...] = ()


def past_of(run: Run, *, resume: str) -> Past:
    """Return what is left in a run folder, or say that it must not be gone on with.

    Raises:
        InputError: `resume` is ``"never"`` and there is a run, or ``"must"`` and there is none;
            or what there is cannot be read.
    """
    checkpoint, damaged = newest_checkpoint(run.checkpoints_dir)
    if checkpoint is not None:
        manifest = checkpoint.facts["manifest"]
    else:
        manifest = run.config if run.config_file.is_file() else {}
    kind = "finished" if run.complete else "unfinished"
    if manifest and resume == "never":
        raise InputError(
            f"`run_dir` must not exist yet with resume='never'. Received: {str(run)!r}, which "
            f"holds a {kind} run. Choose another name; nothing was written."
        )
    if not manifest and resume == "must":
        raise InputError(
            f"`run_dir` must be the folder of a run that was begun, with resume='must'. "
            f"Received: {str(run)!r}, where there is none. Check the path, or leave `resume` out."
        )
    return Past(manifest, checkpoint, tuple(damaged))


def as_chosen(past: Past, preset: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return preset and options with what "auto" was found to be when the run was begun."""
    if not past.manifest:
        return preset, options
    if options.get("batch_size") == "auto":
        follow = ("learning_rate",) if options.get("time_budget") else ("learning_rate", "epochs")
        names = ["batch_size", *(name for name in follow if name not in options)]
        options = {**options, **{name: past.manifest["config"][name] for name in names}}
    return past.manifest["preset"] if preset == "auto" else preset, options


def check_same(run: Run, past: Past, manifest: dict[str, Any]) -> None:
    """Raise `InputError` unless `manifest` is what the run was begun with; say what differs."""
    if not past.manifest:
        return
    differing = [
        *differences(past.manifest["config"], manifest["config"], but=FREE_FIELDS),
        *differences(past.manifest, manifest, but=FREE_FACTS),
    ]
    if differing:
        raise InputError(
            f"`run_dir` must hold a run of the same configuration and data. Received: "
            f"{str(run)!r}, which holds one with {', '.join(differing)}. Give the same again, or "
            "choose another run_dir; nothing was written."
        )


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], *, but: Sequence[str]
) -> list[str]:
    """Return in words what `here` has that is not as it is `there`, `but` for some names."""
    names = [name for name in here if name not in but and there.get(name) != here[name]]
    return [
        "other images or labels"
        if name == "fingerprint"
        else f"{name} {there.get(name)!r} instead of {here[name]!r}"
        for name in names
    ]


class ResumableCallbacks(keras.callbacks.CallbackList):
    """The callbacks of a training, which save all of its state and can begin with a saved one.

    Keras's `fit` begins at whole epochs only. A training that goes on within an epoch is therefore
    several calls of it: the rest of that epoch, then the others. For the callbacks it is one.

    Args:
        callbacks: in their order; those with a mapping `state` take part in it.
        run: where checkpoints go.
        session: what is trained.
        plan: how long.
        facts: what every checkpoint says of the run besides the state.
        stop: looked at after each call of the step.
        start: the checkpoint to go on from.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        run: Run,
        session: Session,
        plan: Plan,
        facts: dict[str, Any],
        stop: StopRequest,
        start: Checkpoint | None,
    ) -> None:
        super().__init__(
            list(callbacks), add_history=True, model=session.model,
            verbose=0, epochs=plan.epochs, steps=session.steps,
        )  # fmt: skip
        self.run, self.session, self.plan = run, session, plan
        self.facts = {**facts, "plan": asdict(plan)}
        self.stop = stop
        self.every = parse_duration("checkpoint_every", session.config.checkpoint_every)
        self.start = start
        # What the next call of `fit` begins with.
        self.arrays = start.arrays if start else None
        position: dict[str, Any] = (
            start.facts if start else {"epoch": 0, "step": 0, "stopped": False}
        )
        self.epoch: int = position["epoch"]
        self.step: int = position["step"]
        # By a callback, before the plan's last epoch.
        self.stopped: bool = position["stopped"]
        self.begun = False
        self.first = 0
        self.saved = time.perf_counter()
        # Whether a worker wants to stop in order, and what callbacks of this one want meanwhile.
        self.stopping = self.wanted = False

    @property
    def leg(self) -> dict[str, int]:
        """What the next call of Keras's `fit` trains, as its arguments."""
        # Which images an epoch shows is known at the end of the one before.
        alone = self.step or self.session.seen
        last = self.epoch + 1 if alone else self.plan.epochs
        steps = self.session.steps - self.step
        return {"initial_epoch": self.epoch, "epochs": last, "steps_per_epoch": steps}

    @property
    def ended(self) -> bool:
        """Whether there is no step left to make."""
        return self.stopped or self.epoch >= self.plan.epochs

    @property
    def steps_done(self) -> int:
        """How many steps have been made."""
        return self.epoch * self.session.steps + self.step

    def set_states(self) -> None:
        """Give the callbacks the states of the checkpoint."""
        if self.start is not None:
            set_callback_states(self.callbacks, self.start.facts["callbacks"], self.start.arrays)

    def on_train_begin(self, logs=None):
        """Tell the callbacks once."""
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Begin with what is to be gone on from, now that Keras has reset its metrics."""
        self.first = self.step
        if self.arrays is not None:
            set_model_arrays(self.model, self.arrays)
            self.set_states()
            self.start = self.arrays = None
        if self.step == 0:
            # After an epoch they are those of its validation.
            self.model.reset_metrics()
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        """Count from the epoch's begin."""
        super().on_train_batch_begin(self.first + batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        """Save, where it is time or somebody has asked to stop."""
        super().on_train_batch_end(self.first + batch, logs)
        self.step = self.first + batch + 1
        due = self._agree(time.perf_counter() - self.saved >= self.every)
        # After the last step of an epoch its validation follows, and then the epoch is saved.
        within = self.step < self.session.steps and not self.model.stop_training
        if within and (self.stopping or due):
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        """Save."""
        super().on_epoch_end(epoch, logs)
        self.epoch, self.step = epoch + 1, 0
        self._agree(False, now=True)
        self.stopped = self.model.stop_training
        self._save()

    def _agree(self, due: bool, *, now: bool = False) -> bool:
        """Return whether it is time to save, and decide whether to stop: for all workers alike.

        One that stopped by itself would leave the others waiting in the next step.
        """
        replicas = self.session.replicas
        if replicas.workers == 1:
            self.stopping = self.stop.asked
            return due
        self.wanted = self.wanted or self.model.stop_training
        self.model.stop_training = False
        if not now and self.step % STEPS_BETWEEN_QUESTIONS:
            return False
        flags = replicas.any([self.stop.asked, self.wanted, due])
        self.stopping, self.model.stop_training, due = flags
        self.wanted = False
        return due

    def on_train_end(self, logs=None):
        """Tell the callbacks, once all has been trained."""
        if self.ended:
            super().on_train_end(logs)

    def _save(self) -> None:
        # Of several workers all have the same, and metrics are read by all together.
        checkpoint = self._checkpoint()
        if self.session.replicas.chief:
            write_checkpoint(self.run.checkpoints_dir, checkpoint)
        self.saved = time.perf_counter()
        if self.stopping and not self.ended:
            raise Stopped
        # At the end of `fit` Keras puts the averages of the weights in their place.
        last = self.step == 0 and (self.first or self.session.seen)
        self.arrays = checkpoint.arrays if last else None

    def _checkpoint(self) -> Checkpoint:
        states, arrays = callback_states(self.callbacks)
        position = {"epoch": self.epoch, "step": self.step, "stopped": self.stopped}
        facts = {**self.facts, **position, "callbacks": states}
        return Checkpoint(self.steps_done, facts, {**model_arrays(self.model), **arrays})
