import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve

import kclassify
from kclassify.checks import InputError
from kclassify.evaluation.calibration import (
    LEAST_IMAGES,
    fit_temperature,
    found_calibration,
    reliability,
    tempered,
)
from kclassify.evaluation.metrics import METRICS
from kclassify.models.temperature import with_temperature
from kclassify.runs import Run, read_json


def world(seed=0, images=4000, classes=5, temperature=2.0):
    """Return labels that follow the probabilities, and probabilities that are too sure."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(images, classes))
    true = softmax(logits, axis=1)
    labels = (true.cumsum(axis=1) > rng.uniform(size=(images, 1))).argmax(axis=1)
    return labels, softmax(temperature * logits, axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_there_is_found(temperature):
    assert fit_temperature(*world(temperature=temperature)) == pytest.approx(temperature, rel=0.06)


def test_it_is_the_minimum_that_another_optimizer_finds():
    labels, probabilities = world(images=300)
    share = 1 / (len(labels) + 2)
    targets = (1 - share) * np.eye(5)[labels] + share / 5
    logits = np.log(probabilities)
    found = minimize(
        lambda x: -np.mean(np.sum(targets * log_softmax(logits * x[0], axis=1), axis=1)), [1.0]
    )
    assert fit_temperature(labels, probabilities) == pytest.approx(1 / found.x[0], rel=1e-4)


def test_few_images_that_are_all_right_do_not_make_it_certain():
    probabilities = np.tile([0.7, 0.2, 0.1], (60, 1))
    temperature = fit_temperature(np.zeros(60, int), probabilities)
    assert 0.97 < tempered(probabilities, temperature)[0, 0] < 0.999


def test_calibrated_probabilities_are_as_sure_as_right_and_name_the_same_classes():
    labels, probabilities = world()
    after = tempered(probabilities, fit_temperature(labels, probabilities))
    assert METRICS["ece"](labels, after) < 0.5 * METRICS["ece"](labels, probabilities)
    assert np.array_equal(after.argmax(axis=1), probabilities.argmax(axis=1))
    back = tempered(tempered(probabilities, 2.5), 1 / 2.5)
    np.testing.assert_allclose(back, probabilities, atol=1e-6)


def test_probabilities_of_nothing_are_no_error():
    sure = np.eye(3)[[0, 1, 2, 0]].astype("float32")
    assert np.isfinite(fit_temperature(np.array([0, 1, 2, 1]), sure))
    assert np.isfinite(tempered(sure, 3.0)).all()


def test_the_bins_are_scikit_learns():
    labels, probabilities = world()
    found = reliability(labels, probabilities).dropna()
    right = probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=15)
    np.testing.assert_allclose(found["accuracy"], accuracy)
    np.testing.assert_allclose(found["confidence"], confidence)
    assert reliability(labels, probabilities)["images"].sum() == len(labels)
    assert ((found["low"] <= found["accuracy"]) & (found["accuracy"] <= found["high"])).all()


@pytest.fixture
def run(tiny_run, tiny_arrays, tmp_path):
    """A copy of the tiny run that has enough validation images."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    splits = dict(tiny_run.source.splits)
    splits["validation"] = splits["validation"].take(np.arange(LEAST_IMAGES) % 9)
    found = Run(tmp_path / "run", replace(tiny_run.source, splits=splits))
    sizes = {name: len(part) for name, part in splits.items()}
    found.write(found.config_file, {**found.config, "sizes": sizes})
    return found


def test_evaluate_calibrates_and_says_what_it_changed(run):
    found = kclassify.evaluate(run, verbose=False)
    kept = found_calibration(run, "none")
    assert found.temperature == kept.temperature != 1.0
    assert kept.images == LEAST_IMAGES
    model = keras.saving.load_model(run.model_file, compile=False)
    logits = model(run.source.splits["test"].images, training=False).numpy()
    with np.load(run.predictions_file("test")) as stored:
        expected = softmax(logits / kept.temperature, axis=1)
        np.testing.assert_allclose(stored["probabilities"], expected, atol=1e-6)
        raw = METRICS["loss"](stored["labels"], softmax(logits, axis=1))
    assert found.uncalibrated["loss"] == pytest.approx(raw, abs=1e-4)
    assert found.metrics["loss"] != pytest.approx(raw, abs=1e-4)
    assert "uncalibrated" in str(found)


def test_the_temperature_is_kept_for_each_kind_of_views(run):
    plain = kclassify.calibrate(run, verbose=False)
    flipped = kclassify.calibrate(run, tta="flip", verbose=False)
    assert found_calibration(run, "none") == plain
    assert found_calibration(run, "flip") == flipped
    assert "temperature" in str(plain)
    assert "<table" in plain._repr_html_()


def test_a_temperature_of_other_weights_is_not_used(run):
    kclassify.calibrate(run, verbose=False)
    kept = read_json(run.calibration_file)
    run.write(run.calibration_file, {**kept, "weights_sha256": "others"})
    assert found_calibration(run, "none") is None


def test_a_temperature_that_is_none_is_refused_in_a_sentence(run):
    kclassify.calibrate(run, verbose=False)
    text = run.calibration_file.read_text()
    kept = json.loads(text)
    kept["by_tta"]["none"]["temperature"] = -1.0
    run.write(run.calibration_file, kept)
    with pytest.raises(InputError, match=r"temperature=-1\.0"):
        kclassify.evaluate(run, verbose=False)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive"])
def test_damaged_confidences_are_refused_and_calibrate_mends_them(run, content):
    kclassify.calibrate(run, verbose=False)
    run.validation_file("none").write_bytes(content)
    with pytest.raises(InputError, match=r"their file is damaged\. Run `kclassify calibrate"):
        kclassify.evaluate(run, verbose=False)
    kclassify.calibrate(run, verbose=False)
    assert kclassify.evaluate(run, label_sets=0.9, verbose=False).decided["set_size"] > 0


def test_too_few_validation_images_are_refused_with_how_many(tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    with pytest.raises(InputError, match=f"at least {LEAST_IMAGES} validation.*Received: 9 "):
        kclassify.calibrate(Run(tmp_path / "run", tiny_run.source), verbose=False)


def test_images_that_are_given_do_not_pass_for_validation_ones(run, others):
    alone = kclassify.calibrate(run, verbose=False)
    assert kclassify.calibrate(run, data=others, verbose=False) == alone
    split = {"train": others, "validation": others, "test": others}
    assert kclassify.calibrate(Run(run.path), data=split, verbose=False).images == 60
    with pytest.raises(InputError, match="`data` must be given with its validation split"):
        kclassify.calibrate(Run(run.path), data=others, verbose=False)


def test_few_validation_images_leave_the_probabilities_as_they_are(tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    found = kclassify.evaluate(Run(tmp_path / "run", tiny_run.source), verbose=False)
    assert found.temperature == 1.0
    assert found.uncalibrated == {}


def test_what_is_exported_and_loaded_has_the_temperature(run, unverified):
    kclassify.calibrate(run, verbose=False)
    kclassify.evaluate(run, verbose=False)
    images = run.source.splits["test"].images
    with np.load(run.predictions_file("test")) as stored:
        expected = stored["probabilities"]
    for path in (kclassify.export(run), run.path):
        found = kclassify.load(path).probabilities(images)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    # The file alone is the network as it was trained.
    raw = kclassify.load(run.model_file).probabilities(images)
    assert np.abs(raw - expected).max() > 1e-3


def test_a_temperature_of_one_adds_nothing():
    model = kclassify.build_model("convnet", input_shape=(8, 8, 3), num_classes=2, depth=1)
    assert with_temperature(model, 1.0) is model


def test_answers_are_withheld_and_sets_named_as_validation_guarantees(run, unverified):
    asked = {"abstain_at": {"accuracy": 0.5}, "label_sets": 0.9}
    found = kclassify.evaluate(run, **asked, verbose=False)
    assert found.decided["answered"] <= 1
    assert found.decided["set_size"] >= found.decided["set_coverage"]
    assert "withheld below" in str(found)
    path = kclassify.export(run, **asked)
    classifier = kclassify.load(path)
    assert classifier.abstain_below == found.deciding.threshold.probability
    table = classifier.predict(run.source.splits["test"].images, verbose=False)
    withheld = table["probability"] < classifier.abstain_below
    assert (table["label"][withheld] == "unknown").all()
    assert (table["label"] == table["best_label"])[~withheld].all()
    assert (table["label"] != "unknown").mean() == pytest.approx(found.decided["answered"])


def test_what_validation_cannot_guarantee_is_refused_before_anything_is_written(run):
    with pytest.raises(InputError, match="can be guaranteed at best"):
        kclassify.export(run, abstain_at={"accuracy": 0.999})
    assert not run.export_dir.exists()


def test_a_class_called_unknown_is_refused(run):
    kclassify.calibrate(run, verbose=False)
    run.write(run.config_file, {**run.config, "class_names": ["dark", "grey", "unknown"]})
    with pytest.raises(InputError, match="is called 'unknown'"):
        kclassify.export(run, abstain_at={"accuracy": 0.5})
