import numpy as np
import pytest

from kclassify.config import FitConfig
from kclassify.training.schedules import SHAPES, WarmUpThenShape, build_schedule


def rates(name, warmup=0.2, steps=100):
    config = FitConfig(schedule=name, warmup=warmup, learning_rate=2.0)
    schedule = build_schedule(config, total_steps=steps)
    return np.array([float(schedule(step)) for step in range(steps)])


@pytest.mark.parametrize("name", SHAPES)
def test_every_schedule_peaks_at_the_learning_rate_and_never_rises_after_it(name):
    values = rates(name)
    peak = values.argmax()
    assert values.max() == pytest.approx(2.0, rel=0.02)
    assert np.all(np.diff(values[peak:]) <= 1e-6)
    assert np.all(values >= 0)


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"constant"}))
def test_the_warm_up_is_linear(name):
    np.testing.assert_allclose(rates(name)[:20], 2.0 * np.arange(1, 21) / 20, rtol=1e-5)


def test_known_values():
    assert rates("constant").tolist() == [2.0] * 100
    assert rates("triangular", warmup=0.0)[50] == pytest.approx(1.0)
    assert rates("cosine", warmup=0.0)[50] == pytest.approx(1.0, rel=1e-4)
    assert rates("step", warmup=0.0)[[49, 50, 75]] == pytest.approx([2.0, 0.2, 0.02])
    assert rates("exponential", warmup=0.0)[50] == pytest.approx(0.2)


def test_config_round_trip():
    schedule = WarmUpThenShape(0.1, "cosine", 100, 0.1)
    again = WarmUpThenShape.from_config(schedule.get_config())
    assert float(again(37)) == float(schedule(37))
