import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import laplace
from scipy.stats import fisher_exact

import kclassify
from kclassify.checks import InputError
from kclassify.evaluation import slices as slices_module
from kclassify.evaluation.comparison import holm
from kclassify.evaluation.slices import looks_of, slices
from kclassify.runs import Run

IMAGES = 200


@pytest.fixture
def run(tiny_run, tmp_path):
    return Run(shutil.copytree(tiny_run.path, tmp_path / "run"))


@pytest.fixture
def data():
    """Noise of three classes; the darker an image, the lower its place."""
    rng = np.random.default_rng(0)
    base = np.linspace(0, 190, IMAGES)[:, None, None, None]
    images = (base + rng.integers(0, 60, (IMAGES, 8, 8, 3))).astype(np.uint8)
    return images[np.argsort(luma(images).mean(axis=(1, 2)))], np.arange(IMAGES) % 3


def luma(images):
    return images.astype(float) @ [0.299, 0.587, 0.114]


def say(run, data, right):
    """Evaluate, and let the predictions be right where `right` says so."""
    kclassify.evaluate(run, data=data, verbose=False)
    with np.load(run.predictions_file("test")) as stored:
        arrays = dict(stored)
    said = np.where(right, arrays["labels"], (arrays["labels"] + 1) % 3)
    run.write(run.predictions_file("test"), {**arrays, "probabilities": np.eye(3)[said]})


def test_the_part_that_fails_is_the_first(run, data):
    right = np.arange(IMAGES) >= 50
    say(run, data, right)
    found = slices(run, data=data, verbose=False)
    first = found.table.iloc[0]
    assert (first["property"], first["slice"]) == ("brightness", "lowest quarter")
    assert (first["images"], first["right"], first["difference"]) == (50, 0, -1.0)
    assert first["p"] == pytest.approx(fisher_exact([[0, 50], [150, 0]]).pvalue)
    assert found.accuracy == 0.75
    assert "most of all brightness lowest quarter" in found.verdict
    assert "brightness" in found._repr_html_()
    assert found.table["accuracy"].is_monotonic_increasing
    np.testing.assert_allclose(found.table["p_holm"], holm(found.table["p"].to_numpy()))


def test_quarters_are_the_images_by_what_they_look_like(run, data):
    say(run, data, np.arange(IMAGES) % 5 > 0)
    table = slices(run, data=data, verbose=False).table
    brightness = luma(data[0]).mean(axis=(1, 2))
    part = table[(table["property"] == "brightness") & (table["slice"] == "second quarter")]
    assert part["from"].item() == pytest.approx(brightness[50], rel=1e-5)
    assert part["to"].item() == pytest.approx(brightness[99], rel=1e-5)
    assert set(table["property"]) == {"brightness", "contrast", "sharpness", "saturation", "class"}
    assert table.groupby("property")["images"].sum().unique().tolist() == [IMAGES]


def test_the_files_say_the_same(run, data):
    say(run, data, np.arange(IMAGES) >= 50)
    found = slices(run, data=data, verbose=False)
    facts = json.loads(run.analysis_file("slices").read_text())
    assert facts["weights_sha256"] == run.summary["weights_sha256"]
    assert facts["slices"][0]["slice"] == "lowest quarter"
    assert [row["from"] for row in facts["slices"] if row["property"] == "class"] == [None] * 3
    table = pd.read_csv(run.table_file("slices"))
    assert table["images"].tolist() == found.table["images"].tolist()


def test_looks_are_those_of_a_loop_over_the_images():
    images = np.random.default_rng(1).integers(0, 256, (20, 9, 7, 3), dtype=np.uint8)
    images[0], images[1] = 0, 255
    found = looks_of(images)
    for place, image in enumerate(images):
        grey = luma(image)
        hsv = np.asarray(Image.fromarray(image).convert("HSV"), float)
        assert found["brightness"][place] == pytest.approx(grey.mean(), rel=1e-4)
        assert found["contrast"][place] == pytest.approx(grey.std(), rel=1e-4, abs=1e-3)
        assert found["sharpness"][place] == pytest.approx(laplace(grey).var(), rel=1e-4, abs=1e-3)
        # Pillow's are whole numbers.
        assert found["saturation"][place] == pytest.approx(hsv[..., 1].mean(), abs=1)


def test_grey_images_have_no_saturation():
    assert list(looks_of(np.zeros((1, 8, 8, 1), np.uint8))) == list(slices_module.PROPERTIES)


def test_images_that_are_all_the_same_make_classes_only(run):
    data = np.full((90, 8, 8, 3), 7, np.uint8), np.repeat([0, 1], 45)
    say(run, data, np.ones(90, bool))
    found = slices(run, data=data, verbose=False)
    assert set(found.table["property"]) == {"class"}
    assert found.worse.empty
    assert found.verdict.startswith("no slice")


def test_few_images_make_no_slice(run, data):
    few = data[0][:30], data[1][:30]
    say(run, few, np.ones(30, bool))
    found = slices(run, data=few, verbose=False)
    assert found.table.empty
    assert found.left_out == 4 * 4 + 3
    assert "19 slices below 20 images left out" in str(found)


@pytest.fixture
def table(data, tmp_path):
    """The images as files in a CSV file, with columns of names and of numbers."""
    for place, image in enumerate(data[0]):
        Image.fromarray(image).save(tmp_path / f"{place}.png")
    frame = pd.DataFrame({"path": [f"{place}.png" for place in range(IMAGES)]})
    names = np.array(["dark", "grey", "light"])
    frame["label"] = names[data[1]]
    frame["camera"] = np.where(np.arange(IMAGES) % 4 == 0, "old", "new")
    frame.loc[:9, "camera"] = None
    frame["iso"] = np.arange(IMAGES) * 10.0
    frame.loc[0, "iso"] = None
    frame.to_csv(tmp_path / "list.csv", index=False)
    return tmp_path / "list.csv"


def test_values_of_a_column_are_slices(run, table):
    say(run, table, np.arange(IMAGES) % 4 > 0)
    found = slices(run, by="camera", data=table, verbose=False)
    assert found.table.iloc[0][["property", "slice"]].tolist() == ["camera", "old"]
    parts = found.table[found.table["property"] == "camera"].set_index("slice")["images"]
    assert parts.to_dict() == {"old": 47, "new": 143}


def test_numbers_of_many_values_are_put_in_quarters(run, table):
    say(run, pd.read_csv(table), np.ones(IMAGES, bool))
    found = slices(run, by="iso", data=pd.read_csv(table), verbose=False).table
    parts = found[found["property"] == "iso"]
    assert sorted(parts["images"]) == [49, 50, 50, 50]
    assert (parts["from"].min(), parts["to"].max()) == (10.0, 1990.0)


def test_a_column_that_is_not_there_is_refused_before_any_work(run, table):
    with pytest.raises(InputError, match=r"`by` must be a column.*Did you mean 'camera'"):
        slices(run, by="kamera", data=table)


def test_a_column_of_no_table_is_refused(run, data):
    for given in (None, data, "digits"):
        with pytest.raises(InputError, match="`data` must be a CSV file or a DataFrame"):
            slices(run, by="camera", data=given)


def test_a_run_without_an_evaluation_is_refused(run):
    with pytest.raises(InputError, match="kclassify evaluate"):
        slices(run)
