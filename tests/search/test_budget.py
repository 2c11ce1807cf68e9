import pytest

from kclassify.config import FitConfig
from kclassify.search.budget import Budget, Rung, cost, epoch_seconds, rungs

BUDGET = Budget(epochs=9)


def test_epochs_are_the_same_for_all_and_time_is_fewer_epochs_for_the_slow():
    assert Budget(epochs=7).epochs_of(100.0) == 7
    assert [Budget(seconds=60.0).epochs_of(seconds) for seconds in (1, 7, 100)] == [60, 9, 1]


def test_a_rung_ends_with_an_epoch():
    budget = Budget(seconds=1.0)
    assert [budget.until(unit, 4) for unit in (1, 3, 9)] == [1, 1, 4]
    assert [budget.until(unit, 90) for unit in (1, 3, 9)] == [10, 30, 90]
    assert [Budget(epochs=9).until(unit, 9) for unit in (1, 3, 9)] == [1, 3, 9]


@pytest.mark.parametrize("most", [1, 9, 13, 20, 23, 40])
def test_hyperband_has_as_many_trials_as_were_asked_for(most):
    assert sum(rung.trials for rung in rungs("hyperband", max_trials=most, budget=BUDGET)) == most


def test_what_goes_on_is_not_paid_twice():
    # 9 of 1 unit, 3 of 2 more, 1 of 6 more.
    assert cost(rungs("hyperband", max_trials=13, budget=BUDGET), units=9) == pytest.approx(21 / 9)
    assert cost(rungs("random", max_trials=13, budget=BUDGET), units=9) == 13


def test_within_a_time_the_defaults_come_first_and_whole():
    budget = Budget(seconds=60.0)
    first, *others = rungs("hyperband", max_trials=14, budget=budget)
    assert first == Rung(1, 0, budget.units)
    assert others == rungs("hyperband", max_trials=13, budget=BUDGET)
    assert rungs("random", max_trials=5, budget=budget) == [Rung(5, 0, budget.units)]


def test_seconds_of_an_epoch():
    config = FitConfig(batch_size=10)
    assert epoch_seconds((1.0, 3.0), config, images=100, validation=30) == pytest.approx(23.0)
