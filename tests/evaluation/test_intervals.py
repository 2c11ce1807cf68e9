from functools import cache

import numpy as np
import pytest
from scipy.stats import binomtest

from kclassify.evaluation.intervals import drawn_times, intervals, wilson
from kclassify.evaluation.metrics import METRICS, all_metrics


@pytest.mark.parametrize(("right", "images"), [(0, 1), (0, 20), (20, 20), (7, 11), (4500, 5000)])
def test_wilson_is_scipys(right, images):
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert wilson(right, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_takes_many_and_none():
    low, high = wilson(np.array([0, 5]), np.array([0, 10]))
    assert low[0] == 0
    assert high[0] == 1
    assert 0.2 < low[1] < 0.5 < high[1] < 0.8


def world(rng, images, classes=4):
    """Return labels and probabilities whose true metrics can be had from many images."""
    # As many of each class every time, as a stratified split has.
    labels = np.sort(np.arange(images) % classes)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5 + 0.3 * labels
    values = np.exp(logits)
    return labels, values / values.sum(axis=1, keepdims=True)


def test_every_metric_has_an_interval_around_it():
    labels, probabilities = world(np.random.default_rng(0), 600, classes=7)
    found, values = intervals(labels, probabilities), all_metrics(labels, probabilities)
    assert set(found) == set(values) == set(METRICS)
    for name, (low, high) in found.items():
        assert low <= values[name] <= high, name
        assert 0 < high - low < 0.3, name


def test_more_images_make_narrower_intervals():
    small, large = (intervals(*world(np.random.default_rng(1), n)) for n in (200, 3200))
    # A calibration error of few images is larger by chance, and its interval then not by as much.
    for name in [name for name in small if "ece" not in name]:
        ratio = (small[name][1] - small[name][0]) / (large[name][1] - large[name][0])
        assert 2 < ratio < 9, name


def test_a_calibration_error_that_every_draw_exceeds_is_within_its_interval():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(10, 0.3), 3000)
    labels = np.array([rng.choice(10, p=row) for row in probabilities])
    found, values = intervals(labels, probabilities), all_metrics(labels, probabilities)
    for name in ("ece", "adaptive_ece", "classwise_ece"):
        low, high = found[name]
        assert low < values[name] < high, name
        assert low >= 0


@pytest.mark.parametrize("images", [1, 2, 5])
def test_few_images_and_a_single_class_are_no_error(images):
    labels = np.zeros(images, int)
    found = intervals(labels, np.tile([0.9, 0.1], (images, 1)))
    assert all(np.isfinite(ends).all() for ends in found.values())


def test_a_draw_has_as_many_images_of_every_class():
    strata = np.array([0, 0, 0, 1, 2, 2])
    (times,) = drawn_times(strata, draws=50, seed=0)
    assert times.shape == (50, 6)
    assert (times[:, :3].sum(axis=1) == 3).all()
    assert (times[:, 3] == 1).all()
    assert (times[:, 4:].sum(axis=1) == 2).all()


def coverage(name, *, images, draws):
    """Return how often the interval holds the true value, over simulated test splits."""
    # So many images of a fixed share of each class that their metric is the true one.
    truth = all_metrics(*world(np.random.default_rng(99), 400_000))[name]
    held = 0
    for draw in range(draws):
        low, high = intervals_of(name, *world(np.random.default_rng(draw), images))
        held += low <= truth <= high
    return held / draws


@cache
def drawn_once(strata, draws, seed):
    return list(drawn_times(np.frombuffer(strata, int), draws=draws, seed=seed))


def intervals_of(name, labels, probabilities):
    with pytest.MonkeyPatch.context() as patch:
        # Of the same classes and seed the same images are drawn, which takes most of the time.
        patch.setattr(
            "kclassify.evaluation.intervals.drawn_times",
            lambda strata, *, draws, seed: drawn_once(strata.astype(int).tobytes(), draws, seed),
        )
        patch.setattr(
            "kclassify.evaluation.intervals.metrics_of", lambda classes: {name: METRICS[name]}
        )
        return intervals(labels, probabilities)[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "loss", "brier"])
def test_intervals_hold_the_true_value_as_often_as_they_say(name):
    found = coverage(name, images=1000, draws=2000)
    print(f"{name}: {found:.4f}")
    # One point, and the spread of 2,000 draws itself is half of one.
    assert 0.94 <= found <= 0.96
