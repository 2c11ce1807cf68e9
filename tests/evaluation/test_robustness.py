import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

import kclassify
from kclassify.checks import InputError
from kclassify.data.cifar10 import CLASS_NAMES
from kclassify.evaluation import robustness as room
from kclassify.evaluation.answers import answers_of
from kclassify.evaluation.corruption_tables import accuracy_table, class_table, corruption_table
from kclassify.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from kclassify.evaluation.intervals import wilson
from kclassify.evaluation.robustness import robustness
from kclassify.evaluation.subject import open_subject
from kclassify.reporting.card import card_text
from kclassify.runs import Run


@pytest.fixture(scope="module")
def ten(tmp_path_factory, tiny_options):
    """A run on 8x8 images with CIFAR-10's classes, and its data; do not write into it."""
    rng, labels = np.random.default_rng(0), np.arange(100) % 10
    images = (rng.integers(0, 25, (100, 8, 8, 3)) + 25 * labels[:, None, None, None]).astype(
        "uint8"
    )
    path = tmp_path_factory.mktemp("ten") / "run"
    run = kclassify.fit((images, labels), run_dir=path, class_names=CLASS_NAMES, **tiny_options)
    kclassify.evaluate(run, data=(images, labels), verbose=False)
    return run, (images, labels)


@pytest.fixture
def published(tmp_path):
    """A folder as CIFAR-10-C is, of 20 images of 8x8: those of fog are black."""
    rng, folder = np.random.default_rng(1), tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(np.arange(20) % 10, 5).astype(np.uint8))
    for name in CORRUPTIONS:
        images = rng.integers(0, 256, (100, 8, 8, 3), "uint8")
        np.save(folder / f"{name}.npy", images * (name != "fog"))
    return folder


def say_wrong_of(run, wrong):
    """Let the kept facts be of a run whose error with each corruption is `wrong`."""
    facts = json.loads(run.analysis_file("robustness").read_text())
    for row in facts["corruptions"]:
        row["error"] = wrong
    run.write(run.analysis_file("robustness"), facts)


def test_every_corruption_is_measured_at_every_severity_and_written(run, others):
    found = robustness(run, data=others, verbose=False)
    cells = [("clean", 0), *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)]
    assert list(zip(found.table["corruption"], found.table["severity"], strict=True)) == cells
    assert (found.table["images"] == 60).all()
    low, high = wilson(found.table["right"], 60)
    np.testing.assert_allclose(found.table["low"], low)
    np.testing.assert_allclose(found.table["high"], high)
    kept = pd.read_csv(run.table_file("robustness"))
    assert kept["right"].tolist() == found.table["right"].tolist()
    facts = json.loads(run.analysis_file("robustness").read_text())
    assert facts["weights_sha256"] == run.summary["weights_sha256"]
    assert facts["mean_corrupted_accuracy"] == pytest.approx(found.table["accuracy"][1:].mean())
    assert facts["sample"] == {"images": 60, "attacked": 60}
    assert pd.read_csv(run.table_file("adversarial"))["epsilon"].tolist() == [0, 1, 2, 4, 8] * 2
    with np.load(run.arrays_file("robustness")) as arrays:
        assert arrays["corruptions"].tolist() == ["clean", *CORRUPTIONS]
        assert arrays["images"].shape == (16, 8, 8, 3)


def test_the_numbers_are_those_of_a_loop_over_what_is_corrupted(run, others):
    found = robustness(run, data=others, attacks=False, seed=5, verbose=False)
    images, labels = others
    answers = answers_of(open_subject(run, data=others, verbose=False).model)
    cells = found.table.set_index(["corruption", "severity"])["accuracy"]
    assert cells["clean", 0] == accuracy_score(labels, answers(images))
    right = {}
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            right[name, severity] = answers(corrupt(images, name, severity, seed=(5, 0))) == labels
            assert cells[name, severity] == right[name, severity].mean(), (name, severity)
    of_class = found.classes.set_index("class")
    for index, name in enumerate(("dark", "grey", "light")):
        means = [mask[labels == index].mean() for mask in right.values()]
        assert of_class.loc[name, "accuracy"] == pytest.approx(np.mean(means))
    worst = min(CORRUPTIONS, key=lambda name: np.mean([right[name, s] for s in SEVERITIES]))
    assert found.worst["corruption"] == worst


def test_the_examples_are_the_first_image(run, others):
    robustness(run, data=others, attacks=False, verbose=False)
    with np.load(run.arrays_file("robustness")) as arrays:
        shown = dict(zip(arrays["corruptions"].tolist(), arrays["images"], strict=True))
    np.testing.assert_array_equal(shown["clean"], others[0][0])
    for name in CORRUPTIONS:
        expected = corrupt(others[0], name, 3, seed=(0, 0))[0]
        np.testing.assert_array_equal(shown[name], expected, err_msg=name)


def test_batches_make_no_difference_to_what_is_certain(run, others, monkeypatch):
    whole = robustness(run, data=others, attacks=False, verbose=False)
    monkeypatch.setattr(room, "part_size", lambda shape: 2)
    parted = robustness(run, data=others, attacks=False, verbose=False)
    certain = ["clean", "brightness", "contrast", "zoom_blur", "jpeg_compression"]
    same = [found.table[found.table["corruption"].isin(certain)] for found in (whole, parted)]
    assert same[0].equals(same[1])


def test_a_sample_has_of_every_class_its_share(run, others):
    found = robustness(run, data=others, images=9, attacks=(4,), verbose=False)
    assert found.images == 9
    assert found.classes["images"].tolist() == [3, 3, 3]
    assert found.attacks["images"].unique().tolist() == [9]
    assert found.attacks["epsilon"].tolist() == [0, 4, 0, 4]
    again = robustness(run, data=others, images=9, attacks=(4,), verbose=False)
    assert again.table.equals(found.table)
    assert again.attacks.equals(found.attacks)


def test_attacks_that_are_not_asked_for_are_not_made(run, others):
    robustness(run, data=others, attacks=(4,), verbose=False)
    found = robustness(run, data=others, images=9, attacks=False, verbose=False)
    assert found.attacks.empty
    assert pd.read_csv(run.table_file("adversarial")).empty
    assert "FGSM" not in found.verdict + str(found)


def test_what_is_said(run, others):
    found = robustness(run, data=others, verbose=False)
    words = found.worst["corruption"].replace("_", " ")
    assert f"fewest with {words}, {100 * found.worst['accuracy']:.1f} %" in found.verdict
    assert "of 255 leaves" in found.verdict
    for text in (found.verdict, "60 images", "motion_blur", "pgd"):
        assert text in str(found), text
    assert "motion_blur" in found._repr_html_()
    # Of a share that is between those of single images, and no narrower than of so many.
    low, high = found.interval
    assert low < found.mean_corrupted_accuracy < high
    assert "Mean corrupted accuracy" in card_text(run)


def test_errors_are_divided_by_the_baselines(run, others, tmp_path):
    plain = robustness(run, data=others, attacks=False, verbose=False)
    assert plain.mean_corruption_error is None
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    say_wrong_of(other, 0.5)
    found = robustness(run, data=others, baseline=other, attacks=False, verbose=False)
    errors = 1 - plain.corruptions["accuracy"]
    assert found.mean_corruption_error == pytest.approx((errors / 0.5).mean())
    clean = 1 - plain.clean_accuracy
    expected = ((errors - clean) / (0.5 - clean)).mean()
    assert found.relative_mean_corruption_error == pytest.approx(expected)
    facts = json.loads(run.analysis_file("robustness").read_text())
    assert facts["mean_corruption_error"] == found.mean_corruption_error
    assert facts["baseline"] == str(other)
    assert f"of that of {other}" in found.verdict


def test_a_baseline_that_corruptions_do_not_harm_has_no_relative_error(run, others, tmp_path):
    robustness(run, data=others, attacks=False, verbose=False)
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    facts = json.loads(other.analysis_file("robustness").read_text())
    other.write(other.analysis_file("robustness"), {**facts, "clean_accuracy": 0.1})
    say_wrong_of(other, 0.2)
    found = robustness(run, data=others, baseline=other, attacks=False, verbose=False)
    assert found.relative_mean_corruption_error is None
    facts = json.loads(run.analysis_file("robustness").read_text())
    assert [row["relative_increase"] for row in facts["corruptions"]] == [None] * 15


def test_a_baseline_may_have_been_evaluated_otherwise_since(run, others, tmp_path):
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    robustness(other, data=others, images=6, attacks=False, verbose=False)
    say_wrong_of(other, 0.5)
    kclassify.evaluate(other, data=others, tta="flip", verbose=False)
    found = robustness(run, data=others, images=6, baseline=other, attacks=False, verbose=False)
    assert found.baseline == str(other)


def test_a_baseline_of_something_else_is_refused_before_any_work(run, others, tmp_path):
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    with pytest.raises(InputError, match=r"`baseline` must be a run whose .*kclassify robustness"):
        robustness(run, data=others, baseline=other)
    robustness(other, data=others, images=6, attacks=False, verbose=False)
    say_wrong_of(other, 0)
    with pytest.raises(InputError, match=r"`baseline` must have errors .* gaussian_noise"):
        robustness(run, data=others, baseline=other)
    facts = json.loads(other.analysis_file("robustness").read_text())
    other.write(other.analysis_file("robustness"), {**facts, "split": "train"})
    with pytest.raises(InputError, match=r"`baseline` must have been measured on .*'train'"):
        robustness(run, data=others, baseline=other)
    assert not run.analysis_file("robustness").exists()


def test_the_published_images_are_taken_instead(ten, published, tmp_path):
    run, data = Run(shutil.copytree(ten[0].path, tmp_path / "run")), ten[1]
    found = robustness(run, data=data, cifar10_c=published, attacks=False, verbose=False)
    assert (found.corrupted_by, found.images) == ("CIFAR-10-C", 20)
    answers = answers_of(open_subject(run, data=data, verbose=False).model)
    cells = found.table.set_index(["corruption", "severity"])["right"]
    for name in ("fog", "snow"):
        right = answers(np.load(published / f"{name}.npy")) == np.tile(np.arange(20) % 10, 5)
        assert cells[name].tolist() == right.reshape(5, 20).sum(axis=1).tolist()
    # All are black, and said to be the same class.
    assert cells["fog"].tolist() == [2] * 5
    with np.load(run.arrays_file("robustness")) as arrays:
        assert arrays["corruptions"].tolist() == list(CORRUPTIONS)
        expected = np.load(published / "snow.npy")[2 * 20]
        np.testing.assert_array_equal(arrays["images"][list(CORRUPTIONS).index("snow")], expected)


def test_some_of_the_published_images_will_do(ten, published, tmp_path, monkeypatch):
    run, data = Run(shutil.copytree(ten[0].path, tmp_path / "run")), ten[1]
    monkeypatch.setattr("kclassify.evaluation.cifar10_c.BATCH", 3)
    found = robustness(run, data=data, images=10, cifar10_c=published, verbose=False)
    assert found.classes["images"].tolist() == [1] * 10
    assert found.table["images"].unique().tolist() == [10]
    assert found.attacks["images"].unique().tolist() == [10]


def _without(folder):
    (folder / "fog.npy").unlink()


def _cut_short(folder):
    (folder / "fog.npy").write_bytes((folder / "fog.npy").read_bytes()[:500])


def _pickled(folder):
    np.save(folder / "fog.npy", np.array([{}], dtype=object), allow_pickle=True)


def _floats(folder):
    np.save(folder / "fog.npy", np.zeros((100, 8, 8, 3)))


def _other_size(folder):
    np.save(folder / "fog.npy", np.zeros((100, 9, 8, 3), np.uint8))


def _two_severities(folder):
    np.save(folder / "labels.npy", np.zeros(42, np.uint8))


def _other_classes(folder):
    np.save(folder / "labels.npy", np.full(100, 10, np.uint8))


def _labels_in_another_order(folder):
    np.save(folder / "labels.npy", np.random.default_rng(0).integers(0, 10, 100))


def _no_labels(folder):
    np.save(folder / "labels.npy", np.zeros(100))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without, r"`cifar10_c` must be a folder .*fog.npy is needed, which is not there"),
        (_cut_short, r"`cifar10_c` must be a folder .*fog.npy is needed, which is damaged"),
        (_pickled, r"`cifar10_c` must be a folder .*fog.npy is needed, which is damaged"),
        (_floats, r"must hold fog.npy of uint8 \(100, 8, 8, 3\). Received: .* float64"),
        (_other_size, r"must hold fog.npy of uint8 .* Received: .* uint8 \(100, 9, 8, 3\)"),
        (_two_severities, r"must hold labels.npy of .* Received: .*\(42,\)"),
        (_other_classes, r"must hold labels.npy of .* from 0 to 9"),
        (_labels_in_another_order, "must hold labels.npy of .* the same for each"),
        (_no_labels, "must hold labels.npy of .* Received: .* float64"),
    ],
)
def test_a_folder_that_is_not_as_it_should_be_is_refused(ten, published, damage, said):
    damage(published)
    with pytest.raises(InputError, match=said):
        robustness(ten[0], cifar10_c=published)


def test_a_run_of_other_classes_gets_no_cifar10_c(run, published):
    with pytest.raises(InputError, match="`cifar10_c` must be left out for a run of other classes"):
        robustness(run, cifar10_c=published)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": 0}, "`images` must be a whole number of at least 1"),
        ({"images": 2.5}, "`images` must be a whole number of at least 1"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0"),
        ({"attacks": 8}, "`attacks` must be a list of whole numbers"),
        ({"attacks": [300]}, "`attacks` must be a list of whole numbers"),
    ],
)
def test_a_users_mistake_is_said(run, options, said):
    with pytest.raises(InputError, match=said):
        robustness(run, verbose=False, **options)


def test_a_run_without_an_evaluation_is_refused(tiny_run):
    with pytest.raises(InputError, match="kclassify evaluate"):
        robustness(tiny_run)


def test_a_class_without_images_has_no_accuracy():
    right = np.ones((15, 5, 2), bool)
    found = class_table(["a", "b"], (np.array([True]), np.array([0])), (right, np.array([0, 0])))
    assert found["accuracy"].tolist()[0] == 1.0
    assert found.iloc[1][["clean_accuracy", "accuracy", "low", "high"]].isna().all()
    assert found["worst_corruption"].tolist()[1] == ""


def test_tables_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    right, labels, clean = (
        rng.random((15, 5, 40)) < 0.7,
        rng.integers(0, 4, 40),
        rng.random(40) < 0.9,
    )
    baseline = {"clean": 0.05, **{name: rng.uniform(0.1, 0.5) for name in CORRUPTIONS}}
    found = corruption_table(accuracy_table(clean, right), baseline)
    for place, name in enumerate(CORRUPTIONS):
        row = found.iloc[place]
        assert row["corruption"] == name
        assert row["error"] == pytest.approx(1 - right[place].mean())
        assert row["relative_error"] == pytest.approx(row["error"] / baseline[name])
        increase = row["error"] - (1 - clean.mean())
        expected = increase / (baseline[name] - baseline["clean"])
        assert row["relative_increase"] == pytest.approx(expected)
    classes = class_table(list("abcd"), (clean, labels), (right, labels))
    for index in range(4):
        means = right[:, :, labels == index].mean(axis=(1, 2))
        row = classes.iloc[index]
        assert row["accuracy"] == pytest.approx(means.mean())
        assert row["worst_accuracy"] == pytest.approx(means.min())
        # There may be others as bad.
        found_worst = means[list(CORRUPTIONS).index(row["worst_corruption"])]
        assert found_worst == pytest.approx(means.min())
        assert row["clean_accuracy"] == pytest.approx(clean[labels == index].mean())
