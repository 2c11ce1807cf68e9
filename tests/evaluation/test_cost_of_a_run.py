import json
import shutil

import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.evaluation import cost as room
from kclassify.evaluation.cost import cost, measure
from kclassify.models.saved import load_run_model
from kclassify.reporting.sections import cost as section
from kclassify.reporting.templates import html_templates
from kclassify.runs import Run


@pytest.fixture
def run(tiny_run, tmp_path):
    return Run(shutil.copytree(tiny_run.path, tmp_path / "run"))


@pytest.fixture
def measured_here(monkeypatch):
    """Measure without a process of its own."""
    monkeypatch.setattr(room, "measure_in_child", lambda path, *asked: measure(str(path), *asked))


def test_a_run_without_an_export_is_measured_by_its_model(run):
    found = cost(run, batch_sizes=[1, 4], seconds=0.05, verbose=False)
    model = load_run_model(run)
    assert found.served == "model.keras"
    assert found.parameters == model.count_params()
    assert found.megabytes == run.model_file.stat().st_size / 1e6
    # The interpreter and TensorFlow alone are more than that, and this process's own is not in it.
    assert 100 < found.peak_memory < 4000
    table = found.table
    assert list(table["batch_size"]) == [1, 4]
    assert (table["p50_ms"] <= table["p95_ms"]).all()
    # All calls together took the 50 ms that they had, but for what is between two of them.
    mean_ms = 1000 * table["batch_size"] / table["images_per_second"]
    assert (table["calls"] * mean_ms >= 40).all()
    assert "p95_ms" in str(found)
    assert "p95_ms" in found._repr_html_()


def test_the_newest_export_is_what_is_served_and_a_damaged_one_says_why(run, unverified):
    folder = kclassify.export(run)
    found = cost(run, batch_sizes=[1], seconds=0.05, verbose=False)
    assert found.served == f"export/{folder.name}"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert found.megabytes == sum(file.stat().st_size for file in files) / 1e6
    run.analysis_file("cost").unlink()
    (folder / "saved_model.pb").unlink()
    with pytest.raises(InputError, match=r"Received: .*saved_model\.pb"):
        cost(run, batch_sizes=[1], seconds=0.05, verbose=False)
    assert not run.analysis_file("cost").exists()


def test_the_section_shows_what_the_files_say(run, measured_here):
    assert section.read(run) is None
    found = cost(run, batch_sizes=[1, 4], seconds=0.05, verbose=False)
    facts = json.loads(run.analysis_file("cost").read_text())
    assert section.read(run) == facts
    html = html_templates().get_template("sections/cost.html.jinja").render(part=facts)
    assert f"{found.megabytes:.2f} MB" in html
    assert html.count("<tr>") == 3
    assert "cost.csv" in html


def test_of_other_weights_nothing_is_shown(run, measured_here):
    cost(run, batch_sizes=[1], seconds=0.05, verbose=False)
    run.write(run.summary_file, {**run.summary, "weights_sha256": "another"})
    assert section.read(run) is None


def test_every_call_is_counted(run):
    found = measure(str(run), 0.0, [2])["rows"][0]
    assert found["calls"] == 10
    assert np.isfinite([found["p50_ms"], found["images_per_second"]]).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_sizes": []}, "`batch_sizes` must be whole numbers"),
        ({"batch_sizes": [0]}, "`batch_sizes` must be whole numbers"),
        ({"seconds": 0}, "`seconds` must be a number above 0"),
    ],
)
def test_bad_arguments_are_refused_first(given, message):
    with pytest.raises(InputError, match=message):
        cost("no-run", **given)
