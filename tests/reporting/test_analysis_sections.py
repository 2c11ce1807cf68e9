"""The sections on explanations, on what was learned, and on unknown images."""

import numpy as np
import pandas as pd
import pytest

from kclassify.checks import InputError
from kclassify.reporting.sections import explanation, learned, out_of_distribution
from kclassify.reporting.tables import read_tables
from kclassify.reporting.templates import html_templates, markdown_templates

SECTIONS = {
    "explanation": explanation,
    "learned": learned,
    "out_of_distribution": out_of_distribution,
}


def rendered(run, name):
    part = {"part": SECTIONS[name].read(run), "run": read_tables(run)}
    html = html_templates().get_template(f"sections/{name}.html.jinja").render(part)
    markdown = markdown_templates()
    return html, markdown.get_template(f"sections/{name}.md.jinja").render(part)


def write(run, name, facts):
    common = {"split": "test", "images": 64, "verdict": f"the <verdict> of {name}"}
    weights = {"weights_sha256": run.summary["weights_sha256"]}
    run.write(run.analysis_file(name), {**common, **weights, **facts})


@pytest.fixture
def explained(run):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), "uint8")
    table = pd.DataFrame(
        {"id": ["a<b>", "c"], "given": ["cat", ""], "predicted": ["dog", "frog"],
         "deletion": [0.125, 0.2], "insertion": [0.75, 0.8]}
    )  # fmt: skip
    run.write(run.table_file("explanation"), table.set_index("id"))
    overlays = images.repeat(3, axis=-1)
    run.write(run.arrays_file("explanations"), {"images": images, "overlays": overlays})
    facts = {"method": "grad_cam", "flagged": True, "p": 0.25, "correlation": 0.5,
             "gain": 0.1, "moved": 0.2, "unlearned": 0.1}  # fmt: skip
    write(run, "explanation", facts)
    return run


@pytest.fixture
def with_features(run, class_names):
    rng = np.random.default_rng(0)
    neighbours = pd.DataFrame(
        {"id": ["e"] * 3, "given": ["cat"] * 3, "predicted": ["dog"] * 3,
         "neighbour": ["n1", "n2", "n3"], "label": ["dog", "cat", "dog"],
         "distance": [0.1, 0.2, 0.3]}
    )  # fmt: skip
    embedding = pd.DataFrame(
        {"id": np.arange(1000), "given": np.tile(class_names, 100),
         "x": rng.normal(size=1000), "y": rng.normal(size=1000)}
    )  # fmt: skip
    run.write(run.table_file("neighbours"), neighbours.set_index("id"))
    run.write(run.table_file("embedding"), embedding.set_index("id"))
    arrays = {"errors": np.zeros((1, 8, 8, 3), "uint8"), "filters": np.zeros((4, 2, 2, 3), "uint8"),
              "nearest": np.zeros((1, 3, 8, 8, 3), "uint8")}  # fmt: skip
    run.write(run.arrays_file("features"), arrays)
    closest = [{"a": "cat", "b": "dog", "distance": 0.1234}]
    facts = {"training_images": 10_000, "embedded": 1000, "drawn_by": "t-SNE", "whitening": True,
             "filters": 4, "closest": closest}  # fmt: skip
    write(run, "learned", facts)
    return run


@pytest.fixture
def against_others(run):
    row = {"against": "uniform noise", "score": "max_softmax", "images": 2000, "auroc": 0.9123,
           "auroc_low": 0.9, "auroc_high": 0.92, "fpr95": 0.25, "fpr95_low": 0.23,
           "fpr95_high": 0.27}  # fmt: skip
    write(run, "out_of_distribution",
          {"neighbour": 10, "threshold_from": "validation", "rows": [row]})  # fmt: skip
    return run


@pytest.mark.parametrize("name", SECTIONS)
def test_a_part_that_was_not_made_is_none(run, name):
    assert SECTIONS[name].read(run) is None
    run.write(run.analysis_file(name), {"weights_sha256": "of others"})
    assert SECTIONS[name].read(run) is None


def test_explanations_are_shown_with_their_scores_and_a_warning(explained):
    html, markdown = rendered(explained, "explanation")
    assert html.count("data:image/png;base64,") == 4
    assert html.count('alt="') == 4
    for text in ("0.125", "0.75", "a&lt;b&gt;", "do not take these maps", "explanation.csv"):
        assert text in html, text
    assert "the <verdict>" not in html
    assert "| frog | 0.2 | 0.8 |" in markdown
    assert "do not take them for reasons" in markdown


def test_damaged_arrays_are_said_to_be_so(explained):
    explained.arrays_file("explanations").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a file of arrays"):
        explanation.read(explained)


def test_what_was_learned_is_shown(with_features, class_names):
    html, markdown = rendered(with_features, "learned")
    for text in (*class_names, "0.1234", "n1", "fixed whitening", "class_distances.csv"):
        assert text in html, text
    assert html.count('class="plot embedding"') == 1
    assert html.count("<img") == 4 + 4
    assert "| cat | dog | 0.1234 |" in markdown


def test_the_drawing_is_of_bounded_size(with_features):
    assert len(str(learned.read(with_features)["figure"])) < 200_000


def test_unknown_images_are_shown_with_their_intervals(against_others):
    html, markdown = rendered(against_others, "out_of_distribution")
    for text in ("max softmax", "0.9123", "0.9 to 0.92", "25.00 %", "23.0 to 27.0 %"):
        assert text in html, text
        assert text in markdown, text
    assert "out_of_distribution.csv" in html
