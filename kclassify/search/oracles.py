"""KerasTuner's oracles, whose state outlives the process.

What they lack and have here: the state in one file that is always whole, with the one before it;
trials that a dead process had in work are put back, and only those; a grid goes on too; a search
ends in time; the first trial has the values that the search begins with.
"""

import copy
import functools
import hashlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.search.state_file import StateFile

runtime.prepare()

import keras_tuner  # noqa: E402
from keras_tuner.engine import trial as trials  # noqa: E402

from kclassify.search.budget import Budget  # noqa: E402

RUNNING, IDLE, STOPPED = "RUNNING", "IDLE", "STOPPED"
COMPLETED, FAILED, INVALID = "COMPLETED", "FAILED", "INVALID"
# So many failures one after another, and the next would fail too.
MOST_FAILURES = 3
# Of its rungs, each keeps the best third and trains it three times as long (Li et al. 2018).
FACTOR = 3


class Durable:
    """What every oracle here has beside its own way to choose.

    Attributes:
        file: where the state is.
        began: when the search began, by `time.perf_counter`; earlier by what it took before.
        end: when no trial is begun any more, by `time.perf_counter`.
        cause: why the search was given up, or None.
        heard: when each worker and each trial in work was last heard of.
        told_to_stop: whether some worker knows that the search is over.
    """

    # KerasTuner's own.
    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    tuner_ids: set[str]
    end_order: list[str]
    get_state: Callable[[], dict[str, Any]]
    set_state: Callable[[dict[str, Any]], None]
    get_space: Callable[[], Any]

    file: StateFile
    began: float
    end: float
    cause: str | None
    heard: dict[str, float]
    told_to_stop: bool

    def save(self) -> None:
        """Write the whole state; KerasTuner calls it after each change."""
        found = [trial.get_state() for trial in self.trials.values()]
        elapsed = time.perf_counter() - self.began
        self.file.write({"oracle": self.get_state(), "trials": found, "elapsed": elapsed})

    def _save_trial(self, trial: Any) -> None:
        """Leave it to `save`."""

    def reload(self) -> list[str]:
        """Go on from the state in the file, if there is one; return the names of damaged files."""
        state, damaged = self.file.read()
        if state is None:
            return damaged
        self.trials = {found["trial_id"]: trials.Trial.from_state(found)
                       for found in state["trials"]}  # fmt: skip
        self.set_state(state["oracle"])
        self._put_back()
        return damaged

    def _put_back(self) -> None:
        """Have what nobody works at any more run again, in its order; what has ended has ended."""
        self.ongoing_trials = {}
        self.tuner_ids = set()
        waiting = [id for id in self.trials if id not in self.end_order]
        self._retry_queue = waiting[::-1]

    def create_trial(self, tuner_id: str) -> Any:
        """Return the next trial, or one that says that the search is over."""
        self.heard[tuner_id] = time.monotonic()
        over = self.cause is not None or time.perf_counter() >= self.end
        if over and tuner_id not in self.ongoing_trials:
            self.tuner_ids.discard(tuner_id)
            hyperparameters = keras_tuner.HyperParameters()
            trial = trials.Trial(hyperparameters, trial_id="none", status=STOPPED)
        else:
            trial = super().create_trial(tuner_id)  # type: ignore[misc]
            if trial.status == STOPPED and self.ongoing_trials:
                # One of those may come back, from a worker that is lost.
                trial.status = IDLE
                self.tuner_ids.add(tuner_id)
        self.told_to_stop = self.told_to_stop or trial.status == STOPPED
        return trial

    def get_trial(self, trial_id: str) -> Any:
        """Return a trial; a worker that asks for its own is alive."""
        self.heard[trial_id] = time.monotonic()
        return super().get_trial(trial_id)  # type: ignore[misc]

    @keras_tuner.synchronized
    def end_trial(self, trial: Any) -> None:
        """End a trial, once: one that was thought lost may come back after another has made it."""
        # Whoever has it now: nobody needs to try it again.
        self._retry_queue = [id for id in self._retry_queue if id != trial.trial_id]
        if trial.trial_id not in self.end_order:
            super().end_trial(trial)  # type: ignore[misc]

    @keras_tuner.synchronized
    def give_up_on(self, silence: float) -> None:
        """Give the trials of workers that were not heard of for so many seconds to others."""
        lately = time.monotonic() - silence
        for tuner_id, trial in list(self.ongoing_trials.items()):
            heard = max(self.heard.get(trial.trial_id, 0.0), self.heard.get(tuner_id, 0.0))
            if heard < lately:
                del self.ongoing_trials[tuner_id]
                self._retry_queue.append(trial.trial_id)
        self.tuner_ids = {
            id for id in self.tuner_ids
            if id in self.ongoing_trials or self.heard.get(id, 0.0) >= lately
        }  # fmt: skip

    @keras_tuner.synchronized
    def over(self) -> bool:
        """Say whether no worker needs an answer any more."""
        told = self.told_to_stop or time.perf_counter() >= self.end
        return told and not self.ongoing_trials and not self.tuner_ids

    def _random_values(self) -> Any:
        """Begin with the defaults."""
        if self.trials:
            return super()._random_values()  # type: ignore[misc]
        hp = self.get_space()
        return {item.name: item.default for item in hp.space if hp.is_active(item)}

    def _check_consecutive_failures(self) -> None:
        """Take note; KerasTuner would raise before it has saved."""
        last = [self.trials[id] for id in self.end_order[-MOST_FAILURES:]]
        if len(last) == MOST_FAILURES and all(trial.status == FAILED for trial in last):
            self.cause = last[-1].message or "no reason is known"


class DurableGrid(Durable, keras_tuner.oracles.GridSearchOracle):
    """A grid search that goes on."""

    def _put_back(self) -> None:
        super()._put_back()
        # The order of the values is not in the state; it follows from the trials.
        in_order: Callable[[str], Any] = functools.cmp_to_key(
            lambda a, b: self._compare(
                self.trials[a].hyperparameters.values, self.trials[b].hyperparameters.values
            )
        )
        before = None
        for id in sorted(self.trials, key=in_order):
            self._ordered_ids.insert(id, before)
            before = id
        # One that was tried already is passed over.
        self._populate_next = list(self.trials)


class DurableRandom(Durable, keras_tuner.oracles.RandomSearchOracle):
    """A random search that goes on."""


class DurableBayesian(Durable, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Bayesian search that goes on."""

    def populate_space(self, trial_id: str) -> Any:
        """Choose the next values; that few trials say little is no warning to anybody."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().populate_space(trial_id)

    def _vectorize_trials(self) -> Any:
        """Return the trials as numbers; one that diverged is as bad as the worst that did not."""
        x, y = super()._vectorize_trials()
        worst = max(y[np.isfinite(y)], default=0.0)
        return x, np.where(np.isfinite(y), y, worst)


class DurableHyperband(Durable, keras_tuner.oracles.HyperbandOracle):
    """A Hyperband search that goes on, in spaces too that have fewer points than a rung.

    KerasTuner's would stop there, with nothing trained to the end.

    Attributes:
        begins_whole: whether the first trial, which has the defaults, is trained to the end at
            once and is in no bracket; see `Budget.begins_whole`.
    """

    begins_whole = False
    exhausted = False
    # KerasTuner's own.
    objective: Any
    _brackets: list[dict[str, Any]]
    _current_bracket: int
    _current_iteration: int

    def populate_space(self, trial_id: str) -> Any:
        """Choose the next values, and how long to train them."""
        if self.begins_whole and not self.trials:
            values = {**self._random_values(), "tuner/initial_epoch": 0, "tuner/bracket": 0,
                      "tuner/epochs": self.max_epochs, "tuner/round": 0}  # fmt: skip
            return {"status": RUNNING, "values": values}
        failed = [id for id, trial in self.trials.items() if trial.status == FAILED]
        found = self._with_worst(failed, trial_id)
        past = found.get("values", {}).get("tuner/trial_id")
        if past not in failed:
            return found
        # Fewer are left than there are places: it fills its place as it is, and costs no trial.
        places = (info for one in self._brackets for rung in one["rounds"] for info in rung)
        next(info for info in places if info["id"] == trial_id)["id"] = past
        return self.populate_space(trial_id)

    def _with_worst(self, failed: list[str], trial_id: str) -> Any:
        """Choose as KerasTuner does, with failures as the worst of a rung: it would wait for them.

        Of each rung it throws out a fixed number, of those alone that came to their end.
        """
        known = self.trials
        self.trials = {**known, **{id: self._as_worst(known[id]) for id in failed}}
        try:
            return super().populate_space(trial_id)
        finally:
            self.trials = known

    def _as_worst(self, trial: Any) -> Any:
        found = copy.copy(trial)
        found.status = COMPLETED
        found.score = float("-inf" if self.objective.direction == "max" else "inf")
        return found

    def _random_values(self) -> Any:
        values = super()._random_values()
        self.exhausted = values is None
        return values

    def _random_trial(self, trial_id: str, bracket: dict[str, Any]) -> Any:
        found = {"status": IDLE}
        # What another worker trains now will be trained on: no new ones in its place.
        if not self._owes_the_rest(bracket):
            found = super()._random_trial(trial_id, bracket)
            if self.exhausted and bracket["rounds"][0]:
                return self.populate_space(trial_id)
        if not bracket["rounds"][0]:
            self._take_back(bracket)
        return found

    def _take_back(self, bracket: dict[str, Any]) -> None:
        """Have a bracket that nothing was found for begun again later."""
        self._brackets.remove(bracket)
        self._current_bracket += 1
        if self._current_bracket == self._get_num_brackets():
            self._current_bracket, self._current_iteration = 0, self._current_iteration - 1

    def _owes_the_rest(self, new: dict[str, Any]) -> bool:
        """Tell whether the trials that are left are those that others will be trained on by."""
        owed = sum(
            self._get_size(bracket["bracket_num"], number) - len(trials)
            for bracket in self._brackets if bracket is not new
            for number, trials in enumerate(bracket["rounds"])
        )  # fmt: skip
        return bool(self.ongoing_trials) and len(self.trials) + owed >= self.max_trials

    def _get_size(self, bracket_num: int, round_num: int) -> int:
        size = super()._get_size(bracket_num, round_num)
        if not self.exhausted:
            return size
        if round_num > 0:
            # No more can go on than there are.
            return min(size, self._get_size(bracket_num, round_num - 1))
        there = [len(one["rounds"][0]) for one in self._brackets
                 if one["bracket_num"] == bracket_num]  # fmt: skip
        return min([size, *there])


ORACLES: dict[str, Callable[..., Any]] = {
    "random": DurableRandom,
    "bayesian": DurableBayesian,
    "hyperband": DurableHyperband,
    "grid": DurableGrid,
}


def build_oracle(
    tuner: str,
    hp: keras_tuner.HyperParameters,
    *,
    file: Path,
    objective: keras_tuner.Objective,
    max_trials: int,
    budget: Budget,
    seed: int,
    began: float,
    end: float,
) -> Any:
    """Return the oracle of a search.

    Args:
        tuner: a name in `ORACLES`.
        hp: the space.
        file: where its state is kept.
        objective: what is best.
        max_trials: how many; those that Hyperband trains longer count again.
        budget: of a trial, which Hyperband divides.
        seed: of the random choices.
        began: when the search began, by `time.perf_counter`.
        end: when no trial is begun any more, by `time.perf_counter`.

    Raises:
        InputError: a grid of more points than `max_trials`.
    """
    options = {"objective": objective, "hyperparameters": hp, "seed": _spread(seed),
               "max_retries_per_trial": 1}  # fmt: skip
    if tuner == "hyperband":
        oracle = ORACLES[tuner](
            max_epochs=budget.units, factor=FACTOR, hyperband_iterations=0, **options
        )
        oracle.max_trials, oracle.begins_whole = max_trials, budget.begins_whole
    elif tuner == "bayesian":
        # By default three times the dimensions, often all of the trials.
        first = min(3 * len(hp.space), max(3, max_trials // 3))
        oracle = ORACLES[tuner](max_trials=max_trials, num_initial_points=first, **options)
    else:
        oracle = ORACLES[tuner](max_trials=max_trials, **options)
    if tuner == "grid":
        _check_grid(hp, max_trials)
    oracle.file, oracle.began, oracle.end = StateFile(file), began, end
    oracle.cause, oracle.heard, oracle.told_to_stop = None, {}, False
    oracle.verbose = 0
    return oracle


def _spread(seed: int) -> int:
    """Return another seed: KerasTuner draws from the seeds that follow, which small ones share."""
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4])


def sweep(units: int) -> list[tuple[int, int, int]]:
    """Return the rungs of Hyperband's first sweep: trials, and their first and last unit.

    Example:
        >>> sweep(9)
        [(9, 0, 1), (3, 1, 3), (1, 3, 9), (5, 0, 3), (2, 3, 9), (3, 0, 9)]
    """
    oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=units, factor=FACTOR)
    rungs = []
    for bracket in reversed(range(oracle._get_num_brackets())):
        first = 0
        for rung in range(oracle._get_num_rounds(bracket)):
            last = oracle._get_epochs(bracket, rung)
            rungs.append((oracle._get_size(bracket, rung), first, last))
            first = last
    return rungs


def grid_size(hp: keras_tuner.HyperParameters) -> int:
    """Return how many points the grid of a space has, conditions regarded."""
    parents = {condition.name for item in hp.space for condition in item.conditions}

    def count(place: int, chosen: dict[str, Any]) -> int:
        if place == len(hp.space):
            return 1
        item = hp.space[place]
        if not all(condition.is_active(chosen) for condition in item.conditions):
            return count(place + 1, chosen)
        values = list(item.values)
        if item.name in parents:
            return sum(count(place + 1, {**chosen, item.name: value}) for value in values)
        return len(values) * count(place + 1, chosen)

    return count(0, {})


def _check_grid(hp: keras_tuner.HyperParameters, max_trials: int) -> None:
    size = grid_size(hp)
    if size > max_trials:
        raise InputError(
            f"`max_trials` must be at least the size of the grid, {size:,}. Received: "
            f"max_trials={max_trials}. Raise it, declare fewer values, or take another tuner."
        )
