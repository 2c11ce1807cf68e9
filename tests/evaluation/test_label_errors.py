import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kclassify.checks import InputError
from kclassify.config import FitConfig, resolve
from kclassify.data.spec import FileImages
from kclassify.evaluation import label_errors
from kclassify.evaluation.label_errors import find_label_errors
from kclassify.runs import Run
from kclassify.training.cluster import Cluster

NAMES = ("dark", "grey", "light")
SMALL = FitConfig(batch_size=8)


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="module")
def options(tiny_options):
    """What finds all the planted labels."""
    return {**tiny_options, "folds": 2, "epochs": 12, "class_names": NAMES}


@pytest.fixture(scope="module")
def spoiled(tiny_arrays):
    """The tiny images four times, with noise of their own: images, labels and the right labels."""
    images, labels = tiny_arrays
    noise = np.random.default_rng(1).integers(0, 8, (240, 8, 8, 3))
    images, right = (np.tile(images, (4, 1, 1, 1)) + noise).astype(np.uint8), np.tile(labels, 4)
    wrong = np.random.default_rng(2).permutation(240)[:12]
    labels = right.copy()
    labels[wrong] = (right[wrong] + 1) % 3
    return images, labels, right


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("label-errors")


@pytest.fixture(scope="module")
def found(spoiled, options, place):
    """What was found in the spoiled labels; the trainings and the table are in `place`."""
    return find_label_errors(spoiled[:2], directory=place, **options)


def places(ids):
    return [int(one.removeprefix("arrays/")) for one in ids]


def test_wrong_labels_that_were_planted_are_found(found, spoiled):
    _, labels, right = spoiled
    assert set(places(found.wrong["id"])) == set(np.flatnonzero(labels != right))
    assert found.estimated == sum(images for *_, images in found.pairs) == 12
    suggested = [NAMES[right[one]] for one in places(found.wrong["id"])]
    assert found.wrong["suggested"].tolist() == suggested
    assert found.wrong.index.tolist() == list(range(12))


def test_the_table_is_of_all_images_the_worst_first(found, place):
    table = found.table
    assert sorted(places(table["id"])) == list(range(240))
    assert table["self_confidence"].is_monotonic_increasing
    assert table["self_confidence"].between(0, 1).all()
    assert (table["margin"] <= table["self_confidence"]).all()
    written = pd.read_csv(place / "label_errors.csv")
    assert written["id"].tolist() == table["id"].tolist()
    assert written["estimated"].tolist() == table["estimated"].tolist()


def test_it_shows_itself(found):
    assert "12 of 240 labels of train, validation and test are" in str(found)
    assert str(found.file) in str(found)
    assert found._repr_html_().count("<tr") == 1 + 12
    none = replace(found, table=found.table.assign(estimated=False))
    assert (none.estimated, none.pairs) == (0, [])
    assert "0 of 240 labels" in str(none)
    assert "most often" not in none.verdict


def test_several_workers_are_refused_before_anything_is_trained(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", Cluster(("a:1", "b:1"), 0).config)
    with pytest.raises(InputError, match="`TF_CONFIG` must be unset for find_label_errors"):
        find_label_errors("no such data")


def test_nobody_has_seen_the_images_that_it_is_asked_about(found, place):
    held_out = []
    for number in (1, 2):
        fold = Run.open(place / f"fold-{number}")
        assert fold.config["sizes"] == {"train": 96, "validation": 24, "test": 120}
        with np.load(fold.predictions_file("test")) as arrays:
            held_out += arrays["ids"].tolist()
    assert sorted(held_out) == sorted(found.table["id"])


def test_a_search_that_was_stopped_goes_on(found, spoiled, options, monkeypatch):
    fit, made = label_errors.fit, []

    def stopped(*arguments, **given):
        if made:
            raise KeyboardInterrupt("; another advice")
        made.append(fit(*arguments, **given))
        return made[0]

    with monkeypatch.context() as patched:
        patched.setattr(label_errors, "fit", stopped)
        with pytest.raises(KeyboardInterrupt, match="--directory here"):
            find_label_errors(spoiled[:2], directory="here", **options)
    before = made[0].model_file.stat().st_mtime_ns
    again = find_label_errors(spoiled[:2], directory="here", **options)
    pd.testing.assert_frame_equal(again.table, found.table)
    assert made[0].model_file.stat().st_mtime_ns == before


def test_what_was_finished_is_not_made_again(found, spoiled, options, place, monkeypatch):
    monkeypatch.setattr(label_errors, "predict", None)
    again = find_label_errors(spoiled[:2], directory=place, **options)
    pd.testing.assert_frame_equal(again.table, found.table)


def test_a_test_split_that_the_data_comes_with_is_left_alone(tiny_arrays):
    images, labels = tiny_arrays
    data = {"train": (images[:48], labels[:48]), "test": (images[48:], labels[48:])}
    source, split = label_errors._looked_at(data, None, SMALL, verbose=False)
    assert split == "train and validation"
    assert sorted(source.splits["train"].ids) == sorted(f"train/{place}" for place in range(48))


def test_images_that_stay_files_are_looked_at(tiny_arrays, tmp_path):
    for place, (image, label) in enumerate(zip(*tiny_arrays, strict=True)):
        folder = tmp_path / "images" / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{place:02}.png")
    settings = SMALL.replace(memory_budget="1KB")
    source, _ = label_errors._looked_at("images", None, settings, verbose=False)
    examples = source.splits["train"]
    assert isinstance(examples.images, FileImages)
    assert examples.images.input_shape == (8, 8, 3)
    order = [int(path[-6:-4]) for path in examples.images.paths]
    assert sorted(order) == list(range(60))
    np.testing.assert_array_equal(examples.labels, tiny_arrays[1][order])
    assert [one[-6:-4] for one in examples.ids] == [f"{place:02}" for place in order]


def test_a_run_gets_what_its_report_needs_and_lends_its_configuration(run, tiny_arrays):
    found = find_label_errors(tiny_arrays, folds=2, run=run, verbose=False)
    fold = Run.open(f"{run}-label-errors/fold-2")
    assert fold.config["config"] == run.config["config"]
    facts = json.loads(run.analysis_file("label_errors").read_text())
    assert facts["weights_sha256"] == run.summary["weights_sha256"]
    assert (facts["images"], facts["estimated"]) == (60, found.estimated)
    assert facts["split"] == "train, validation and test"
    worst = [row["id"] for row in facts["worst"]]
    assert worst == found.wrong["id"].head(40).tolist()
    with np.load(run.arrays_file("label_errors")) as arrays:
        np.testing.assert_array_equal(arrays["images"], tiny_arrays[0][places(worst)])
    assert found.file == run.table_file("label_errors")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"epochs": 2},
            {"epochs": 2, "model": "convnet", "model_args": {"filters": 4, "depth": 1}},
        ),
        ({"filters": 6}, {"epochs": 3, "model_args": {"filters": 6, "depth": 1}}),
        ({"model": "lenet"}, {"epochs": 3, "model": "lenet", "model_args": {}}),
        ({"time_budget": "9s"}, {"time_budget": "9s", "batch_size": 8}),
        ({"optimizer": "adam"}, {"optimizer": "adam", "learning_rate": 1e-3}),
        ({"preset": "digits"}, {"model_args": {"filters": 32, "depth": 2}, "epochs": 30}),
        ({"preset": "fast"}, {"optimizer": "muon", "skip_learned": None}),
        ({"skip_learned": 0.2}, {"epochs": 3, "skip_learned": 0.2}),
    ],
)
def test_options_change_the_configuration_of_the_run(run, tiny_arrays, given, expected):
    preset, options = label_errors._recipe(tiny_arrays, run, given)
    config = resolve(preset, options).to_json()
    assert {name: config[name] for name in expected} == expected


def test_the_run_may_have_had_a_time(run, tiny_arrays):
    manifest = run.config
    manifest["config"]["time_budget"] = "20s"
    run.write(run.config_file, manifest)
    for given, expected in (({}, "20s"), ({"epochs": 2}, None)):
        preset, options = label_errors._recipe(tiny_arrays, run, given)
        assert resolve(preset, options).time_budget == expected


def test_a_data_service_of_the_run_is_not_asked_for(run, tiny_arrays):
    manifest = run.config
    manifest["config"]["data_service"] = "grpc://gone:1"
    run.write(run.config_file, manifest)
    assert "data_service" not in label_errors._recipe(tiny_arrays, run, {})[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folds": 1}, "`folds` must be a whole number of at least 2"),
        ({"folds": 21}, "at least 21 images of each class for folds=21. Received: 20 of 'dark'"),
        ({"epochs": 0}, "`epochs` must be"),
        ({"epohcs": 1}, "Did you mean 'epochs'"),
        ({"preset": "fsat"}, "`preset` must be one of"),
        ({"run": "nowhere"}, "`run` must be a run folder"),
        ({"directory": "a-file"}, "`run_dir` must be in a folder"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(tiny_arrays, monkeypatch, given, message):
    with open("a-file", "w"):
        pass
    monkeypatch.setattr(label_errors, "fit", None)
    with pytest.raises(InputError, match=message):
        find_label_errors(tiny_arrays, class_names=NAMES, verbose=False, **given)


def test_a_run_of_other_data_is_refused(run, tiny_arrays, monkeypatch):
    images, labels = tiny_arrays
    monkeypatch.setattr(label_errors, "fit", None)
    with pytest.raises(InputError, match="`run` must be one that was trained on `data`"):
        find_label_errors((images, (labels + 1) % 3), run=run, verbose=False)
    assert not run.analysis_file("label_errors").exists()
