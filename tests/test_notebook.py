"""The notebook in `examples/`, from its first cell to its last."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_the_whole_way(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[test]'")
    client = pytest.importorskip("nbclient", reason="pip install -e '.[test]'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    # Raises at the first cell that does.
    client.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = [output for output in shown if output["output_type"] == "error"]
    pages = [
        output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})
    ]
    assert not errors
    # A run, an evaluation, a comparison, slices, a link to the report and a table of predictions.
    assert len(pages) == 6
    for wanted, page in zip(("finished", "f1_macro", "points", "brightness"), pages, strict=False):
        assert wanted in page
    assert list(tmp_path.glob("saved_models/*/report.html"))
