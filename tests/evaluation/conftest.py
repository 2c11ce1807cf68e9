"""A run that was evaluated, made once and copied for each test that writes into it."""

import shutil

import pytest

import kclassify
from kclassify.runs import Run


@pytest.fixture(scope="session")
def others(tiny_arrays):
    """Sixty images that the tiny run was not trained on; its own would be split as they were."""
    images, labels = tiny_arrays
    return images ^ 1, labels


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory, tiny_run, others):
    """The tiny run, evaluated on all of them; do not write into it."""
    path = shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("evaluated") / "run")
    kclassify.evaluate(path, data=others, verbose=False)
    return path


@pytest.fixture
def run(evaluated, tiny_run, tmp_path):
    """A copy of it."""
    return Run(shutil.copytree(evaluated, tmp_path / "run"), tiny_run.source)
