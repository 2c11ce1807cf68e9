import keras
import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.training.state import (
    KERAS_STATE,
    callback_states,
    model_arrays,
    set_callback_states,
    set_model_arrays,
)


def trained(*, steps=3, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dropout(0.5, seed=seed), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((steps, 4)), np.zeros(steps), batch_size=1, verbose=0)
    return model


def test_every_variable_of_a_training_is_taken_and_given_back():
    model, other = trained(), trained(seed=1)
    arrays = model_arrays(model)
    assert any(
        not np.array_equal(value, model_arrays(other)[name]) for name, value in arrays.items()
    )
    set_model_arrays(other, arrays)
    again = model_arrays(other)
    assert arrays.keys() == again.keys()
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert int(other.optimizer.iterations) == 3
    # The next dropout mask is the same, and so is the running loss.
    x = np.ones((1, 4))
    assert np.array_equal(model(x, training=True), other(x, training=True))
    assert model.get_metrics_result() == other.get_metrics_result()


def test_another_network_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((1, 4)), np.zeros((1, 2)), verbose=0)
    with pytest.raises(InputError, match="of this network"):
        set_model_arrays(model, model_arrays(trained()))


class Counting(keras.callbacks.Callback):
    def __init__(self, state):
        super().__init__()
        self.state = state


STATE = {"count": 3, "best": 0.1, "name": None, "mean": np.arange(3.0), "weights": [np.ones(2)] * 3}


def test_a_callback_with_a_state_takes_part():
    facts, arrays = callback_states([keras.callbacks.History(), Counting(STATE)])
    given = Counting({})
    set_callback_states([given, keras.callbacks.History()], facts, arrays)
    assert given.state.keys() == STATE.keys()
    assert (given.state["count"], given.state["best"], given.state["name"]) == (3, 0.1, None)
    assert np.array_equal(given.state["mean"], STATE["mean"])
    assert np.array_equal(given.state["weights"], STATE["weights"])


def test_other_callbacks_than_before_are_refused():
    facts, arrays = callback_states([Counting(STATE)])
    with pytest.raises(InputError, match=r"begun with.*\[\].*'Counting'"):
        set_callback_states([], facts, arrays)


KERAS_CALLBACKS = {
    keras.callbacks.EarlyStopping: {"patience": 3, "restore_best_weights": True},
    keras.callbacks.ModelCheckpoint: {"filepath": "m.keras", "save_best_only": True},
    keras.callbacks.SwapEMAWeights: {"swap_on_epoch": True},
}


@pytest.mark.parametrize("kind", KERAS_STATE, ids=lambda kind: kind.__name__)
def test_keras_callbacks_have_what_we_take_of_them(kind):
    # A newer Keras may call it otherwise.
    callback, other = (kind(**KERAS_CALLBACKS[kind]) for _ in range(2))
    if kind is not keras.callbacks.SwapEMAWeights:
        model = trained()
        keras.callbacks.CallbackList([callback], model=model)
        callback.on_train_begin()
        for epoch, loss in enumerate((0.5, 0.4, 0.6)):
            callback.on_epoch_end(epoch, {"val_loss": loss})
    assert all(hasattr(callback, name) for name in KERAS_STATE[kind])
    set_callback_states([other], *callback_states([callback]))
    for name in KERAS_STATE[kind]:
        first, second = getattr(callback, name), getattr(other, name)
        if name == "best_weights":
            assert [weight.tolist() for weight in first] == [weight.tolist() for weight in second]
        else:
            assert first == second


def test_an_attribute_that_is_only_called_state_is_left_alone():
    facts, arrays = callback_states([Counting("warm"), Counting({"count": 2})])
    assert [fact["state"] for fact in facts] == [{"count": 2}]
    given = [Counting("warm"), Counting({})]
    set_callback_states(given, facts, arrays)
    assert [one.state for one in given] == ["warm", {"count": 2}]
