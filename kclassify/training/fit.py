"""`fit`: from data to a finished run folder."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kclassify import __version__, runtime
from kclassify.checks import DivergedError, InputError, check_installed
from kclassify.config import FitConfig, resolve
from kclassify.data.sources import default_preset, load_source, prepare, reference, source_name
from kclassify.data.spec import Source
from kclassify.models.registry import build_model
from kclassify.runs import Run, new_run_path, replacing

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.augmentation import MIXING  # noqa: E402
from kclassify.data.pipeline import eval_dataset, first_images, to_device, train_dataset  # noqa: E402
from kclassify.models.cost import count_macs, count_parameters  # noqa: E402
from kclassify.models.weights import weights_hash  # noqa: E402
from kclassify.models.whitening import set_whitening  # noqa: E402
from kclassify.training.callbacks import (  # noqa: E402
    BestWeights,
    HistoryFile,
    Progress,
    StopOnNaN,
)
from kclassify.training.losses import build_loss  # noqa: E402
from kclassify.training.optimizers import build_optimizer, clip_kernels  # noqa: E402
from kclassify.training.schedules import build_schedule  # noqa: E402

SAMPLES = 256
WHITENING_IMAGES = 5000
# With fewer, batch normalization's moving statistics are still far from those of the images.
FEW_STEPS = 200
# Below this many images a call into TensorFlow, the call costs more than the arithmetic.
IMAGES_PER_EXECUTION = 128


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
        run_dir: where to write; it must not exist. By default a new folder in ``saved_models/``.
        callbacks: Keras callbacks of your own, called after kclassify's.
        verbose: show what is done, and a progress bar with the time that is left.
        **config: fields of `FitConfig` that differ from the preset; any other name is an
            argument of the model, such as ``depth=20``.

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
    preset = preset or default_preset(data)
    settings = resolve(preset, config)
    if settings.tensorboard:
        check_installed("tensorboard", True, packages=["tensorboard"], extra="tensorboard")
    path = new_run_path(run_dir, name=f"{source_name(data)}-{settings.model}", config=settings)
    say = print if verbose else _silent
    runtime.set_threads(settings.threads)
    source = prepare(load_source(data, settings), settings, verbose=verbose)
    session = _build(source, settings)
    run = Run(path, source)
    say(_plan(source, session, path))
    manifest = _manifest(data, preset, settings, source)
    _write_start(run, manifest, source)
    started = time.perf_counter()
    try:
        best, nan = _train(session, run, source, callbacks=callbacks, verbose=verbose)
    except KeyboardInterrupt as stop:
        advice = f"; {run} holds no finished run. Delete it, or choose another run_dir."
        raise KeyboardInterrupt(advice) from stop
    _finish(run, session, best, nan, seconds=time.perf_counter() - started)
    say(f"best validation accuracy {best.best[0]:.4f} in epoch {best.best_epoch}, kept in {run}")
    return run


@dataclass(frozen=True)
class _Session:
    model: keras.Model
    config: FitConfig
    device: str
    steps: int

    @property
    def steps_per_execution(self) -> int:
        """Steps a call into TensorFlow; it divides the epoch, since Keras runs over its end."""
        most = math.ceil(IMAGES_PER_EXECUTION / self.config.batch_size)
        return max(count for count in range(1, most + 1) if self.steps % count == 0)


def _build(source: Source, config: FitConfig) -> _Session:
    """Build and compile the model; whatever is wrong with the configuration shows here."""
    device = runtime.resolve_device(config.device)
    policy = runtime.mixed_precision_policy(device) if config.mixed_precision else "float32"
    runtime.seed_everything(config.seed, deterministic=config.deterministic)
    steps = len(source.splits["train"]) // config.batch_size
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        with tf.device(device):
            model = build_model(
                config.model,
                input_shape=source.input_shape,
                num_classes=source.num_classes,
                **config.model_args,
            )
            set_whitening(model, first_images(source.splits["train"], WHITENING_IMAGES))
    finally:
        keras.config.set_dtype_policy(before)
    session = _Session(model, config, device, steps)
    _compile(session, source)
    return session


def _compile(session: _Session, source: Source) -> None:
    config, model = session.config, session.model
    if config.weight_clip:
        clip_kernels(model, config.weight_clip)
    schedule = build_schedule(config, total_steps=session.steps * config.epochs)
    model.compile(
        optimizer=build_optimizer(config, schedule),
        loss=build_loss(config, source.splits["train"], source.class_names),
        metrics=[_accuracy(soft=_soft(source, config))],
        steps_per_execution=session.steps_per_execution,
        # XLA compiles for minutes on a CPU and is not faster there.
        jit_compile="auto" if session.device.startswith("GPU") else False,
    )


def _soft(source: Source, config: FitConfig) -> bool:
    return config.augmentation in MIXING or source.splits["train"].soft


def _accuracy(*, soft: bool) -> keras.metrics.Metric:
    kind = keras.metrics.CategoricalAccuracy if soft else keras.metrics.SparseCategoricalAccuracy
    return kind(name="accuracy")


def _train(
    session: _Session,
    run: Run,
    source: Source,
    *,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: bool,
) -> tuple[BestWeights, StopOnNaN]:
    config, steps = session.config, session.steps
    train, validation = _datasets(session, source)
    best = BestWeights(run, patience=config.early_stopping)
    nan = StopOnNaN()
    ours = [nan, HistoryFile(run, images=steps * config.batch_size), best]
    if config.ema is not None:
        # Before the others, so that they see the averaged weights at an epoch's end.
        ours.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if config.tensorboard:
        ours.append(keras.callbacks.TensorBoard(run.path / "tensorboard"))
    if verbose:
        ours.append(Progress(steps * config.epochs))
    with tf.device(session.device):
        session.model.fit(
            train,
            validation_data=validation,
            epochs=config.epochs,
            steps_per_epoch=steps,
            # The order is the dataset's own, a function of seed and epoch.
            shuffle=False,
            callbacks=[*ours, *callbacks],
            verbose=0,
        )
    return best, nan


def _datasets(session: _Session, source: Source) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    config = session.config
    num_classes = source.num_classes if _soft(source, config) else None
    train = train_dataset(
        source.splits["train"],
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        augmentation=config.augmentation,
        num_classes=num_classes,
    )
    validation = eval_dataset(source.splits["validation"], batch_size=256, num_classes=num_classes)
    return to_device(train, session.device), to_device(validation, session.device)


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
    run: Run, session: _Session, best: BestWeights, nan: StopOnNaN, *, seconds: float
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
    run: Run, session: _Session, best: BestWeights, *, stopped: str | None, seconds: float
) -> None:
    # A new Model over the same layers: without the compiled state, which plain Keras cannot read.
    model = keras.Model(session.model.input, session.model.output, name=session.model.name)
    with replacing(run.model_file) as beside:
        model.save(beside)
    rows = run.history
    summary = {
        "best_epoch": best.best_epoch,
        "val_accuracy": best.best[0],
        "weights_sha256": weights_hash(model),
        "parameters": count_parameters(model),
        "macs": count_macs(model),
        "training_seconds": round(seconds, 1),
        "epochs_trained": len(rows),
        "stopped": stopped,
    }
    run.write(run.summary_file, summary)


def _plan(source: Source, session: _Session, path: os.PathLike[str]) -> str:
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in source.splits.items())
    height, width, channels = source.input_shape
    config = session.config
    return (
        f"data      {source.name}: {sizes}; {source.num_classes} classes, "
        f"{height}x{width}x{channels}\n"
        f"model     {config.model}: {count_parameters(session.model):,} parameters, "
        f"{count_macs(session.model):,} MACs an image\n"
        f"training  {config.epochs} epochs of {session.steps:,} steps of {config.batch_size} "
        f"images, {config.optimizer}, on {session.device}, XLA "
        f"{'auto' if session.device.startswith('GPU') else 'off'}\n"
        f"run       {path}{_notes(source, session)}"
    )


def _notes(source: Source, session: _Session) -> str:
    steps = session.steps * session.config.epochs
    left_out = f"\nnote      {len(source.skipped)} images left out: " + ", ".join(
        path for path, _ in source.skipped[:3]
    )
    few = (
        f"\nnote      only {steps} steps in all, too few for most networks: raise `epochs` or "
        "lower `batch_size`"
    )
    return (left_out if source.skipped else "") + (few if steps < FEW_STEPS else "")


def _silent(*_: object) -> None:
    """Print nothing."""
