"""A session that is used again trains as a new one would, bit for bit, and compiles nothing."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from kclassify.config import resolve
from kclassify.data.sources import load_source, prepare
from kclassify.search.sessions import Sessions
from kclassify.training.session import build_session, train_batches
from kclassify.training.state import model_arrays


@pytest.fixture(scope="module")
def config(tiny_options):
    options = {name: value for name, value in tiny_options.items() if name != "verbose"}
    changes = {"progressive": None, "optimizer": "adamw", "weight_decay": 0.01, "dropout": 0.5}
    return resolve("fast", {**options, **changes})


@pytest.fixture(scope="module")
def source(tiny_arrays, config):
    return prepare(load_source(tiny_arrays, config), config, verbose=False)


def trained(session, source):
    session.model.fit(
        train_batches(session, source, epochs=1), steps_per_epoch=session.steps, verbose=0,
        shuffle=False,
    )  # fmt: skip
    return model_arrays(session.model)


CHANGES = [
    {"learning_rate": 0.01}, {"weight_decay": 0.1}, {"label_smoothing": 0.3}, {"warmup": 0.7},
    {"seed": 5}, {"augmentation": "flip_crop"}, {"epochs": 3},
]  # fmt: skip


@pytest.fixture(scope="module")
def sessions(config, source):
    """Sessions of which one has been trained."""
    found = Sessions(source)
    trained(found.get(config), source)
    return found


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_it_trains_as_a_new_one(change, config, source, sessions):
    again = sessions.get(config.replace(**change))
    found = trained(again, source)
    expected = trained(build_session(source, config.replace(**change)), source)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_it_compiles_once(config, source, monkeypatch):
    sessions = Sessions(source)
    model = sessions.get(config).model
    traced, step = [], model.train_step

    def counted(data):
        traced.append(1)
        return step(data)

    monkeypatch.setattr(model, "train_step", counted)
    trained(sessions.get(config), source)
    once = len(traced)
    for change in CHANGES:
        assert sessions.get(config.replace(**change)).model is model
        trained(sessions.get(config.replace(**change)), source)
    assert 0 < len(traced) == once


def test_another_structure_is_another_session(config, source):
    sessions = Sessions(source)
    first = sessions.get(config).model
    assert sessions.get(config.replace(batch_size=4)).model is not first
    assert sessions.get(config).model is first
    sessions.get(config.replace(model_args={"filters": 8, "depth": 1}))
    # Two are kept, and the one that was used last of the two is.
    assert sessions.get(config).model is first


def test_the_pace_is_measured_once_and_leaves_no_trace(config, source, monkeypatch):
    sessions = Sessions(source)
    before = model_arrays(sessions.get(config).model)
    pace = sessions.pace(config, seconds=0.01)
    monkeypatch.setattr("kclassify.search.sessions.measure_pace", None)
    assert sessions.pace(config, seconds=0.01) == pace
    after = model_arrays(sessions.get(config).model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}], ids=str)
def test_a_session_that_is_dropped_leaves_no_graph(changes, config, source):
    before = graphs()
    session = build_session(source, config.replace(**changes))
    trained(session, source)
    assert graphs() > before
    del session
    keras.backend.clear_session()
    assert graphs() == before


def graphs():
    """Return how many traced functions TensorFlow has."""
    gc.collect()
    kind = type(tf.function(lambda: 0).get_concrete_function().graph)
    return sum(isinstance(thing, kind) for thing in gc.get_objects())
