"""Every oracle is asked the same, however often it is interrupted."""

import json
import time
from pathlib import Path

import keras_tuner
import pytest

from kclassify.checks import InputError
from kclassify.search.budget import Budget
from kclassify.search.oracles import (
    COMPLETED,
    FAILED,
    IDLE,
    INVALID,
    MOST_FAILURES,
    ORACLES,
    STOPPED,
    build_oracle,
    grid_size,
)

BUDGET = Budget(epochs=9)
OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")


def space():
    hp = keras_tuner.HyperParameters()
    hp.Choice("a", [1, 2, 3, 4], default=3)
    with hp.conditional_scope("a", [1, 2]):
        hp.Float("b", 0.0, 1.0, step=0.5)
    return hp


def two_points():
    hp = keras_tuner.HyperParameters()
    hp.Choice("a", [1, 2])
    return hp


def endless():
    hp = keras_tuner.HyperParameters()
    hp.Float("a", 0.0, 1.0)
    return hp


def oracle(tuner, *, max_trials=10, seconds=60.0, reload=True, budget=BUDGET, of=space):
    now = time.perf_counter()
    found = build_oracle(
        tuner, of(), file=Path("state.json"), objective=OBJECTIVE, max_trials=max_trials,
        budget=budget, seed=0, began=now, end=now + seconds,
    )  # fmt: skip
    if reload:
        found.reload()
    return found


def score(trial):
    values = trial.hyperparameters.values
    return values["a"] / 10 + values.get("b", 0.0) / 100


def end(found, trial, status=COMPLETED):
    if status == COMPLETED:
        found.update_trial(trial.trial_id, {"val_accuracy": score(trial)})
    trial.status = status
    found.end_trial(trial)


def asked(trial):
    return trial.trial_id, dict(trial.hyperparameters.values)


def run(tuner, *, interrupted):
    """Return what was tried in order; with a new process before and in the middle of each trial."""
    tried = []
    found = oracle(tuner)
    while (trial := found.create_trial("t")).status != STOPPED:
        if interrupted:
            found = oracle(tuner)
            again = found.create_trial("t")
            assert asked(again) == asked(trial)
            trial = again
        tried.append(asked(trial))
        end(found, trial)
        if interrupted:
            found = oracle(tuner)
    return tried


def spans(found, *, failing=()):
    """Return the spans of all trials that one worker is given, and end each."""
    seen = []
    while (trial := found.create_trial("t")).status != STOPPED:
        values = trial.hyperparameters.values
        seen.append((values["tuner/initial_epoch"], values["tuner/epochs"]))
        end(found, trial, FAILED if trial.trial_id in failing else COMPLETED)
    return seen


@pytest.mark.parametrize("tuner", ORACLES)
def test_an_interrupted_search_tries_as_much_and_nothing_twice(tuner):
    whole = run(tuner, interrupted=False)
    for path in Path().glob("state*.json"):
        path.unlink()
    cut = run(tuner, interrupted=True)
    assert len(cut) == len(whole)
    assert len({id for id, _ in cut}) == len(cut)
    if tuner != "bayesian":  # whose random starts are not in its state
        assert cut == whole


@pytest.mark.parametrize("tuner", ORACLES)
def test_the_first_trial_has_the_defaults(tuner):
    assert oracle(tuner).create_trial("t").hyperparameters.values["a"] == 3


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_truncated_state_is_repaired_from_the_one_before(cut):
    found = oracle("random")
    for _ in range(3):
        end(found, found.create_trial("t"))
    found.create_trial("t")
    content = Path("state.json").read_bytes()
    Path("state.json").write_bytes(content[:cut])
    again = oracle("random", reload=False)
    assert again.reload() == ["state.json"]
    assert len(again.end_order) == 3
    assert again.create_trial("t").trial_id == "03"


def test_both_states_damaged_begins_anew_and_says_so():
    found = oracle("random")
    end(found, found.create_trial("t"))
    for name in ("state.json", "state.before.json"):
        Path(name).write_text("{")
    again = oracle("random", reload=False)
    assert again.reload() == ["state.json", "state.before.json"]


def test_what_had_ended_when_the_process_died_is_not_run_again():
    """KerasTuner saves an ended trial while it still counts as ongoing."""
    found = oracle("random")
    trial = found.create_trial("t")
    end(found, trial)
    state = json.loads(Path("state.json").read_text())
    assert state["oracle"]["ongoing_trials"]
    assert oracle("random").create_trial("t").trial_id != trial.trial_id


def test_orphans_are_put_back_in_their_order():
    found = oracle("random")
    first, second = found.create_trial("one"), found.create_trial("two")
    again = oracle("random")
    ids = [again.create_trial("t").trial_id, again.create_trial("u").trial_id]
    assert ids == [first.trial_id, second.trial_id]


def test_three_failures_in_a_row_stop_it():
    found = oracle("random")
    for number in range(MOST_FAILURES):
        trial = found.create_trial("t")
        trial.message = f"reason {number}"
        end(found, trial, FAILED)
    assert found.cause == "reason 2"
    assert found.create_trial("t").status == STOPPED


def test_a_success_between_failures_goes_on():
    found = oracle("random")
    for status in (FAILED, FAILED, COMPLETED, FAILED, FAILED):
        end(found, found.create_trial("t"), status)
    assert found.cause is None


def test_what_memory_was_short_for_is_tried_once_more():
    found = oracle("random")
    trial = found.create_trial("t")
    end(found, trial, INVALID)
    again = found.create_trial("t")
    assert again.trial_id == trial.trial_id
    end(found, again, INVALID)
    assert found.create_trial("t").trial_id != trial.trial_id
    assert found.trials[trial.trial_id].status == FAILED


def test_no_trial_is_begun_when_the_time_is_over():
    assert oracle("random", seconds=-1.0).create_trial("t").status == STOPPED


def test_hyperband_trains_the_best_on_from_where_they_were():
    found = oracle("hyperband", max_trials=13)
    trials = []
    while (trial := found.create_trial("t")).status not in (STOPPED, IDLE):
        trials.append(trial)
        end(found, trial)
    values = [trial.hyperparameters.values for trial in trials]
    spans = [(value["tuner/initial_epoch"], value["tuner/epochs"]) for value in values]
    # The space has eight points, and the first rung nine places.
    assert (1, 3) in spans
    assert (3, 9) in spans
    going_on = next(value for value in values if value["tuner/initial_epoch"] == 1)
    assert found.trials[going_on["tuner/trial_id"]].hyperparameters.values["a"] == going_on["a"]


def test_within_a_time_hyperband_begins_with_the_defaults_to_their_end():
    found = oracle("hyperband", max_trials=14, budget=Budget(seconds=9.0))
    first = found.create_trial("t").hyperparameters.values
    assert (first["tuner/initial_epoch"], first["tuner/epochs"]) == (0, 9)
    assert first["a"] == space().get("a")
    again = oracle("hyperband", max_trials=14, budget=Budget(seconds=9.0))
    resumed = again.create_trial("t")
    assert resumed.hyperparameters.values == first
    end(again, resumed)
    second = again.create_trial("t").hyperparameters.values
    assert (second["tuner/initial_epoch"], second["tuner/epochs"]) == (0, 1)


def test_a_grid_has_every_point_once():
    tried = run("grid", interrupted=False)
    assert len(tried) == grid_size(space()) == 8
    assert len({json.dumps(values, sort_keys=True) for _, values in tried}) == 8


def test_a_grid_that_is_too_large_says_how_large():
    with pytest.raises(InputError, match="at least the size of the grid, 8"):
        oracle("grid", max_trials=7)


def test_a_lost_workers_trial_is_anothers_and_ends_once():
    found = oracle("random")
    lost = found.create_trial("lost")
    found.give_up_on(60.0)
    assert not found.over()
    found.give_up_on(-1.0)
    assert not found.over()
    again = found.create_trial("other")
    assert again.trial_id == lost.trial_id
    end(found, again)
    end(found, lost)
    assert found.end_order == [lost.trial_id]


def test_a_worker_waits_while_another_one_may_be_lost():
    found = oracle("random", max_trials=1)
    trial = found.create_trial("one")
    assert found.create_trial("two").status == IDLE
    found.give_up_on(-1.0)
    assert not found.over()
    again = found.create_trial("two")
    assert again.trial_id == trial.trial_id
    end(found, again)
    assert found.create_trial("two").status == STOPPED


def test_a_chief_is_done_when_all_know_or_are_lost():
    found = oracle("random", max_trials=1)
    trial = found.create_trial("one")
    found.heard["gone"] = time.monotonic() - 100
    found.tuner_ids.add("gone")
    end(found, trial)
    found.give_up_on(60.0)
    assert not found.over()
    assert found.create_trial("one").status == STOPPED
    found.give_up_on(60.0)
    assert found.over()


def test_what_ended_after_it_was_thought_lost_is_not_tried_again():
    found = oracle("random", max_trials=2)
    lost = found.create_trial("one")
    found.give_up_on(-1.0)
    end(found, lost)
    assert found.create_trial("two").trial_id != lost.trial_id


def test_a_chief_whose_time_is_over_ends_without_being_asked():
    found = oracle("random", seconds=-1.0)
    assert found.over()


def test_bayesian_search_is_random_for_a_third_of_its_trials_at_most():
    found = oracle("bayesian", max_trials=12)
    assert found.num_initial_points == 4
    asked = []
    found.gpr.fit, fit = lambda *pair: (asked.append(len(pair[1])), fit(*pair)), found.gpr.fit
    for _ in range(6):
        end(found, found.create_trial("one"))
    assert asked == [4, 5]


def test_a_trial_that_diverged_is_as_bad_as_the_worst():
    found = oracle("bayesian", max_trials=12)
    for value in (0.5, 2.0, float("-inf")):
        trial = found.create_trial("one")
        found.update_trial(trial.trial_id, {"val_accuracy": value})
        trial.status = COMPLETED
        found.end_trial(trial)
    # Higher is better here, so that it is the negative of each.
    assert found._vectorize_trials()[1].tolist() == [-0.5, -2.0, -0.5]


def test_the_last_trial_is_kept_for_the_one_that_is_trained_to_the_end():
    """Another worker asks while the last of the rung before is in work."""
    found, promoted = oracle("hyperband", max_trials=20), []
    while len(promoted) < 3:
        trial = found.create_trial("one")
        if trial.hyperparameters.values["tuner/round"] == 1:
            promoted.append(trial)
        if len(promoted) < 3:
            end(found, trial)
    found.max_trials = len(found.trials) + 1
    for _ in range(3):
        assert found.create_trial("two").status == IDLE
    end(found, promoted[-1])
    last = found.create_trial("two")
    assert last.hyperparameters.values["tuner/epochs"] == BUDGET.epochs


def test_the_last_trial_is_kept_for_it_while_another_bracket_is_filled():
    found, promoted = oracle("hyperband", max_trials=16, of=endless), []
    while len(promoted) < 3:
        trial = found.create_trial("one")
        if trial.hyperparameters.values["tuner/round"] == 1:
            promoted.append(trial)
        if len(promoted) < 3:
            end(found, trial)
    while (trial := found.create_trial("two")).status != IDLE:
        end(found, trial)
    assert len(found.trials) == 15
    assert found.create_trial("two").status == IDLE
    end(found, promoted[-1])
    last = found.create_trial("two")
    assert last.hyperparameters.values["tuner/initial_epoch"] == 3


def test_a_space_of_two_points_is_trained_to_the_end_and_over():
    found = oracle("hyperband", max_trials=14, of=two_points)
    assert spans(found) == [(0, 1), (0, 1), (1, 3), (1, 3), (3, 9)]


def test_who_asks_while_the_last_of_a_small_space_are_trained_on_waits():
    found, promoted = oracle("hyperband", max_trials=14), []
    while len(promoted) < 3:
        trial = found.create_trial(f"one, {len(promoted)}")
        if trial.hyperparameters.values["tuner/round"] == 1:
            promoted.append(trial)
        else:
            end(found, trial)
    for _ in range(2):
        assert found.create_trial("two").status == IDLE
    for trial in promoted:
        end(found, trial)
    assert spans(found)[0] == (3, 9)


def test_a_failure_is_one_of_those_that_a_rung_throws_out():
    found = oracle("hyperband", max_trials=13, of=endless)
    assert (3, 9) in spans(found, failing=["04"])
    assert found.trials["04"].status == FAILED
    assert found.trials["04"].score is None


@pytest.mark.parametrize("failing", ["00", "01"])
def test_a_failure_is_not_trained_on_where_fewer_are_left_than_places(failing):
    found = oracle("hyperband", max_trials=14, of=two_points)
    assert spans(found, failing=[failing]) == [(0, 1), (0, 1), (1, 3), (3, 9)]
    assert all(trial.hyperparameters.values.get("tuner/trial_id") != failing
               for trial in found.trials.values())  # fmt: skip
