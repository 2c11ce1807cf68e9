import keras
import numpy as np
import pytest

from kclassify.config import FitConfig
from kclassify.training.losses import ClassifierLoss
from kclassify.training.optimizers import OPTIMIZERS, build_optimizer, clip_kernels
from kclassify.training.schedules import WarmUpThenShape, build_schedule


def small_model():
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def step(model, config):
    schedule = build_schedule(config, total_steps=10)
    model.compile(build_optimizer(config, schedule), ClassifierLoss())
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    return model.train_on_batch(x, np.arange(16, dtype="int32") % 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_every_weight(name):
    model = small_model()
    before = [np.array(w) for w in model.trainable_variables]
    step(model, FitConfig(optimizer=name, learning_rate=0.1, schedule="constant"))
    # The first Dense layer's bias has no gradient, for batch norm takes it out again.
    moved = [not np.allclose(a, b) for a, b in zip(before, model.trainable_variables, strict=True)]
    assert moved[0]
    assert moved[-2:] == [True, True]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_weight_decay_is_none(name):
    """Keras's AdamW takes no None."""
    model = small_model()
    before = np.array(model.trainable_variables[0])
    step(model, FitConfig(optimizer=name, weight_decay=0.0, schedule="constant"))
    assert not np.array_equal(before, model.trainable_variables[0])


def test_muon_without_weight_decay_writes_no_weight_for_it(monkeypatch):
    """A decay asks for the rate once a weight, the step itself once."""
    asked, rate = [], WarmUpThenShape.__call__
    monkeypatch.setattr(
        WarmUpThenShape, "__call__", lambda *given: asked.append(given) or rate(*given)
    )
    model = small_model()
    for decay, times in ((0.0, 1), (0.1, 3)):
        config = FitConfig(optimizer="muon", weight_decay=decay, schedule="constant")
        optimizer = build_optimizer(config, build_schedule(config, total_steps=10))
        optimizer.build(model.trainable_variables)
        asked.clear()
        optimizer.apply([keras.ops.zeros_like(w) for w in model.trainable_variables])
        assert len(asked) == times


def test_weight_decay_leaves_biases_and_normalization_alone():
    model = small_model()
    config = FitConfig(optimizer="sgd", learning_rate=0.5, schedule="constant", weight_decay=0.5)
    optimizer = build_optimizer(config, build_schedule(config, total_steps=10))
    optimizer.build(model.trainable_variables)
    before = [np.array(w) for w in model.trainable_variables]
    optimizer.apply([keras.ops.zeros_like(w) for w in model.trainable_variables])
    shrunk = [
        not np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True)
    ]
    assert shrunk == ["kernel" in w.name for w in model.trainable_variables]


def test_gradient_clipping_bounds_the_step():
    model = small_model()
    before = [np.array(w) for w in model.trainable_variables]
    step(
        model,
        FitConfig(
            optimizer="sgd", learning_rate=1.0, schedule="constant",
            weight_decay=0.0, gradient_clip=1e-3,
        ),
    )  # fmt: skip
    moved = sum(
        np.sum((a - np.array(b)) ** 2)
        for a, b in zip(before, model.trainable_variables, strict=True)
    )
    assert np.sqrt(moved) <= 1e-3 * 1.01


def test_clipped_kernels_stay_within_the_limit():
    model = small_model()
    clip_kernels(model, 0.05)
    step(model, FitConfig(optimizer="sgd", learning_rate=1.0, schedule="constant"))
    kernels = [w for w in model.trainable_variables if "kernel" in w.name]
    assert all(np.abs(w).max() <= 0.05 for w in kernels)
