"""Confident learning, against loops that follow the paper's text image by image."""

import numpy as np
import pytest

from kclassify.evaluation.confident_learning import (
    confident_joint,
    estimated_joint,
    margins,
    wrong_labels,
)

CASES = 1000


def loop_joint(given, probabilities):
    images, classes = probabilities.shape
    thresholds = [
        np.mean([probabilities[i][j] for i in range(images) if given[i] == j])
        if j in given else np.inf for j in range(classes)
    ]  # fmt: skip
    counts = [[0] * classes for _ in range(classes)]
    for i in range(images):
        reached = [j for j in range(classes) if probabilities[i][j] >= thresholds[j] - 1e-9]
        if reached:
            counts[given[i]][max(reached, key=lambda j: (probabilities[i][j], -j))] += 1
    return counts


def loop_estimate(given, probabilities):
    counts = loop_joint(given, probabilities)
    found = []
    for label, row in enumerate(counts):
        images = sum(1 for one in given if one == label)
        if sum(row):
            found.append([count * images / sum(row) for count in row])
        else:
            found.append([images * (label == other) for other in range(len(row))])
    return found


def loop_wrong(given, probabilities):
    joint, wrong = loop_estimate(given, probabilities), set()
    for label, row in enumerate(joint):
        members = [i for i, one in enumerate(given) if one == label]
        for other, images in enumerate(row):
            if other == label:
                continue
            ahead = {i: probabilities[i][other] - probabilities[i][label] for i in members}
            chosen = sorted(members, key=lambda i: (-ahead[i], i))[: round(images)]
            wrong |= {i for i in chosen if ahead[i] > 0}
    return [i in wrong for i in range(len(given))]


def loop_margins(given, probabilities):
    return [
        row[label] - max(value for other, value in enumerate(row) if other != label)
        for label, row in zip(given, probabilities, strict=True)
    ]


def random_case(seed):
    """Return labels and probabilities: few or many classes, some of them never given."""
    rng = np.random.default_rng(seed)
    classes, images = rng.integers(2, 7), rng.integers(1, 40)
    given = rng.integers(0, rng.integers(1, classes + 1), images)
    probabilities = rng.dirichlet(np.full(classes, rng.choice([0.05, 0.5, 5.0])), images)
    if seed % 5 == 0:
        # Ties: tenths, and rows that are all the same.
        probabilities = np.round(probabilities, 1)
    if seed % 50 == 0:
        probabilities[:] = 1 / classes
    kinds = (np.float32, np.float64)
    return given, probabilities.astype(kinds[seed % 2])


def test_all_is_as_the_paper_has_it_on_random_and_degenerate_cases():
    for seed in range(CASES):
        given, probabilities = random_case(seed)
        exact = probabilities.astype(float)
        assert confident_joint(given, probabilities).tolist() == loop_joint(given, exact), seed
        joint = estimated_joint(given, probabilities)
        np.testing.assert_allclose(joint, loop_estimate(given, exact), atol=1e-9)
        assert joint.sum() == pytest.approx(len(given))
        np.testing.assert_allclose(margins(given, exact), loop_margins(given, exact))
        assert wrong_labels(given, exact).tolist() == loop_wrong(given, exact), seed


def test_sure_and_right_models_find_exactly_the_wrong_labels():
    true = np.arange(300) % 3
    given = true.copy()
    given[:12] = (true[:12] + 1) % 3
    sure = np.eye(3)[true] * 0.9 + 0.1 / 3
    assert np.flatnonzero(wrong_labels(given, sure)).tolist() == list(range(12))
    joint = estimated_joint(given, sure)
    assert joint.trace() == pytest.approx(288)
    np.testing.assert_allclose(joint.sum(axis=1), np.bincount(given))


def test_models_that_know_nothing_find_no_wrong_label():
    given = np.arange(30) % 3
    assert not wrong_labels(given, np.full((30, 3), 1 / 3)).any()


def test_a_class_that_is_never_given_is_never_the_true_one():
    given, probabilities = np.zeros(10, int), np.tile([0.2, 0.8], (10, 1))
    assert estimated_joint(given, probabilities).tolist() == [[10, 0], [0, 0]]
    assert not wrong_labels(given, probabilities).any()
