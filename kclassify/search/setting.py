"""A search that is ready to start, or to go on: what was asked, and what was measured for it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, parse_duration
from kclassify.runs import read_json
from kclassify.search.budget import OVERHEAD_SHARE, Budget, Rung, cost, rungs
from kclassify.search.config import SearchConfig
from kclassify.search.space import declare
from kclassify.search.state_file import StateFile

runtime.prepare()

import keras_tuner  # noqa: E402

from kclassify.search.hypermodel import discover  # noqa: E402
from kclassify.search.job import measured_epoch, objective_of  # noqa: E402
from kclassify.search.loop import Setting, place_of  # noqa: E402
from kclassify.search.oracles import RUNNING, build_oracle  # noqa: E402
from kclassify.training.resume import FREE_FACTS, FREE_FIELDS, differences  # noqa: E402

# What a search's file is read for.
_KINDS = {"config": dict, "search": dict}


def search_facts(setting: Setting) -> dict[str, Any]:
    """Return what must be the same where the search goes on."""
    space = [dimension.to_json() for dimension in setting.dimensions]
    made = setting.hypermodel
    search = {
        **setting.config.facts(),
        "space": space,
        "hypermodel": None if made is None else getattr(made, "__qualname__", type(made).__name__),
        "budget": asdict(setting.budget),
    }
    return {**setting.facts, "search": search}


def settled(setting: Setting, *, given: Mapping[str, Any], began: float) -> Setting:
    """Return the setting with a budget and an end; the budget as it was where it goes on.

    Raises:
        InputError: the folder holds another search, or the time is too short.
    """
    file = setting.folder.facts_file
    before = read_json(file, _KINDS) if file.is_file() else {}
    if before:
        setting = replace(setting, budget=Budget(**before["search"]["budget"]))
        _check_same(setting, before)
    epoch = measured_epoch(setting.sessions, setting.base)
    if setting.config.seconds < epoch:
        raise InputError(
            f"`time_budget` must be at least an epoch, {math.ceil(epoch)}s for this data and model "
            f"on this machine. Received: time_budget={setting.config.time_budget!r}."
        )
    began -= StateFile(setting.folder.state_file).elapsed
    setting = replace(setting, began=began, end=began + setting.config.seconds, epoch=epoch)
    return setting if before else replace(setting, budget=_budget(setting, given))


def _check_same(setting: Setting, before: Mapping[str, Any]) -> None:
    here = search_facts(setting)
    differing = [
        *differences(before["config"], here["config"], but=FREE_FIELDS),
        *differences(before["search"], here["search"], but=("max_trials", "space")),
        *_space_differences(before["search"]["space"], here["search"]["space"]),
        *differences(before, here, but=(*FREE_FACTS, "search")),
    ]
    if differing:
        raise InputError(
            "`project_name` must be that of a search with the same arguments and data. Received: "
            f"{str(setting.folder)!r}, which has {', '.join(differing)}. Give the same again, or "
            "choose another name; nothing was written."
        )


def _space_differences(there: Sequence[Mapping], here: Sequence[Mapping]) -> list[str]:
    """Return the names that were not to be searched, or not as they are now."""
    differing = [item for item in (*there, *here) if item not in there or item not in here]
    names = list(dict.fromkeys(item["name"] for item in differing))
    return [f"another space ({', '.join(names)})"] * bool(names)


def _budget(setting: Setting, given: Mapping[str, Any]) -> Budget:
    """Return how long a trial is: as was said, or as long as the search has time for."""
    asked = setting.config
    if asked.trial_time is not None:
        return Budget(seconds=parse_duration("trial_time", asked.trial_time))
    if asked.time_budget is None or "epochs" in given:
        return Budget(epochs=setting.base.epochs)
    by_time = Budget(seconds=0.0)
    trainings = cost(_rungs(asked, by_time), units=by_time.units) * asked.executions_per_trial
    return Budget(seconds=asked.seconds * (1 - OVERHEAD_SHARE) / trainings)


def _rungs(asked: SearchConfig, budget: Budget) -> list[Rung]:
    return rungs(asked.tuner, max_trials=asked.max_trials, budget=budget)


def oracle_of(setting: Setting) -> Any:
    """Return the oracle of a search, at its beginning."""
    hp = _space(setting)
    return build_oracle(
        setting.config.tuner,
        hp,
        file=setting.folder.state_file,
        objective=objective_of(setting.config.objective),
        max_trials=setting.config.max_trials,
        budget=setting.budget,
        seed=setting.base.seed,
        began=setting.began,
        end=setting.end,
    )


def _space(setting: Setting) -> keras_tuner.HyperParameters:
    if setting.hypermodel is not None:
        return discover(setting.hypermodel)
    hp = keras_tuner.HyperParameters()
    declare(setting.dimensions, hp)
    return hp


def plan_text(setting: Setting, oracle: Any) -> str:
    """Return what is about to be done, and how long it will take."""
    asked, units = setting.config, setting.budget.units
    plan = _rungs(asked, setting.budget)
    epochs = cost(plan, units=units) * asked.executions_per_trial * _whole_epochs(setting)
    going_on = sum(rung.trials for rung in plan if rung.first)
    ends = datetime.now() + timedelta(seconds=seconds_left(setting, oracle))
    # Of alternatives, KerasTuner knows the second by a name of its own.
    names = dict.fromkeys(item.name.split("#")[0] for item in oracle.hyperparameters.space)
    train_on = f", of which {going_on} train an earlier one on" if going_on else ""
    return (
        f"search    {asked.tuner}: {asked.max_trials} trials{train_on}; {epochs:.0f} epochs, "
        f"of {setting.epoch:.2g} s for the preset's network{_on_a_share(setting)}\n"
        f"space     {', '.join(names)}\n"
        f"folder    {setting.folder}\n"
        f"ends      at about {ends:%H:%M:%S}"
    )


def _on_a_share(setting: Setting) -> str:
    if setting.config.train_fraction == 1:
        return ""
    return f", on {len(setting.sessions.source.splits['train']):,} training images"


def _whole_epochs(setting: Setting) -> int:
    return setting.budget.epochs_of(setting.epoch)


def seconds_left(setting: Setting, oracle: Any) -> float:
    """Return how long the search will still take, by what its trials have taken."""
    units = setting.budget.units
    unit = _whole_epochs(setting) * setting.epoch * setting.config.executions_per_trial / units
    ended = [trial for trial in list(oracle.trials.values()) if trial.status != RUNNING]
    places = [place_of(oracle, trial) for trial in ended]
    done = sum(place.last - place.first or units for place in places)
    outcomes = [setting.folder.outcome(trial.trial_id) for trial in ended]
    spent = sum(outcome["seconds"] for outcome in outcomes if outcome)
    factor = spent / (done * unit) if done else 1 + OVERHEAD_SHARE
    left = cost(_rungs(setting.config, setting.budget), units=units) * units - done
    return max(0.0, min(left * unit * factor, setting.end - time.perf_counter()))
