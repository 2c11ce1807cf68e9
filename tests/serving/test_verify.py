import ast
import sys

import numpy as np
import pytest

from kclassify.checks import VerificationError
from kclassify.models.deciding import Deciding, LabelSets, Threshold
from kclassify.serving import child, verify
from kclassify.serving.signatures import NOTHING_WITHHELD

EXPECTED = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
GOOD = {
    "encoded/probabilities": EXPECTED,
    "encoded/class_id": np.array([0, 1]),
    "encoded/label": np.array([b"a", b"b"]),
    "encoded/repeatable": np.array(True),
}


def compare(deciding=NOTHING_WITHHELD, **changes):
    answers = {**GOOD, **{f"encoded/{name}": value for name, value in changes.items()}}
    return verify._compare("saved_model", answers, {"encoded": EXPECTED}, ("a", "b"), deciding)


def test_the_same_answers_pass():
    assert compare()["serve_bytes"]["max_difference"] == 0


def test_a_difference_within_the_tolerance_passes():
    assert compare(probabilities=EXPECTED + 5e-5)["serve_bytes"]["class_ids_equal"]


@pytest.mark.parametrize(
    "changes",
    [
        {"probabilities": EXPECTED + 2e-4},
        {"probabilities": EXPECTED * np.nan},
        {"class_id": np.array([1, 1])},
        {"label": np.array([b"a", b"a"])},
        {"repeatable": np.array(False)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_any_difference_fails(changes):
    with pytest.raises(VerificationError, match="serve_bytes"):
        compare(**changes)


WITHHOLDING = Deciding(Threshold(0.9, 0.95, 0.75, 0.5, 100), LabelSets(0.9, 0.25, 100))
WITHHELD = {
    "class_id": np.array([-1, 1]),
    "label": np.array([b"unknown", b"b"]),
    "label_set": np.array([[True, True], [False, True]]),
}


def test_answers_that_are_withheld_pass():
    assert compare(WITHHOLDING, **WITHHELD)["serve_bytes"]["label_sets_equal"]


@pytest.mark.parametrize(
    "changes",
    [
        {"class_id": np.array([0, 1])},
        {"label": np.array([b"a", b"b"])},
        {"label_set": np.array([[True, False], [False, True]])},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_answer_that_should_be_withheld_and_a_wrong_set_fail(changes):
    with pytest.raises(VerificationError, match="serve_bytes"):
        compare(WITHHOLDING, **{**WITHHELD, **changes})


def test_at_the_threshold_itself_it_may_be_withheld_or_not():
    at = Deciding(Threshold(0.9, 0.95, 0.70005, 0.5, 100))
    said = {"class_id": np.array([0, 1]), "label": np.array([b"a", b"b"])}
    assert compare(at, **said, probabilities=EXPECTED + np.float32(9e-5))


def test_a_near_tie_is_no_excuse_for_another_class():
    tied = {"encoded": np.array([[0.5, 0.5 - 1e-5], [0.2, 0.8]], np.float32)}
    answers = {
        "encoded/probabilities": np.array([[0.5 - 1e-5, 0.5], [0.2, 0.8]], np.float32),
        "encoded/class_id": np.array([1, 1]),
        "encoded/label": np.array([b"b", b"b"]),
        "encoded/repeatable": np.array(True),
    }
    with pytest.raises(VerificationError):
        verify._compare("saved_model", answers, tied, ("a", "b"), NOTHING_WITHHELD)


def test_encoded_images_survive_the_trip_to_the_child(images, tmp_path):
    inputs = verify._inputs(images[:9])
    np.savez(tmp_path / "inputs.npz", **inputs)
    with np.load(tmp_path / "inputs.npz") as read:
        encoded = [bytes(value) for value in read["encoded"]]
    assert len(encoded) == 9 + verify.OTHER_SIZE_IMAGES
    assert all(value.endswith(b"IEND\xaeB`\x82") for value in encoded)
    assert inputs["other_size"].shape[1:] != images.shape[1:]


def test_the_child_imports_nothing_of_ours():
    tree = ast.parse(verify.CHILD.read_text())
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert not [module for module in modules if module.startswith("kclassify")]


def test_the_child_fails_where_kclassify_was_imported(exported, images, tmp_path):
    assert "kclassify" in sys.modules
    np.savez(tmp_path / "inputs.npz", **verify._inputs(images[:2]))
    with pytest.raises(SystemExit, match="kclassify was imported"):
        child.main("saved_model", exported, tmp_path / "inputs.npz", tmp_path / "outputs.npz")
    assert not (tmp_path / "outputs.npz").exists()


def test_the_child_notices_answers_that_change():
    rng = np.random.default_rng(0)
    answer = child._answer(lambda batch: {"probabilities": rng.random((len(batch), 2))}, EXPECTED)
    assert not answer["repeatable"]


def test_the_child_cannot_find_kclassify_by_pythonpath(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    assert "PYTHONPATH" not in verify._environment()
