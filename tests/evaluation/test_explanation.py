import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kclassify.checks import InputError
from kclassify.evaluation.explanation import explain, overlay
from kclassify.evaluation.predictions import read_predictions
from kclassify.runs import Run


def test_the_worst_errors_are_explained_and_written(run, others):
    found = explain(run, data=others, most=3, verbose=False)
    table = read_predictions(run, "test").table()
    assert len(found.table) == min(3, int((~table["correct"]).sum()))
    assert found.overlays.shape == (len(found.table), 8, 8, 3)
    facts = json.loads(run.analysis_file("explanation").read_text())
    assert facts["weights_sha256"] == run.summary["weights_sha256"]
    assert facts["flagged"] == found.check.flagged
    assert facts["images"] == 60
    with np.load(run.arrays_file("explanations")) as arrays:
        assert arrays["images"].dtype == arrays["overlays"].dtype == np.uint8
    assert found.verdict in str(found)


def test_given_images_are_explained_whatever_they_are(run, others):
    images = others[0][:2]
    Image.fromarray(images[0]).save("one.png")
    found = explain(run, images=["one.png", images[1]], data=others, verbose=False,
                    method="integrated_gradients")  # fmt: skip
    assert found.table["id"].tolist() == ["one.png", "array 1"]
    np.testing.assert_array_equal(found.images, images)
    assert set(found.table["predicted"]) <= {"dark", "grey", "light"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gradcam"}, "Did you mean 'grad_cam'"),
        ({"most": 0}, "`most` must be a whole number"),
        ({"images": "none.png"}, "`images` must be images that can be read"),
    ],
)
def test_a_users_mistake_is_said(run, others, options, message):
    with pytest.raises(InputError, match=message):
        explain(run, data=others, verbose=False, **options)


def test_a_run_that_was_not_evaluated_is_refused(tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "new")
    Run(tmp_path / "new").metrics_file.unlink(missing_ok=True)
    with pytest.raises(InputError, match="kclassify evaluate"):
        explain(tmp_path / "new", verbose=False)


def test_an_overlay_is_lightest_where_the_map_is_highest():
    maps = np.zeros((1, 4, 4))
    maps[0, 1, 2] = 5
    found = overlay(np.full((1, 4, 4, 1), 100, "uint8"), maps).astype(int).sum(axis=-1)[0]
    assert np.unravel_index(found.argmax(), found.shape) == (1, 2)
    flat = overlay(np.full((1, 4, 4, 1), 100, "uint8"), np.zeros((1, 4, 4)))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
