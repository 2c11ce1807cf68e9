import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.reporting.sections import label_errors
from kclassify.reporting.tables import read_tables
from kclassify.reporting.templates import html_templates, markdown_templates

WORST = [
    {"id": "a<b>.png", "given": "cat", "suggested": "dog", "self_confidence": 0.0123,
     "margin": -0.9012},
    {"id": "c.png", "given": "NA", "suggested": "1", "self_confidence": 0.2, "margin": -0.3},
]  # fmt: skip


def facts(run, **changes):
    return {
        "split": "train and validation", "images": 50_000, "folds": 5, "estimated": 2,
        "accuracy": 0.81, "verdict": "2 of 50,000 labels of <train> are estimated to be wrong",
        "pairs": [["cat", "dog", 1], ["NA", "1", 1]], "worst": WORST,
        "weights_sha256": run.summary["weights_sha256"], **changes,
    }  # fmt: skip


@pytest.fixture
def examined(run):
    run.write(run.arrays_file("label_errors"), {"images": np.zeros((2, 8, 8, 3), "uint8")})
    run.write(run.analysis_file("label_errors"), facts(run))
    return run


def rendered(run):
    part = {"part": label_errors.read(run), "run": read_tables(run)}
    html = html_templates().get_template("sections/label_errors.html.jinja")
    markdown = markdown_templates().get_template("sections/label_errors.md.jinja")
    return html.render(part), markdown.render(part)


def test_the_worst_labels_are_shown_with_their_images(examined):
    html, markdown = rendered(examined)
    assert html.count("data:image/png;base64,") == 2
    assert html.count('alt="Image') == 2
    for text in ("a&lt;b&gt;.png", "1.23 %", "NA", "50,000", "Northcutt", "label_errors.csv",
                 "label_errors.json", "in 5 folds", "of &lt;train&gt;"):  # fmt: skip
        assert text in html, text
    assert "a<b>" not in html + markdown
    assert "| c.png | NA | 1 | 20.00 % | -0.3 |" in markdown


def test_where_no_label_is_wrong_nothing_is_shown_of_any(run):
    run.write(run.arrays_file("label_errors"), {"images": np.zeros((0, 8, 8, 3), "uint8")})
    run.write(run.analysis_file("label_errors"), facts(run, pairs=[], worst=[], estimated=0))
    html, markdown = rendered(run)
    assert "<img" not in html
    assert "<table" not in html
    assert "|" not in markdown


def test_what_was_not_looked_for_is_none(run):
    assert label_errors.read(run) is None
    run.write(run.analysis_file("label_errors"), facts(run, weights_sha256="of others"))
    assert label_errors.read(run) is None


def test_damaged_images_are_said_to_be_so(examined):
    examined.arrays_file("label_errors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a file of arrays"):
        label_errors.read(examined)
