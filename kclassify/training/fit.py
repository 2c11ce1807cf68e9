"""`fit`: from data to a finished run folder."""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from signal import Signals
from typing import Any

import numpy as np

from kclassify import __version__, runtime
from kclassify.atomic import remove_leftovers, replacing
from kclassify.checks import (
    DivergedError,
    InputError,
    check_choice,
    check_installed,
    parse_duration,
    printable,
)
from kclassify.config import FitConfig, resolve
from kclassify.data.fingerprint import fingerprint
from kclassify.data.sources import default_preset, load_source, prepare, reference, source_name
from kclassify.data.spec import Source
from kclassify.presets import SIZES
from kclassify.runs import Run, run_path
from kclassify.training.checkpoint import Checkpoint
from kclassify.training.interruption import stop_requests
from kclassify.training.lock import sole_writer, taken

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import first_images  # noqa: E402
from kclassify.models.cost import count_parameters  # noqa: E402
from kclassify.models.weights import weights_hash  # noqa: E402
from kclassify.training.batch_size import (  # noqa: E402
    after_loading,
    before_loading,
    check_batch_fits,
)
from kclassify.training.callbacks import (  # noqa: E402
    BestWeights,
    FirstSteps,
    HistoryFile,
    Progress,
    StopOnNaN,
    ValidationSize,
)
from kclassify.training.resume import (  # noqa: E402
    RESUME,
    Past,
    ResumableCallbacks,
    Stopped,
    as_chosen,
    check_same,
    past_of,
)
from kclassify.training.scaling import without_auto  # noqa: E402
from kclassify.training.session import (  # noqa: E402
    Session,
    build_session,
    train_batches,
    validation_batches,
)
from kclassify.training.time_budget import (  # noqa: E402
    Deadline,
    Plan,
    estimate,
    largest_preset,
    whole_epochs,
    within_budget,
)

SAMPLES = 256
# With fewer, batch normalization's moving statistics are still far from those of the images.
FEW_STEPS = 200


def fit(
    data: Any,
    *,
    preset: str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: bool = True,
    **config: Any,
) -> Run:
    """Train a classifier and return its run folder.

    The validation split decides which weights are kept: those of the best epoch are the ones that
    are saved, evaluated, reported and exported. The test split is not looked at.

    A fit that was stopped, by whatever, goes on when it is called again with the same arguments,
    and ends with the weights that it would have ended with. Ctrl-C and SIGTERM finish the step and
    save it; otherwise the steps since the last checkpoint are made again.

    Args:
        data: a dataset's name (`kclassify datasets`), ``"tfds:<name>"``, a folder of class
            folders, a CSV file or DataFrame with the columns `path` and `label`, a pair of arrays
            ``(images, labels)``, a mapping from split names to pairs, or a `tf.data.Dataset`.
        preset: a named recipe (`kclassify presets`); by default the one that the dataset names.
            ``"auto"`` takes the largest for which `time_budget` has room.
        run_dir: where to write, and where to go on. By default a new folder in ``saved_models/``.
        resume: ``"auto"`` goes on with what `run_dir` holds, or begins; ``"never"`` refuses a
            folder that holds a run, ``"must"`` one that does not.
        callbacks: Keras callbacks of your own, called after kclassify's. One that has a mapping
            `state`, of JSON types and arrays, is given it back when a fit goes on.
        verbose: show what is done, and a progress bar with the time that is left.
        **config: fields of `FitConfig` that differ from the preset; any other name is an
            argument of the model, such as ``depth=20``. With ``time_budget="10m"`` all of `fit`
            takes that long: the first steps are timed, and epochs and schedule follow.
            ``batch_size="auto"`` takes the largest that memory allows.

    Returns:
        The finished `Run`; one that was finished before is returned as it is.

    Raises:
        InputError: something about the arguments or the data; nothing was written.
        DivergedError: the loss became NaN; the best weights before that are in the run folder.
        StorageError: the disk is full; the same call goes on when there is room.
        KeyboardInterrupt: Ctrl-C, after the step was saved. SIGTERM exits with 143.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> run.summary["epochs_trained"]
        1
    """
    began = time.perf_counter()
    check_choice("resume", resume, RESUME)
    asked = resolve(_first_preset(data, preset, config), without_auto(config))
    if asked.tensorboard:
        check_installed("tensorboard", True, packages=["tensorboard"], extra="tensorboard")
    run = Run(run_path(run_dir, name=f"{source_name(data)}-{asked.model}"))
    say = _say if verbose else _silent
    runtime.set_threads(asked.threads)
    with ExitStack() as held:
        existed = run.path.is_dir()
        if existed:
            _hold(run, held, say)
        past = past_of(run, resume=resume)
        preset, settings, source = _settle(data, preset, config, past, began=began, verbose=verbose)
        manifest = _manifest(data, preset, settings, source)
        check_same(run, past, manifest)
        run = replace(run, source=source)
        if run.complete:
            weights = run.summary["weights_sha256"]
            say(f"finished before: {run} is as it was, with weights {weights[:12]}")
            return run
        session = build_session(source, settings)
        check_batch_fits(session)
        say(_description(source, session, run))
        plan, deadline = _plan(session, source, past, began=began, say=say)
        say(_notes(source, plan, past), end="")
        if not existed:
            _make_folder(run)
            _hold(run, held, say)
        _write_start(run, manifest, source)
        best = _train(
            run, source, session, plan, past,
            manifest=manifest, callbacks=[*callbacks, *deadline], verbose=verbose,
        )  # fmt: skip
    say(f"best validation accuracy {best.accuracy:.4f} in epoch {best.best_epoch}, kept in {run}")
    return run


def _hold(run: Run, held: ExitStack, say: Callable[..., None]) -> None:
    """Keep other processes out of the run folder until `held` ends."""
    before = held.enter_context(sole_writer(run))
    if before:
        say(f"note      {before} ended before it had finished {run}")


def _first_preset(data: Any, preset: str | None, options: Mapping[str, Any]) -> str:
    """Return the preset to load the data by; where it is "auto", the data helps to choose."""
    if preset == "auto" and options.get("time_budget") is None:
        raise InputError(
            "`preset` must be a preset's name where no time is given. Received: preset='auto'. "
            'Give a time too, such as time_budget="10m".'
        )
    return SIZES[0] if preset == "auto" else preset or default_preset(data)


def _settle(
    data: Any,
    preset: str | None,
    options: dict[str, Any],
    past: Past,
    *,
    began: float,
    verbose: bool,
) -> tuple[str, FitConfig, Source]:
    """Load the data, and choose what the data, the machine or an earlier process decides."""
    first = _first_preset(data, preset, options)
    loading = before_loading(first, options)
    source = prepare(load_source(data, loading), loading, verbose=verbose)
    chosen, options = as_chosen(past, preset or first, options)
    if chosen == "auto":
        chosen = largest_preset(source, options, started=began)
    return chosen, after_loading(chosen, options, source), source


def _plan(
    session: Session, source: Source, past: Past, *, began: float, say: Callable[..., None]
) -> tuple[Plan, list[Deadline]]:
    """Return how long the training is, and the callback that keeps it to a time, if there is one.

    A time that a fit has left when it is stopped is what it has when it goes on.
    """
    budget = session.config.time_budget
    if past.checkpoint is not None:
        plan = Plan(**past.checkpoint.facts["plan"])
        return plan, [] if budget is None else [Deadline(session, plan, end=math.inf)]
    if budget is None:
        return whole_epochs(session), []
    plan = within_budget(session, source, started=began)
    end = began + parse_duration("time_budget", budget)
    say(estimate(session, plan, end=end))
    return plan, [Deadline(session, plan, end=end)]


def _train(
    run: Run,
    source: Source,
    session: Session,
    plan: Plan,
    past: Past,
    *,
    manifest: dict[str, Any],
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: bool,
) -> BestWeights:
    """Train to the end and save the best model, or stop in order when asked to."""
    best, nan = BestWeights(patience=session.config.early_stopping), StopOnNaN()
    sizes = _sizes(session, plan)
    ours = _callbacks(run, session, [*sizes, nan, best])
    if verbose:
        done = past.checkpoint.step if past.checkpoint else 0
        ours.append(Progress(session.schedule, done=done))
    with stop_requests() as stop:
        resumable = ResumableCallbacks(
            [*ours, *callbacks], run=run, session=session, plan=plan, stop=stop,
            start=past.checkpoint,
            facts={"manifest": manifest, "packages": runtime.environment()["packages"]},
        )  # fmt: skip
        with suppress(Stopped), _repeatable(session):
            _make_steps(source, session, resumable, stage=sizes[0].stage if sizes else None)
            _finish(run, session, best, nan)
    if stop.signal is not None:
        _give_way(run, stop.signal)
    return best


@contextmanager
def _repeatable(session: Session) -> Iterator[None]:
    """Name the operation that has no repeatable kernel where one is asked for."""
    try:
        yield
    except tf.errors.UnimplementedError as error:
        if not session.config.deterministic:
            raise
        reason = str(error.message).partition("\n")[0]
        raise InputError(
            f"`deterministic` must be False where an operation has no repeatable kernel on "
            f"{session.device}. Received: deterministic=True, and TensorFlow says: {reason}. "
            "Leave it out, choose device='cpu', or a model without that operation."
        ) from error


def _make_steps(
    source: Source, session: Session, callbacks: ResumableCallbacks, *, stage: tf.Variable | None
) -> None:
    """Train from where the callbacks are to the end."""
    plan = callbacks.plan
    if callbacks.ended:
        callbacks.set_states()
    while not callbacks.ended:
        start = callbacks.steps_done
        with tf.device(session.device):
            session.model.fit(
                train_batches(session, source, epochs=plan.epochs, steps=plan.steps, start=start),
                validation_data=validation_batches(session, source, stage=stage),
                # The order is the dataset's own, a function of seed and epoch.
                shuffle=False,
                callbacks=callbacks,
                verbose=0,
                **callbacks.leg,
            )


def _sizes(session: Session, plan: Plan) -> list[ValidationSize]:
    scales = session.config.progressive
    return [ValidationSize(scales, steps=plan.steps)] if scales else []


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
        ours.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if config.tensorboard:
        ours.append(keras.callbacks.TensorBoard(run.path / "tensorboard"))
    return ours


def _give_way(run: Run, signal: Signals) -> None:
    """End as the signal asks for, now that all is saved."""
    advice = f"{run} is saved; the same command goes on from there"
    if signal == Signals.SIGINT:
        raise KeyboardInterrupt(f"; {advice}")
    print(f"kclassify: {signal.name}; {advice}", file=sys.stderr)
    raise SystemExit(128 + signal)


def _make_folder(run: Run) -> None:
    try:
        run.path.mkdir(parents=True)
    except FileExistsError as error:
        raise taken(run) from error
    except OSError as error:
        raise InputError(
            f"`run_dir` must be a place where a folder can be made. Received: {str(run)!r} "
            f"({error.strerror}). Choose another place."
        ) from error


def _write_start(run: Run, manifest: dict[str, Any], source: Source) -> None:
    """Write what does not change; where a run is gone on with, it mends what was damaged."""
    remove_leftovers(run.path)
    run.write(run.config_file, manifest)
    run.write(run.environment_file, runtime.environment())
    run.write(run.samples_file, _samples(source))


def _manifest(data: Any, preset: str, config: FitConfig, source: Source) -> dict[str, Any]:
    return {
        "kclassify": __version__,
        "data": source.name,
        "reference": reference(data),
        "preset": preset,
        "class_names": list(source.class_names),
        "input_shape": list(source.input_shape),
        "sizes": {split: len(examples) for split, examples in source.splits.items()},
        "skipped": [list(item) for item in source.skipped],
        "fingerprint": fingerprint(source),
        "config": config.to_json(),
    }


def _samples(source: Source) -> dict[str, np.ndarray]:
    """Return images that an export can be verified with: validation's, then train's; not test's."""
    parts = (source.splits["validation"], source.splits["train"])
    images = np.concatenate([first_images(part, SAMPLES) for part in parts])
    ids = np.concatenate([part.ids[:SAMPLES] for part in parts])
    return {"images": images[:SAMPLES], "ids": ids[:SAMPLES]}


def _finish(run: Run, session: Session, best: BestWeights, nan: StopOnNaN) -> None:
    """Save the best model, or say that there is none."""
    if best.best_epoch is not None:
        _save(run, session, best, stopped="nan" if nan.step is not None else best.stopped)
        # What is finished is not gone on with.
        shutil.rmtree(run.checkpoints_dir)
    if nan.step is not None:
        kept = f"The weights of epoch {best.best_epoch} are kept in {str(run)!r}. "
        raise DivergedError(
            f"`learning_rate` must keep the loss finite. Received: {session.config.learning_rate}, "
            f"and the loss was NaN or infinite by step {nan.step}. "
            f"{kept if best.best_epoch else 'No epoch had ended, so there is no model. '}"
            "Try a tenth of the learning rate, or gradient_clip=1.0."
        )


def _save(run: Run, session: Session, best: BestWeights, *, stopped: str | None) -> None:
    model = session.network
    model.set_weights(best.weights)
    with replacing(run.model_file) as beside:
        model.save(beside)
    rows = run.history
    summary = {
        "best_epoch": best.best_epoch,
        "val_accuracy": best.accuracy,
        "weights_sha256": weights_hash(model),
        "parameters": count_parameters(model),
        "macs": session.macs,
        "training_seconds": round(float(rows["seconds"].sum()), 1),
        "epochs_trained": len(rows),
        "stopped": stopped,
    }
    run.write(run.summary_file, summary)


def _description(source: Source, session: Session, path: os.PathLike[str]) -> str:
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in source.splits.items())
    height, width, channels = source.input_shape
    config = session.config
    epochs = "" if config.time_budget else f"{config.epochs} epochs of "
    return (
        f"data      {source.name}: {sizes}; {source.num_classes} classes, "
        f"{height}x{width}x{channels}\n"
        f"model     {config.model}: {count_parameters(session.network):,} parameters, "
        f"{session.macs:,} MACs an image\n"
        f"training  {epochs}{session.steps:,} steps of {config.batch_size} "
        f"images, {config.optimizer}, {session.policy}, on {session.device}, XLA "
        f"{'auto' if session.device.startswith('GPU') else 'off'}\n"
        f"run       {path}"
    )


def _notes(source: Source, plan: Plan, past: Past) -> str:
    left_out = f"note      {len(source.skipped)} images left out: " + ", ".join(
        path for path, _ in source.skipped[:3]
    )
    length = "time_budget" if plan.pace else "epochs"
    few = (
        f"note      only {plan.steps} steps in all, too few for most networks: raise `{length}` or "
        "lower `batch_size`"
    )
    notes = [left_out] * bool(source.skipped) + [few] * (plan.steps < FEW_STEPS)
    notes += [f"note      a damaged checkpoint is passed over: {name}" for name in past.damaged]
    if past.checkpoint is not None:
        notes.append(f"resuming  after step {past.checkpoint.step:,} of {plan.steps:,}")
        notes += _other_packages(past.checkpoint)
    return "".join(f"{note}\n" for note in notes)


def _other_packages(checkpoint: Checkpoint) -> list[str]:
    there, here = checkpoint.facts["packages"], runtime.environment()["packages"]
    changed = [f"{name} {there.get(name)} before, {here[name]} now"
               for name in here if there.get(name) != here[name]]  # fmt: skip
    text = ", ".join(changed)
    return [f"note      {text}: the last bits of the weights may differ"] if changed else []


def _say(text: str, end: str = "\n") -> None:
    print(printable(text), end=end)


def _silent(*_: object, **__: object) -> None:
    """Print nothing."""
