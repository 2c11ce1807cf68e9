import keras
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.training.callbacks import SETTING_THE_RATE, check_callbacks


@pytest.mark.parametrize("kind", SETTING_THE_RATE)
def test_callbacks_that_set_the_rate_are_refused_before_any_work(kind, tiny_arrays):
    options = {"schedule": float} if kind is keras.callbacks.LearningRateScheduler else {}
    with pytest.raises(InputError, match=f"leave the learning rate to `schedule`.*{kind.__name__}"):
        kclassify.fit(tiny_arrays, run_dir="r", callbacks=[kind(**options)])


@pytest.mark.parametrize("given", [keras.callbacks.EarlyStopping(), ["early"], None])
def test_what_is_no_list_of_callbacks_is_refused_before_any_work(given, tiny_arrays):
    with pytest.raises(InputError, match="`callbacks` must be a list of instances"):
        kclassify.fit(tiny_arrays, run_dir="r", callbacks=given)


def test_keras_own_are_taken():
    check_callbacks([keras.callbacks.EarlyStopping(), keras.callbacks.TerminateOnNaN()])
