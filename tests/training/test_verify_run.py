import json
import shutil
from pathlib import Path

import pytest

import kclassify
from kclassify.checks import InputError, VerificationError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "r"
    return kclassify.fit("digits", epochs=1, run_dir=path, filters=4, depth=1, verbose=False)


@pytest.fixture
def copy(run):
    return Path(shutil.copytree(run.path, "copy"))


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_first_steps_are_the_same_again(run):
    found = kclassify.verify_run(run)
    # Three of them are one call into TensorFlow.
    assert found.steps == 6
    assert "bit for bit" in str(found)


def test_other_weights_are_told_with_the_versions_that_differ(copy):
    changed(copy / "first-steps.json", weights_sha256="0" * 64)
    facts = json.loads((copy / "environment.json").read_text())
    changed(copy / "environment.json", packages={**facts["packages"], "keras": "3.0.0"})
    with pytest.raises(VerificationError, match=r"keras 3\.0\.0 then and"):
        kclassify.verify_run(copy)


def test_other_data_is_told(copy, tiny_arrays):
    with pytest.raises(VerificationError, match="images or labels are others"):
        kclassify.verify_run(copy, data=tiny_arrays)


def test_what_cannot_be_trained_again_is_refused(copy):
    (copy / "first-steps.json").unlink()
    with pytest.raises(InputError, match=r"has no first-steps\.json"):
        kclassify.verify_run(copy)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("time_budget", "10m", "from the clock"),
        ("data_service", "grpc://there:5050", "whose batches a tf.data service made"),
    ],
)
def test_a_run_that_something_else_decided_is_refused(copy, field, value, reason):
    config = json.loads((copy / "config.json").read_text())
    changed(copy / "config.json", config={**config["config"], field: value})
    with pytest.raises(InputError, match=reason):
        kclassify.verify_run(copy)


def test_data_in_memory_must_be_given(tiny_arrays, tiny_options):
    run = kclassify.fit(tiny_arrays, run_dir="r", **tiny_options)
    with pytest.raises(InputError, match="Pass what `fit` was called with"):
        kclassify.verify_run(run)
    assert kclassify.verify_run(run, data=tiny_arrays).steps == 4
