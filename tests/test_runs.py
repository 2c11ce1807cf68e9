import json

import numpy as np
import pandas as pd
import pytest

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.runs import Run, new_run_path, replacing


def test_new_run_path_refuses_a_finished_run(tiny_run):
    with pytest.raises(InputError, match="holds a finished run of another configuration"):
        new_run_path(tiny_run.path, name="x", config=FitConfig())


def test_new_run_path_names_a_half_written_run_and_what_differs(tmp_path):
    run = Run(tmp_path / "half")
    run.write(run.config_file, {"config": FitConfig(epochs=3).to_json()})
    with pytest.raises(InputError, match=r"half-written run .*epochs 3 instead of 11"):
        new_run_path(run.path, name="x", config=FitConfig())
    with pytest.raises(InputError, match="the same configuration"):
        new_run_path(run.path, name="x", config=FitConfig(epochs=3))


def test_new_run_path_leaves_a_strangers_folder_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="kclassify did not make"):
        new_run_path(tmp_path / "mine", name="x", config=FitConfig())
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_default_run_paths_differ():
    first, second = (new_run_path(None, name="digits", config=FitConfig()) for _ in range(2))
    assert first != second
    assert first.parent.name == "saved_models"


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        Run.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"a folder without config\.json"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="training did not end"):
        Run.open(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"whose model\.keras is missing"):
        Run.open(tmp_path)


def test_a_damaged_config_is_named(tmp_path):
    run = Run(tmp_path)
    run.config_file.write_text('{"config": ')
    with pytest.raises(InputError, match=r"config\.json.*is not JSON"):
        run.config  # noqa: B018


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "state.json"
    path.write_text("old")

    def write_half():
        with replacing(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("a.json", {"x": 1}, lambda path: json.loads(path.read_text())),
        ("a.md", "text", lambda path: path.read_text()),
        ("a.npz", {"x": np.arange(3)}, lambda path: {"x": np.load(path)["x"]}),
        ("a.csv", pd.DataFrame({"x": [1]}), lambda path: pd.read_csv(path, index_col=0)),
    ],
)
def test_write_chooses_the_form_by_the_ending(tmp_path, name, value, read):
    run = Run(tmp_path)
    run.write(tmp_path / name, value)
    found = read(tmp_path / name)
    assert found.equals(value) if name == "a.csv" else str(found) == str(value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
