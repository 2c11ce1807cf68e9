import pytest

import kclassify


@pytest.fixture(scope="session")
def asked(tiny_options):
    """The smallest useful search: two epochs a trial, of which each step can be seen."""
    options = {name: tiny_options[name] for name in tiny_options if name not in ("filters",)}
    return {
        **options, "epochs": 2, "tuner": "random", "max_trials": 3, "project_name": "s",
        "space": {"filters": [2, 4], "learning_rate": [0.1, 0.2]},
    }  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_arrays, asked):
    """A finished search; do not write into it."""
    place = tmp_path_factory.mktemp("searches")
    return kclassify.tune(tiny_arrays, **{**asked, "directory": place})
