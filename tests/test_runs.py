import json
import shutil

import numpy as np
import pandas as pd
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.runs import Run, read_json, run_path


def test_a_strangers_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="kclassify did not make"):
        run_path(tmp_path / "mine", name="x")
    with pytest.raises(InputError, match="a file"):
        run_path(tmp_path / "mine" / "thesis.txt", name="x")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_an_empty_folder_and_a_run_may_be_written_to(tmp_path):
    assert run_path(tmp_path, name="x") == tmp_path
    (tmp_path / "checkpoints").mkdir()
    assert run_path(tmp_path, name="x") == tmp_path


def test_default_run_paths_differ():
    first, second = (run_path(None, name="digits") for _ in range(2))
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
    with pytest.raises(InputError, match=r"config\.json', which is not JSON.*train again"):
        run.config  # noqa: B018


def test_of_what_can_be_written_again_it_is_said_how(tmp_path):
    (tmp_path / "metrics.json").write_text('{"split": ')
    with pytest.raises(InputError, match=r"metrics\.json'.*or delete it and give the command"):
        read_json(tmp_path / "metrics.json")


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


def test_a_notebook_shows_a_run(tiny_run, tiny_arrays, tmp_path):
    html = tiny_run._repr_html_()
    assert f"{tiny_run.summary['val_accuracy']:.4f}" in html
    assert "convnet" in html
    run = Run(shutil.copytree(tiny_run.path, tmp_path / "<b>"))
    metrics = kclassify.evaluate(run, data=tiny_arrays, verbose=False).metrics
    html = run._repr_html_()
    assert f"{metrics['loss']:.4f}" in html
    assert "&lt;b&gt;" in html
    assert "not finished" in Run(tmp_path / "none")._repr_html_()
