"""`tune`: look for the configuration that does best on the validation images."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, check_number, is_whole, make_folder
from kclassify.config import FitConfig
from kclassify.data.sources import default_preset, load_source, prepare, source_name
from kclassify.data.spec import Source
from kclassify.data.splitting import share_of_train
from kclassify.runs import ROOT
from kclassify.search.board import Board
from kclassify.search.config import SearchConfig
from kclassify.search.folder import SearchFolder, search_path
from kclassify.search.results import Search
from kclassify.search.space import judged_by, read_space

runtime.prepare()

from kclassify.search.crowd import Role, run_beside, serve, work  # noqa: E402
from kclassify.search.finish import check_cause, finish_search, rows, search_of  # noqa: E402
from kclassify.search.hypermodel import HyperModel  # noqa: E402
from kclassify.search.job import objective_of, run_job  # noqa: E402
from kclassify.search.loop import Setting, run_trials  # noqa: E402
from kclassify.search.sessions import Sessions  # noqa: E402
from kclassify.search.setting import (  # noqa: E402
    oracle_of,
    plan_text,
    search_facts,
    seconds_left,
    settled,
)
from kclassify.training.batch_size import after_loading, before_loading  # noqa: E402
from kclassify.training.beginning import run_facts  # noqa: E402
from kclassify.training.interruption import Interrupted, giving_way  # noqa: E402
from kclassify.training.lock import sole_writer  # noqa: E402
from kclassify.training.notes import say, silent  # noqa: E402

# A worker may have been started before its chief.
SECONDS_TO_FIND_CHIEF = 120.0


def tune(
    data: Any,
    *,
    tuner: str = "hyperband",
    max_trials: int = 14,
    space: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    hypermodel: HyperModel | None = None,
    objective: str = "val_accuracy",
    executions_per_trial: int = 1,
    time_budget: str | float | None = None,
    trial_time: str | float | None = None,
    train_fraction: float = 1.0,
    directory: str | os.PathLike[str] | None = None,
    project_name: str | None = None,
    workers: int | None = None,
    chief: str | None = None,
    tuner_id: str | None = None,
    preset: str | None = None,
    verbose: bool = True,
    **config: Any,
) -> Search:
    """Search for the configuration that does best on the validation images.

    KerasTuner chooses what to try. Every trial is trained from one copy of the data in memory, by
    the step that an earlier one has compiled where only numbers differ. A search that was stopped,
    by whatever, goes on when it is called again with the same arguments and `project_name`, within
    a trial too; no trial that has ended is run again.

    The test images are not looked at.

    Args:
        data: as for `fit`.
        tuner: ``"hyperband"``, ``"bayesian"``, ``"random"`` or ``"grid"``. Hyperband trains many
            a little and the best of them longer, from where they were.
        max_trials: how many at most; one that Hyperband trains longer counts again. A search that
            has ended goes on when there may be more. The default, 14, is one bracket of Hyperband
            (9 trials, the best 3 of them, the best of these) and the defaults.
        space: what may differ: a mapping from fields of `FitConfig` and arguments of the model to
            their values, see `kclassify.search.space.read_space`; or the path of a YAML or JSON
            file with one. By default what matters most for the model.
        hypermodel: instead of a space, a KerasTuner HyperModel or a function of its `hp`, which
            returns a compiled model of uint8 images, or a mapping of arguments of `fit`.
        objective: ``"val_accuracy"``, ``"val_loss"``, ``"accuracy"`` or ``"loss"``.
        executions_per_trial: trainings of each, with seeds of their own; the mean counts.
        time_budget: such as ``"30m"``: how long all of it may take. A trial that it ends is saved.
        trial_time: such as ``"90s"``: how long the whole training of a trial is. By default it is
            as many `epochs` as the preset has; with a `time_budget` alone, as long as that has
            room for. Where trials have a time and not `epochs`, Hyperband begins with the
            defaults, trained to the end.
        train_fraction: the share of the training images that trials are trained on, of every class
            alike; they are validated on all. The command for the best trains it on all.
        directory: where searches are kept; ``saved_models`` by default.
        project_name: the name of this one's folder, by which it goes on. By default a new one.
        workers: run each trial in a process of its own, so many at once. A process that dies is
            a failed trial, tried once more with half the batch. By default all run in this one.
        chief: ``"host:port"``, for a search on several machines that share `directory`: one calls
            with ``tuner_id="chief"`` and keeps the oracle, the others with ids of their own train.
            KerasTuner's environment variables say the same.
        tuner_id: who this is, with `chief`.
        preset: as for `fit`: what every trial has where the space says nothing.
        verbose: show the plan and a live table.
        **config: as for `fit`.

    Returns:
        A `Search`. Its folder has `trials.csv`, `best.json` and `report.html`; those of a chief's
        search are complete when the chief has ended.

    Raises:
        InputError: something about the arguments or the data, and nothing was written; or three
            trials one after another have failed.
        StorageError: the disk is full; the same call goes on when there is room.
        KeyboardInterrupt: Ctrl-C; all is saved.

    Example:
        >>> import kclassify
        >>> found = kclassify.tune("digits", tuner="random", max_trials=2, epochs=1,
        ...                        space={"filters": [4, 8]}, verbose=False)
        >>> len(found.trials)
        2
    """
    began = time.perf_counter()
    asked = SearchConfig(
        tuner, max_trials, objective, executions_per_trial, time_budget, trial_time,
        train_fraction,
    )  # fmt: skip
    role = Role.of(chief, tuner_id)
    _check_workers(workers, hypermodel, space, role, project_name)
    preset = preset or default_preset(data)
    first = before_loading(preset, config)
    runtime.set_threads(first.threads)
    name = f"{source_name(data)}-search"
    folder = SearchFolder(search_path(directory, project_name, name=name))
    tell = say if verbose else silent
    with ExitStack() as held:
        existed = folder.path.is_dir()
        if existed and not role.worker:
            _hold(folder, held, tell)
        source = prepare(load_source(data, first), first, verbose=verbose)
        base = after_loading(preset, config, source)
        made = hypermodel is not None
        setting = Setting(
            config=asked,
            folder=folder,
            base=base,
            dimensions=()
            if made
            else judged_by(
                objective, read_space(space, base, source.input_shape), own=space is not None
            ),
            hypermodel=hypermodel,
            facts=run_facts(data, preset, base, source),
            sessions=Sessions(_share(source, asked, base)),
        )
        if role.worker:
            return _as_worker(setting, role, given=config, began=began)
        setting = settled(setting, given=config, began=began)
        oracle = oracle_of(setting)
        if not existed:
            make_folder("project_name", folder.path)
            _hold(folder, held, tell)
        for damaged in oracle.reload():
            tell(f"note      a damaged file is passed over: {damaged}")
        folder.write(folder.facts_file, search_facts(setting))
        if len(oracle.end_order) >= max_trials:
            tell(f"finished before: {folder}; a larger max_trials goes on with it")
        else:
            tell(plan_text(setting, oracle))
        board = Board(folder, partial(rows, setting, oracle), objective=objective_of(objective),
                      left=partial(seconds_left, setting, oracle))  # fmt: skip
        ended = board.ended if verbose else silent
        with _advice(setting, oracle), board.shown() if verbose else nullcontext():
            _run(setting, oracle, role, workers=workers, ended=ended)
        found = finish_search(setting, oracle)
        check_cause(setting, oracle)
    tell(str(found))
    return found


def _share(source: Source, asked: SearchConfig, base: FitConfig) -> Source:
    """Return the part of the data that trials are trained on.

    Raises:
        InputError: it has no whole batch.
    """
    part = share_of_train(source, asked.train_fraction, seed=base.seed)
    images, whole = len(part.splits["train"]), len(source.splits["train"])
    if images < base.batch_size:
        raise InputError(
            f"`train_fraction` must leave a batch of {base.batch_size} images. Received: "
            f"train_fraction={asked.train_fraction}, which leaves {images:,} of {whole:,}. Raise "
            "it, or lower batch_size."
        )
    return part


@contextmanager
def _advice(setting: Setting, oracle: Any) -> Iterator[None]:
    """Where somebody stops the search, keep what it has found, and say how to go on."""
    folder = setting.folder
    place = "" if folder.path.parent == ROOT else f" --directory {folder.path.parent}"
    advice = f"{folder} is saved; the same with --project-name {folder.path.name}{place} goes on"
    with giving_way(advice):
        try:
            yield
        except (KeyboardInterrupt, Interrupted) as stop:
            finish_search(setting, oracle)
            raise Interrupted(getattr(stop, "signal", signal.SIGINT)) from stop


def _run(
    setting: Setting,
    oracle: Any,
    role: Role,
    *,
    workers: int | None,
    ended: Callable[[str], None],
) -> None:
    """Run the trials: in this process, in others of this machine, or by workers anywhere."""
    if role.address is not None:
        with role.environment():
            serve(oracle, role.address)
    elif workers is not None:
        run_beside(setting, oracle, workers=workers, ended=ended)
    else:
        run_trials(setting, oracle, _execute(setting), tuner_id="tuner0", ended=ended)


def _execute(setting: Setting) -> Callable[..., dict[str, Any]]:
    """Return what makes the trainings of a job in this process."""

    def execute(job: Any, hp: Any) -> dict[str, Any]:
        return run_job(job, setting.sessions, end=setting.end, hypermodel=setting.hypermodel, hp=hp)

    return execute


def _as_worker(setting: Setting, role: Role, *, given: Mapping[str, Any], began: float) -> Search:
    """Train what a chief gives out, until it has no more."""
    patience = time.monotonic() + SECONDS_TO_FIND_CHIEF
    while not setting.folder.facts_file.is_file() and time.monotonic() < patience:
        time.sleep(0.5)
    if not setting.folder.facts_file.is_file():
        raise InputError(
            f"`chief` must be a chief whose search is in {str(setting.folder)!r}. Received: "
            f"'{role.address}', and there is no search there. Start the chief, and have "
            "`directory` on a disk that all of them share."
        )
    setting = settled(setting, given=given, began=began)
    advice = f"its trial is saved; the same with --tuner-id {role.tuner_id} goes on"
    with role.environment(), giving_way(advice):
        oracle = oracle_of(setting)
        work(setting, role.client(oracle), _execute(setting), tuner_id=role.tuner_id)
    oracle.reload()
    return search_of(setting, oracle)


def _check_workers(
    workers: int | None,
    hypermodel: HyperModel | None,
    space: Any,
    role: Role,
    project_name: str | None,
) -> None:
    """Raise `InputError` for what does not go together."""
    expected = "a whole number of at least 1"
    ok = workers is None or is_whole(workers, least=1)
    check_number("workers", workers, expected=expected, ok=ok)
    if hypermodel is not None and space is not None:
        raise InputError(
            "`space` must be left out with a hypermodel, which has its own. Received: both."
        )
    if hypermodel is not None and workers is not None:
        raise InputError(
            "`workers` must be left out with a hypermodel, whose code other processes do not "
            f"have. Received: workers={workers}. Use `chief` with a script of your own."
        )
    if role.address is not None and project_name is None:
        raise InputError(
            "`project_name` must be given with a chief, since its workers use the same folder. "
            "Received: None."
        )


def _hold(folder: SearchFolder, held: ExitStack, tell: Callable[..., None]) -> None:
    """Keep other processes out of the folder until `held` ends."""
    before = held.enter_context(sole_writer(folder.as_run, argument="project_name"))
    if before:
        tell(f"note      {before} ended before it had finished {folder}")
