import keras
import keras_tuner
import pytest

from kclassify.search.hopeless import LEAST_TRIALS, Hopeless

MAX = keras_tuner.Objective("val_accuracy", "max")
MIN = keras_tuner.Objective("val_loss", "min")


def epochs(objective, curves, values):
    """Return how many epochs a trial with these values gets."""
    callback = Hopeless(objective, curves)
    callback.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    callback.model.stop_training = False
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {objective.name: value})
        if callback.model.stop_training:
            return epoch + 1
    return len(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.1, 0.2, 0.3], 2), ([0.6, 0.7, 0.8], 3), ([0.1, 0.9, 0.9], 3)],
    ids=["worse", "better", "late"],
)
def test_a_trial_that_is_worse_than_half_of_them_is_stopped(values, expected):
    curves = [[0.5, 0.6, 0.7]] * LEAST_TRIALS
    assert epochs(MAX, curves, values) == expected


def test_too_few_trials_stop_nothing():
    assert epochs(MAX, [[0.9] * 3] * (LEAST_TRIALS - 1), [0.1] * 3) == 3


def test_those_that_were_shorter_do_not_count():
    assert epochs(MAX, [[0.9]] * LEAST_TRIALS, [0.1] * 3) == 3


def test_a_loss_is_better_when_it_is_less():
    assert epochs(MIN, [[1.0, 0.9]] * LEAST_TRIALS, [2.0, 1.9, 1.8]) == 2


def test_its_state_goes_on():
    first = Hopeless(MAX, [])
    first.values = [0.1, 0.2]
    second = Hopeless(MAX, [])
    second.state = first.state
    assert second.values == [0.1, 0.2]
