import keras
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.training.callbacks import SETTING_THE_RATE, BestWeights, check_callbacks


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


def test_early_stopping_waits_until_images_have_their_full_size():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    best = BestWeights(model, patience=2)
    best.set_model(model)
    model.stop_training = False
    logs = {"loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5}
    for epoch in range(5):
        best.on_epoch_end(epoch, {**logs, "image_scale": 0.5})
    assert not model.stop_training
    for epoch in range(5, 8):
        assert not model.stop_training
        best.on_epoch_end(epoch, {**logs, "image_scale": 1.0})
    assert model.stop_training
    assert best.best_epoch == 6
