import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.evaluation.abstention import (
    check_abstention,
    coverage_curve,
    label_sets_for,
    shown_thresholds,
    threshold_for,
)


def world(rng, images):
    """Return confidences, and whether each is right: as often as it is sure."""
    confidence = rng.uniform(0.4, 1.0, images)
    return confidence, rng.uniform(size=images) < confidence


def test_the_guarantee_holds_as_often_as_it_says():
    # Of images whose confidence is at least c, between 0.4 and 1, so many are right: (1 + c) / 2.
    found = [threshold_for(*world(np.random.default_rng(draw), 2000), accuracy=0.85)
             for draw in range(2000)]  # fmt: skip
    kept = np.mean([(1 + max(one.probability, 0.4)) / 2 >= 0.85 for one in found])
    # A bound: at least as often, and that it is not far too careful is seen by what is answered.
    assert kept >= 0.95
    assert np.mean([one.coverage for one in found]) > 0.35


def test_a_higher_accuracy_answers_less():
    confidence, correct = world(np.random.default_rng(0), 5000)
    shares = [threshold_for(confidence, correct, accuracy=a).coverage for a in (0.75, 0.85, 0.9)]
    assert shares[0] > shares[1] > shares[2] > 0
    found = threshold_for(confidence, correct, accuracy=0.85)
    assert np.mean(confidence >= found.probability) == found.coverage
    assert correct[confidence >= found.probability].mean() > 0.85


def test_images_of_one_confidence_are_answered_together():
    confidence = np.repeat([0.9, 0.5], [400, 100])
    found = threshold_for(confidence, confidence > 0.6, accuracy=0.9)
    assert (found.probability, found.coverage) == (0.9, 0.8)


@pytest.mark.parametrize(("images", "wrong"), [(20, 0), (1000, 1000)])
def test_what_cannot_be_guaranteed_is_refused_with_what_could_be(images, wrong):
    correct = np.arange(images) >= wrong
    with pytest.raises(InputError, match=r"can be guaranteed at best.*images without an error"):
        threshold_for(np.linspace(0.5, 1, images), correct, accuracy=0.99)


def test_label_sets_cover_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), []
    for _ in range(2000):
        scores = rng.beta(2, 1, 200)
        found = label_sets_for(scores[:100], coverage=0.9)
        covered.append(np.mean(scores[100:] >= found.least_probability))
    # Between the coverage and one in 101 more.
    assert 0.9 - 0.005 <= np.mean(covered) <= 0.9 + 0.01 + 0.005


def test_too_few_images_for_a_coverage_are_refused_with_how_many_are_needed():
    with pytest.raises(InputError, match=r"which takes 99\."):
        label_sets_for(np.ones(98), coverage=0.99)
    assert label_sets_for(np.ones(99), coverage=0.99).images == 99


def test_the_curve_falls_from_the_surest_to_all():
    confidence, correct = world(np.random.default_rng(0), 1000)
    curve = coverage_curve(confidence, correct)
    assert curve["coverage"].iloc[-1] == 1
    assert curve["accuracy"].iloc[-1] == correct.mean()
    assert curve["accuracy"].iloc[9] > correct.mean()
    assert curve["threshold"].is_monotonic_decreasing
    assert len(coverage_curve(confidence[:3], correct[:3])) == 3


def test_thresholds_are_shown_up_to_what_can_be_guaranteed():
    confidence = np.linspace(0, 1, 3000)
    shown = shown_thresholds(confidence, confidence > 0.3)
    assert [found.accuracy for found in shown] == [0.9, 0.95, 0.98, 0.99, 0.995]
    assert shown_thresholds(confidence[:5], confidence[:5] > 0.3) == []


@pytest.mark.parametrize(
    ("abstain_at", "label_sets", "message"),
    [
        (0.99, None, "a mapping"),
        ({"acuracy": 0.9}, None, "Did you mean 'accuracy'"),
        ({"accuracy": 1.0}, None, "above 0 and below 1"),
        ({"accuracy": "much"}, None, "above 0 and below 1"),
        (None, 0, "`label_sets` must be a share"),
    ],
)
def test_what_is_asked_for_is_checked(abstain_at, label_sets, message):
    with pytest.raises(InputError, match=message):
        check_abstention(abstain_at, label_sets)
