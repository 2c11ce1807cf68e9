import json
import shutil

import numpy as np
import pytest
from scipy.stats import binom

import kclassify
from kclassify.checks import InputError
from kclassify.evaluation.comparison import compare, difference_interval, holm, mcnemar
from kclassify.runs import Run

NAMES = np.array(["dark", "grey", "light"])


@pytest.fixture
def pair(tiny_run, tmp_path):
    """Two runs whose predictions are written by hand: b mends 8 images and spoils 1, of 60."""
    labels = np.arange(60) % 3
    a, b = labels.copy(), labels.copy()
    a[:8] = (labels[:8] + 1) % 3
    b[8] = (labels[8] + 1) % 3
    return [make_run(tiny_run, tmp_path / name, labels, said) for name, said in
            (("a", a), ("b", b))]  # fmt: skip


def make_run(tiny_run, path, given, said, **changes):
    shutil.copytree(tiny_run.path, path)
    run = Run(path)
    arrays = {
        "ids": np.array([f"image {place}" for place in range(len(given))]), "labels": given,
        "probabilities": np.eye(3, dtype="float32")[said], "class_names": NAMES,
    }  # fmt: skip
    run.write(run.predictions_file("test"), {**arrays, **changes})
    return run


def test_the_better_run_is_named_with_what_it_fixed_and_broke(pair):
    found = compare(*pair)
    row = found.pairs.iloc[0]
    assert (row["fixed"], row["broken"], row["better"]) == (8, 1, "b")
    assert row["difference"] == pytest.approx(7 / 60)
    assert row["p"] == pytest.approx(2 * (binom.pmf(0, 9, 0.5) + binom.pmf(1, 9, 0.5)))
    assert found.fixed["id"].tolist() == [f"image {place}" for place in range(8)]
    assert found.broken["id"].tolist() == ["image 8"]
    assert found.per_class["fixed"].sum() == 8
    assert "b is better than a (+11.67 points" in str(found)
    assert "image" not in found._repr_html_()
    facts = json.loads(pair[1].analysis_file("comparison").read_text())
    assert facts["pairs"][0]["fixed"] == 8
    assert not pair[0].analysis_file("comparison").exists()


def test_runs_that_cannot_be_told_apart_are_said_to_be_so(tiny_run, tmp_path):
    labels = np.arange(60) % 3
    a, b = labels.copy(), labels.copy()
    a[:3], b[10:15] = (labels[:3] + 1) % 3, (labels[10:15] + 1) % 3
    runs = [make_run(tiny_run, tmp_path / name, labels, said) for name, said in
            (("a", a), ("b", b))]  # fmt: skip
    found = compare(*runs)
    assert found.pairs.loc[0, "better"] == ""
    assert "a and b cannot be told apart at 60 images" in found.verdict


def test_three_runs_are_compared_in_pairs_by_holm(pair, tiny_run, tmp_path):
    labels = np.arange(60) % 3
    third = make_run(tiny_run, tmp_path / "c", labels, labels)
    found = compare(*pair, third)
    assert found.pairs[["a", "b"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert (found.pairs["p_holm"] >= found.pairs["p"]).all()
    assert len(found.verdict.splitlines()) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": np.array(["dark", "gray", "light"])}, "has the classes"),
        ({"ids": np.arange(60).astype(str)}, "60 images, other ones"),
        ({"labels": np.zeros(60, int)}, "the same images with other labels"),
        ({"tta": np.array("flip")}, "test-time augmentation flip rather than none"),
    ],
)
def test_runs_of_other_images_classes_labels_or_views_are_refused(
    pair, tiny_run, tmp_path, changes, message
):
    labels = np.arange(60) % 3
    other = make_run(tiny_run, tmp_path / "other", labels, labels, **changes)
    with pytest.raises(InputError, match=message):
        compare(pair[0], other)


def test_a_run_without_predictions_is_told_to_be_evaluated(pair, tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "new")
    Run(tmp_path / "new").predictions_file("test").unlink(missing_ok=True)
    with pytest.raises(InputError, match="kclassify evaluate"):
        compare(pair[0], tmp_path / "new")


def test_a_run_is_not_compared_with_itself(pair):
    with pytest.raises(InputError, match="another run"):
        compare(pair[0], pair[0].path)


def test_it_is_public(pair):
    assert kclassify.compare(*pair).images == 60


def test_mcnemar_is_exact_and_holds_its_level():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    rng = np.random.default_rng(0)
    changed = rng.binomial(1000, 0.1, 2000)
    false = np.mean([mcnemar(fixed, n - fixed) < 0.05 for n, fixed in
                     zip(changed, rng.binomial(changed, 0.5), strict=True)])  # fmt: skip
    # An exact test is on the safe side.
    assert 0.03 <= false <= 0.05 + 0.01


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says():
    rng, held = np.random.default_rng(1), 0
    for fixed, broken, _ in rng.multinomial(1000, [0.08, 0.05, 0.87], 2000):
        low, high = difference_interval(fixed, broken, images=1000)
        held += low <= 0.03 <= high
    assert 0.94 <= held / 2000 <= 0.96


def test_holm_is_never_below_the_plain_value_and_keeps_their_order():
    p = np.array([0.2, 0.001, 0.04, 0.04])
    found = holm(p)
    assert found.tolist() == pytest.approx([0.2, 0.004, 0.12, 0.12])
