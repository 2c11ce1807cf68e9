"""`fit`: from data to a finished run folder."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_installed
from kclassify.config import FitConfig, resolve
from kclassify.data.sources import default_preset, load_source, prepare, source_name
from kclassify.data.spec import Source
from kclassify.presets import SIZES
from kclassify.runs import Run, run_path
from kclassify.training.beginning import run_facts
from kclassify.training.cluster import find_cluster

runtime.prepare()

import keras  # noqa: E402

from kclassify.data.service import check_service  # noqa: E402
from kclassify.scaling import without_auto  # noqa: E402
from kclassify.training.batch_size import (  # noqa: E402
    after_loading,
    before_loading,
    check_batch_fits,
)
from kclassify.training.callbacks import check_callbacks  # noqa: E402
from kclassify.training.place import Place, taken_place, train_in  # noqa: E402
from kclassify.training.replicas import Replicas, joined  # noqa: E402
from kclassify.training.resume import RESUME, as_chosen  # noqa: E402
from kclassify.training.session import build_session  # noqa: E402
from kclassify.training.time_budget import largest_preset  # noqa: E402
from kclassify.training.together import (  # noqa: E402
    agreed,
    check_alike,
    check_options,
    check_same_policy,
    check_same_weights,
    folder_of,
    past_of_chief,
)


@dataclass(frozen=True)
class Settled:
    """What a training is decided to be: its configuration, its data, and the facts of both."""

    config: FitConfig
    source: Source
    facts: dict[str, Any]


def fit(
    data: Any,
    *,
    preset: str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: bool = True,
    cluster: str | Sequence[str] | None = None,
    worker: int | None = None,
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
            folders, what `pack` wrote or its URL, a CSV file or DataFrame with the columns `path`
            and `label`, a pair of arrays ``(images, labels)``, a mapping from split names to
            pairs, or a `tf.data.Dataset`.
        preset: a named recipe (`kclassify presets`); by default the one that the dataset names.
            ``"auto"`` takes the largest for which `time_budget` has room.
        run_dir: where to write, and where to go on. By default a new folder in ``saved_models/``.
        resume: ``"auto"`` goes on with what `run_dir` holds, or begins; ``"never"`` refuses a
            folder that holds a run, ``"must"`` one that does not.
        callbacks: Keras callbacks of your own, called after kclassify's; the learning rate is
            `schedule`'s. One that has a mapping `state`, of JSON types and arrays, is given it
            back when a fit goes on.
        verbose: show what is done, and a progress bar with the time that is left.
        cluster: the addresses ``host:port`` of several processes that train together, in the same
            order for each, or ``"slurm"``; by default what ``TF_CONFIG`` says. Each calls `fit`
            with the same arguments, before any other work with TensorFlow.
        worker: which of the addresses is this process's; the first is the chief, which writes.
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
        WorkerLostError: another worker is gone; the same call on all goes on.
        VerificationError: the workers ended with different weights.
        KeyboardInterrupt: Ctrl-C, after the step was saved. SIGTERM exits with 143.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> run.summary["epochs_trained"]
        1
    """
    began = time.perf_counter()
    check_choice("resume", resume, RESUME)
    check_callbacks(callbacks)
    if resume == "must" and run_dir is None:
        raise InputError(
            "`run_dir` must be given with resume='must', which goes on with what it holds. "
            "Received: None."
        )
    asked = resolve(_first_preset(data, preset, config), without_auto(config))
    if asked.tensorboard:
        check_installed("tensorboard", True, packages=["tensorboard"], extra="tensorboard")
    among = find_cluster(cluster, worker)
    if among is not None:
        check_options(among, config, preset=preset, run_dir=run_dir)
    path = run_path(run_dir, name=f"{source_name(data)}-{asked.model}")
    runtime.set_threads(asked.threads)
    replicas = joined(asked, among)
    again = f"the same with --run-dir {path}"
    how = resume if replicas.chief else "auto"
    shown = verbose and replicas.chief
    with (
        replicas.watched(f"the same command on all workers goes on with {path}"),
        folder_of(replicas, path) as folder,
        ExitStack() as held,
    ):
        taken = taken_place(folder, again=again, resume=how, began=began, verbose=shown)
        place = agreed(replicas, partial(held.enter_context, taken))
        source = _train(place, path, replicas, partial(_settle, data, preset, config), callbacks)
    return Run(path, source)


def _train(
    place: Place,
    path: Path,
    replicas: Replicas,
    settle: Callable[[Place], Settled],
    callbacks: Sequence[keras.callbacks.Callback],
) -> Source:
    """Train in the place, unless its run is finished; of several workers, all or none."""

    def prepare() -> tuple[Settled, dict[str, Any]]:
        settled = settle(place)
        return settled, _told(settled.facts, place, replicas)

    settled, own = agreed(replicas, prepare)
    everyone = replicas.gather(own)
    check_alike(replicas, everyone)
    if everyone[0]["finished"]:
        return settled.source
    step = everyone[0]["step"]
    past = agreed(replicas, partial(past_of_chief, place, path, step, replicas))
    policy = agreed(replicas, partial(_own_policy, settled, replicas))
    check_same_policy(replicas, policy)
    session = build_session(settled.source, settled.config, replicas=replicas)
    agreed(replicas, partial(check_batch_fits, session))
    train_in(
        replace(place, past=past), settled.source, session,
        facts=own["manifest"], callbacks=callbacks,
    )  # fmt: skip
    # It also waits until the chief has written all.
    check_same_weights(replicas.gather(place.run.summary["weights_sha256"]))
    return settled.source


def _told(facts: dict[str, Any], place: Place, replicas: Replicas) -> dict[str, Any]:
    """Return what a worker tells the others before they train."""
    if replicas.cluster or "workers" in place.past.manifest:
        # The last bits of the weights depend on it.
        facts = facts | {"workers": replicas.workers}
    checkpoint = place.past.checkpoint
    return {
        "manifest": facts,
        "versions": runtime.environment()["packages"],
        "finished": place.finished(facts),
        "step": checkpoint.step if checkpoint else None,
    }


def _own_policy(settled: Settled, replicas: Replicas) -> str:
    """Return the dtype policy of this worker.

    Raises:
        InputError: for what `build_session` would refuse too, but on this worker alone.
    """
    config = settled.config
    if config.data_service is not None:
        check_service(config.data_service, settled.source)
    return runtime.mixed_precision_policy(replicas.devices[0], config.mixed_precision)


def _first_preset(data: Any, preset: str | None, options: Mapping[str, Any]) -> str:
    """Return the preset to load the data by; where it is "auto", the data helps to choose."""
    if preset == "auto" and options.get("time_budget") is None:
        raise InputError(
            "`preset` must be a preset's name where no time is given. Received: preset='auto'. "
            'Give a time too, such as time_budget="10m".'
        )
    return SIZES[0] if preset == "auto" else preset or default_preset(data)


def _settle(data: Any, preset: str | None, options: dict[str, Any], place: Place) -> Settled:
    """Load the data, and choose what the data, the machine or an earlier process decides."""
    first = _first_preset(data, preset, options)
    loading = before_loading(first, options)
    source = prepare(load_source(data, loading), loading, verbose=place.verbose)
    chosen, options = as_chosen(place.past, preset or first, options)
    if chosen == "auto":
        chosen = largest_preset(source, options, started=place.began)
        place.tell(f"preset    {chosen}, the largest that {options['time_budget']} has room for")
    settings = after_loading(chosen, options, source)
    return Settled(settings, source, run_facts(data, chosen, settings, source))
