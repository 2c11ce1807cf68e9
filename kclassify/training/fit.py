"""`fit`: from data to a finished run folder."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_installed
from kclassify.config import FitConfig, resolve
from kclassify.data.sources import default_preset, load_source, prepare, source_name
from kclassify.data.spec import Source
from kclassify.presets import SIZES
from kclassify.runs import Run, run_path
from kclassify.training.beginning import run_facts

runtime.prepare()

import keras  # noqa: E402

from kclassify.training.batch_size import (  # noqa: E402
    after_loading,
    before_loading,
    check_batch_fits,
)
from kclassify.training.place import Place, taken_place, train_in  # noqa: E402
from kclassify.training.resume import RESUME, as_chosen  # noqa: E402
from kclassify.training.scaling import without_auto  # noqa: E402
from kclassify.training.session import build_session  # noqa: E402
from kclassify.training.time_budget import largest_preset  # noqa: E402


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

    A fit that was stopped, by whatever, goes on when it is called again with the same arguments
    and its `run_dir`, and ends with the weights that it would have ended with. Ctrl-C and SIGTERM
    finish the step and save it; otherwise the steps since the last checkpoint are made again.

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
    if resume == "must" and run_dir is None:
        raise InputError(
            "`run_dir` must be given with resume='must', which goes on with what it holds. "
            "Received: None."
        )
    asked = resolve(_first_preset(data, preset, config), without_auto(config))
    if asked.tensorboard:
        check_installed("tensorboard", True, packages=["tensorboard"], extra="tensorboard")
    path = run_path(run_dir, name=f"{source_name(data)}-{asked.model}")
    runtime.set_threads(asked.threads)
    with taken_place(
        path, again=f"the same with --run-dir {path}", resume=resume, began=began, verbose=verbose
    ) as place:
        preset, settings, source = _settle(data, preset, config, place)
        facts = run_facts(data, preset, settings, source)
        if not place.finished(facts):
            session = build_session(source, settings)
            check_batch_fits(session)
            train_in(place, source, session, facts=facts, callbacks=callbacks)
    return replace(place.run, source=source)


def _first_preset(data: Any, preset: str | None, options: Mapping[str, Any]) -> str:
    """Return the preset to load the data by; where it is "auto", the data helps to choose."""
    if preset == "auto" and options.get("time_budget") is None:
        raise InputError(
            "`preset` must be a preset's name where no time is given. Received: preset='auto'. "
            'Give a time too, such as time_budget="10m".'
        )
    return SIZES[0] if preset == "auto" else preset or default_preset(data)


def _settle(
    data: Any, preset: str | None, options: dict[str, Any], place: Place
) -> tuple[str, FitConfig, Source]:
    """Load the data, and choose what the data, the machine or an earlier process decides."""
    first = _first_preset(data, preset, options)
    loading = before_loading(first, options)
    source = prepare(load_source(data, loading), loading, verbose=place.verbose)
    chosen, options = as_chosen(place.past, preset or first, options)
    if chosen == "auto":
        chosen = largest_preset(source, options, started=place.began)
    return chosen, after_loading(chosen, options, source), source
