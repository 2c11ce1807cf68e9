import pytest

import kclassify


@pytest.fixture(scope="session")
def asked(tiny_options):
    """The smallest useful search: two epochs a trial, of one network, which is compiled once."""
    return {
        **tiny_options, "epochs": 2, "tuner": "random", "max_trials": 3, "project_name": "s",
        "space": {"label_smoothing": [0.0, 0.1], "learning_rate": [0.1, 0.2]},
    }  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_arrays, asked):
    """A finished search; do not write into it."""
    place = tmp_path_factory.mktemp("searches")
    return kclassify.tune(tiny_arrays, **{**asked, "directory": place})
