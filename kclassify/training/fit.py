"""`fit`: from data to a finished run folder."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kclassify import __version__, runtime
from kclassify.checks import DivergedError, InputError, check_installed, parse_duration
from kclassify.config import FitConfig, resolve
from kclassify.data.sources import default_preset, load_source, prepare, reference, source_name
from kclassify.data.spec import Source
from kclassify.presets import SIZES
from kclassify.runs import Run, new_run_path, replacing

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
    HistoryFile,
    Progress,
    StopOnNaN,
    ValidationSize,
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
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: bool = True,
    **config: Any,
) -> Run:
    """Train a classifier and return its run folder.

    The validation split decides which weights are kept: those of the best epoch are the ones that
    are restored, saved, evaluated, reported and exported. The test split is not looked at.

    Args:
        data: a dataset's name (`kclassify datasets`), ``"tfds:<name>"``, a folder of class
            folders, a CSV file or DataFrame with the columns `path` and `label`, a pair of arrays
            ``(images, labels)``, a mapping from split names to pairs, or a `tf.data.Dataset`.
        preset: a named recipe (`kclassify presets`); by default the one that the dataset names.
            ``"auto"`` takes the largest for which `time_budget` has room.
        run_dir: where to write; it must not exist. By default a new folder in ``saved_models/``.
        callbacks: Keras callbacks of your own, called after kclassify's.
        verbose: show what is done, and a progress bar with the time that is left.
        **config: fields of `FitConfig` that differ from the preset; any other name is an
            argument of the model, such as ``depth=20``. With ``time_budget="10m"`` all of `fit`
            takes that long: the first steps are timed, and epochs and schedule follow.
            ``batch_size="auto"`` takes the largest that memory allows.

    Returns:
        The finished `Run`.

    Raises:
        InputError: something about the arguments or the data; nothing was written.
        DivergedError: the loss became NaN; the best weights before that are in the run folder.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> run.summary["epochs_trained"]
        1
    """
    began = time.perf_counter()
    first = _first_preset(data, preset, config)
    asked = resolve(first, without_auto(config))
    if asked.tensorboard:
        check_installed("tensorboard", True, packages=["tensorboard"], extra="tensorboard")
    path = new_run_path(run_dir, name=f"{source_name(data)}-{asked.model}", config=asked)
    say = print if verbose else _silent
    runtime.set_threads(asked.threads)
    loading = before_loading(first, config)
    source = prepare(load_source(data, loading), loading, verbose=verbose)
    preset = largest_preset(source, config, started=began) if preset == "auto" else first
    settings = after_loading(preset, config, source)
    session = build_session(source, settings)
    check_batch_fits(session)
    say(_description(source, session, path))
    plan, end = whole_epochs(session), None
    if settings.time_budget is not None:
        end = began + parse_duration("time_budget", settings.time_budget)
        plan = within_budget(session, source, started=began)
        say(estimate(session, plan, end=end))
    say(_notes(source, plan), end="")
    run = Run(path, source)
    manifest = _manifest(data, preset, settings, source)
    _write_start(run, manifest, source)
    started = time.perf_counter()
    deadline = [] if end is None else [Deadline(session, plan, end=end)]
    try:
        best, nan = _train(
            session, run, source, plan, callbacks=[*callbacks, *deadline], verbose=verbose
        )
    except KeyboardInterrupt as stop:
        advice = f"; {run} holds no finished run. Delete it, or choose another run_dir."
        raise KeyboardInterrupt(advice) from stop
    _finish(run, session, best, nan, seconds=time.perf_counter() - started)
    say(f"best validation accuracy {best.accuracy:.4f} in epoch {best.best_epoch}, kept in {run}")
    return run


def _first_preset(data: Any, preset: str | None, options: Mapping[str, Any]) -> str:
    """Return the preset to load the data by; where it is "auto", the data helps to choose."""
    if preset == "auto" and options.get("time_budget") is None:
        raise InputError(
            "`preset` must be a preset's name where no time is given. Received: preset='auto'. "
            'Give a time too, such as time_budget="10m".'
        )
    return SIZES[0] if preset == "auto" else preset or default_preset(data)


def _train(
    session: Session,
    run: Run,
    source: Source,
    plan: Plan,
    *,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: bool,
) -> tuple[BestWeights, StopOnNaN]:
    config = session.config
    best = BestWeights(run, patience=config.early_stopping)
    nan = StopOnNaN()
    sizes = [ValidationSize(config.progressive, steps=plan.steps)] if config.progressive else []
    ours = [*sizes, nan, HistoryFile(run, batch_size=config.batch_size), best]
    if config.ema is not None:
        # Before the others, so that they see the averaged weights at an epoch's end.
        ours.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if config.tensorboard:
        ours.append(keras.callbacks.TensorBoard(run.path / "tensorboard"))
    if verbose:
        ours.append(Progress(session.schedule))
    stage = sizes[0].stage if sizes else None
    with tf.device(session.device):
        session.model.fit(
            train_batches(session, source, epochs=plan.epochs, steps=plan.steps),
            validation_data=validation_batches(session, source, stage=stage),
            epochs=plan.epochs,
            steps_per_epoch=session.steps,
            # The order is the dataset's own, a function of seed and epoch.
            shuffle=False,
            callbacks=[*ours, *callbacks],
            verbose=0,
        )
    return best, nan


def _write_start(run: Run, manifest: dict[str, Any], source: Source) -> None:
    try:
        run.path.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"`run_dir` must be a place where a folder can be made. Received: {str(run)!r} "
            f"({error.strerror}). Choose another place."
        ) from error
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
        "config": config.to_json(),
    }


def _samples(source: Source) -> dict[str, np.ndarray]:
    """Return images that an export can be verified with: validation's, then train's; not test's."""
    parts = (source.splits["validation"], source.splits["train"])
    images = np.concatenate([first_images(part, SAMPLES) for part in parts])
    ids = np.concatenate([part.ids[:SAMPLES] for part in parts])
    return {"images": images[:SAMPLES], "ids": ids[:SAMPLES]}


def _finish(
    run: Run, session: Session, best: BestWeights, nan: StopOnNaN, *, seconds: float
) -> None:
    """Save the best model, or say that there is none."""
    stopped = "nan" if nan.step is not None else best.stopped
    if best.best_epoch is not None:
        _save(run, session, best, stopped=stopped, seconds=seconds)
    if nan.step is not None:
        kept = f"The weights of epoch {best.best_epoch} are kept in {str(run)!r}. "
        raise DivergedError(
            f"`learning_rate` must keep the loss finite. Received: {session.config.learning_rate}, "
            f"and the loss was NaN or infinite by step {nan.step}. "
            f"{kept if best.best_epoch else 'No epoch had ended, so there is no model. '}"
            "Try a tenth of the learning rate, or gradient_clip=1.0."
        )


def _save(
    run: Run, session: Session, best: BestWeights, *, stopped: str | None, seconds: float
) -> None:
    model = session.trained_network()
    with replacing(run.model_file) as beside:
        model.save(beside)
    rows = run.history
    summary = {
        "best_epoch": best.best_epoch,
        "val_accuracy": best.accuracy,
        "weights_sha256": weights_hash(model),
        "parameters": count_parameters(model),
        "macs": session.macs,
        "training_seconds": round(seconds, 1),
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


def _notes(source: Source, plan: Plan) -> str:
    left_out = f"note      {len(source.skipped)} images left out: " + ", ".join(
        path for path, _ in source.skipped[:3]
    )
    length = "time_budget" if plan.pace else "epochs"
    few = (
        f"note      only {plan.steps} steps in all, too few for most networks: raise `{length}` or "
        "lower `batch_size`"
    )
    notes = [left_out] * bool(source.skipped) + [few] * (plan.steps < FEW_STEPS)
    return "".join(f"{note}\n" for note in notes)


def _silent(*_: object, **__: object) -> None:
    """Print nothing."""
