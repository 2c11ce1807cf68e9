"""The training itself, from wherever a run is to its end."""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.data.spec import Source
from kclassify.runs import Run
from kclassify.training.interruption import Interrupted, stop_requests

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import in_a_tensor  # noqa: E402
from kclassify.training.batch_size import out_of_memory  # noqa: E402
from kclassify.training.callbacks import (  # noqa: E402
    AveragedWeights,
    BestWeights,
    FirstSteps,
    HistoryFile,
    StopOnNaN,
    ValidationSize,
)
from kclassify.training.learned import SkipLearned  # noqa: E402
from kclassify.training.resume import Past, ResumableCallbacks, Stopped  # noqa: E402
from kclassify.training.session import (  # noqa: E402
    Session,
    train_batches,
    validation_batches,
)
from kclassify.training.state import set_callback_state  # noqa: E402
from kclassify.training.time_budget import Plan  # noqa: E402


def train(
    run: Run,
    source: Source,
    session: Session,
    plan: Plan,
    past: Past,
    *,
    facts: dict[str, Any],
    callbacks: Sequence[keras.callbacks.Callback],
    finish: Callable[[BestWeights, StopOnNaN], None],
    end: float = math.inf,
) -> BestWeights:
    """Train to the end of the plan, or stop in order when asked to.

    Args:
        run: where checkpoints and the history go.
        source: the data.
        session: what is trained, not trained yet.
        plan: how long.
        past: what to go on from.
        facts: what every checkpoint says of the run.
        callbacks: called after kclassify's own.
        finish: called after the last step.
        end: when to stop in order, by `time.perf_counter`.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after the step was saved.
    """
    best = BestWeights(session.trained, patience=session.config.early_stopping)
    nan = StopOnNaN()
    sizes = _sizes(session, plan)
    skipping = _skipping(session, source)
    ours = _callbacks(run, session, [*sizes, *skipping, *session.beside, nan, best])
    with stop_requests(end) as stop:
        resumable = ResumableCallbacks(
            [*ours, *callbacks], run=run, session=session, plan=plan, stop=stop,
            start=past.checkpoint,
            facts={"manifest": facts, "packages": runtime.environment()["packages"]},
        )  # fmt: skip
        with suppress(Stopped), _explained(session):
            _make_steps(
                source, session, resumable,
                stage=sizes[0].stage if sizes else None, skipping=skipping[0] if skipping else None,
            )  # fmt: skip
            finish(best, nan)
    if stop.signal is not None:
        raise Interrupted(stop.signal)
    if session.replicas.workers > 1 and resumable.stopping and not resumable.ended:
        # Another worker was asked to.
        raise Interrupted(signal.SIGTERM)
    return best


def _make_steps(
    source: Source,
    session: Session,
    callbacks: ResumableCallbacks,
    *,
    stage: tf.Variable | None,
    skipping: SkipLearned | None,
) -> None:
    """Train from where the callbacks are to the end."""
    plan = callbacks.plan
    if callbacks.ended:
        # All was trained before; what is left to do needs what the callbacks have found.
        callbacks.set_states()
    if skipping is not None and callbacks.start is not None:
        # The batches are made before the callbacks begin.
        facts = callbacks.start.facts["callbacks"]
        set_callback_state(skipping, facts, callbacks.start.arrays)
    held = {name: in_a_tensor(source.splits[name]) for name in ("train", "validation")}
    source = replace(source, splits={**source.splits, **held})
    while not callbacks.ended:
        start, leg = callbacks.steps_done, callbacks.leg
        selection = skipping.selection(callbacks.epoch) if skipping else None
        with session.replicas.scope():
            session.model.fit(
                train_batches(
                    session,
                    source,
                    epochs=leg["epochs"],
                    steps=plan.steps,
                    start=start,
                    selection=selection,
                ),
                validation_data=validation_batches(session, source, stage=stage),
                # The order is the dataset's own, a function of seed and epoch.
                shuffle=False,
                callbacks=callbacks,
                verbose=0,
                **leg,
            )


@contextmanager
def _explained(session: Session) -> Iterator[None]:
    """Say what the configuration has to do with it where TensorFlow ends a step."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        # A full disk is one too.
        if "alloc" not in str(error.message):
            raise
        raise out_of_memory(session, error) from error
    except tf.errors.UnimplementedError as error:
        if not session.config.deterministic:
            raise
        reason = str(error.message).partition("\n")[0]
        raise InputError(
            f"`deterministic` must be False where an operation has no repeatable kernel on "
            f"{session.device}. Received: deterministic=True, and TensorFlow says: {reason}. "
            "Leave it out, choose device='cpu', or a model without that operation."
        ) from error


def _sizes(session: Session, plan: Plan) -> list[ValidationSize]:
    scales = session.config.progressive
    return [ValidationSize(scales, steps=plan.steps)] if scales else []


def _skipping(session: Session, source: Source) -> list[SkipLearned]:
    if session.seen is None:
        return []
    images = len(source.splits["train"])
    return [SkipLearned(session.config, images=images, seen=session.seen)]


def _callbacks(
    run: Run,
    session: Session,
    deciding: Sequence[keras.callbacks.Callback],
) -> list[keras.callbacks.Callback]:
    """Return kclassify's callbacks; those of `deciding` look at each epoch and may end it."""
    config = session.config
    ours = [FirstSteps(run), *deciding, HistoryFile(run, batch_size=config.batch_size)]
    if config.ema is not None:
        # Before the others, so that they see the averaged weights at an epoch's end.
        ours.insert(0, AveragedWeights(swap_on_epoch=True))
    if config.tensorboard:
        ours.append(keras.callbacks.TensorBoard(run.path / "tensorboard"))
    return ours
