"""What a search leaves behind: its tables, its best configuration, its report."""

import math
import shlex
from typing import Any

import pandas as pd

from kclassify import runtime
from kclassify.checks import InputError, printable
from kclassify.config import FitConfig
from kclassify.reporting.search_report import search_page
from kclassify.reporting.settings import fit_call, fit_words
from kclassify.runs import Run
from kclassify.search.results import Search, table, trial_rows

runtime.prepare()

from kclassify.search.job import objective_of  # noqa: E402
from kclassify.search.loop import Setting  # noqa: E402
from kclassify.search.setting import search_facts  # noqa: E402


def rows(setting: Setting, oracle: Any) -> list[dict[str, Any]]:
    """Return a row a trial, as things are now."""
    return trial_rows(list(oracle.trials.values()), setting.folder, setting.dimensions)


def search_of(setting: Setting, oracle: Any) -> Search:
    """Return what the search has found so far."""
    source = setting.sessions.source
    name = setting.config.objective
    images = len(source.splits["validation" if name.startswith("val_") else "train"])
    trials = table(rows(setting, oracle), objective_of(name), images=images)
    best = _best(setting, trials)
    command = "" if best is None else _command(setting, best)
    return Search(setting.folder, trials, name, images, best, command)


def finish_search(setting: Setting, oracle: Any) -> Search:
    """Write what the search has found so far, and return it."""
    oracle.save()
    search, folder = search_of(setting, oracle), setting.folder
    trials = search.trials
    folder.write(folder.trials_file, trials.set_index("trial") if len(trials) else trials)
    if search.best is not None:
        folder.write(folder.best_file, search.best.to_json())
    folder.write(folder.report_file, _page(setting, search))
    return search


def _page(setting: Setting, search: Search) -> str:
    return search_page(
        search_facts(setting), search.trials, _curves(search),
        folder=search.folder.path, verdict=search.verdict, command=search.command,
    )  # fmt: skip


def _curves(search: Search) -> dict[str, pd.Series]:
    """Return the objective by epoch of each training, the best first."""
    if "run" not in search.trials:
        return {}
    found = search.trials.dropna(subset=["run"]).drop_duplicates("run")
    places = dict(zip(found["trial"].map(str), found["run"].map(str), strict=True))
    histories = {trial: Run(search.folder.path / run).history for trial, run in places.items()}
    return {trial: rows.set_index("epoch")[search.objective] for trial, rows in histories.items()}


def _best(setting: Setting, trials: pd.DataFrame) -> FitConfig | None:
    """Return the configuration of the first row, unless the user has built its model."""
    if setting.config.objective not in trials or pd.isna(trials["run"].iloc[0]):
        return None
    outcome = setting.folder.outcome(trials["trial"].iloc[0])
    if outcome is None or outcome["own_model"]:
        return None
    run = Run(setting.folder.path / trials["run"].iloc[0])
    return FitConfig.from_json(run.config["config"])


def _command(setting: Setting, best: FitConfig) -> str:
    """Return what trains a configuration: a command, or a call for what no command can say."""
    if setting.budget.seconds is not None:
        best = best.replace(time_budget=f"{math.ceil(setting.budget.seconds)}s")
    manifest = {**setting.facts, "config": best.to_json()}
    words = fit_words(manifest)
    return fit_call(manifest) if words is None else shlex.join(words)


def check_cause(setting: Setting, oracle: Any) -> None:
    """Raise `InputError` with the cause where the search was given up."""
    if oracle.cause is not None:
        raise InputError(
            f"`space` must have trials that can be trained. Received: one of which three in a row "
            f"failed, the last by {printable(oracle.cause)}. Their folders in "
            f"{str(setting.folder)!r} have an error.txt."
        )
