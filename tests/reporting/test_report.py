import re
import subprocess
import sys

import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.reporting.report import report
from kclassify.runs import read_json

HOSTILE = ("<script>alert(1)</script>", "a|b", "two\nlines", '"> <img src=x>', "e")


def pages(run) -> tuple[str, str]:
    file = report(run)
    return file.read_text("utf-8"), file.with_suffix(".md").read_text("utf-8")


@pytest.fixture(scope="module")
def plain(write_run, tmp_path_factory):
    return pages(write_run(tmp_path_factory.mktemp("plain") / "run"))


@pytest.fixture(scope="module")
def hostile(write_run, tmp_path_factory):
    skipped = [["<script>|\n.png", "cut <b>off</b>"]]
    return pages(write_run(tmp_path_factory.mktemp("hostile") / "run", HOSTILE, skipped=skipped))


def test_writes_both_pages_and_returns_the_html(small_run):
    assert report(str(small_run)) == small_run.path / "report.html"
    assert (small_run.path / "report.md").is_file()


def test_replaces_an_older_report_and_leaves_nothing_beside(small_run):
    before = sorted(small_run.path.iterdir())
    first = report(small_run).read_bytes()
    assert report(small_run).read_bytes() == first
    assert {file.name for file in set(small_run.path.iterdir()) - set(before)} == {
        "model-card.md", "report.html", "report.md",
    }  # fmt: skip


def test_failed_report_leaves_the_older_one(small_run, monkeypatch):
    first = report(small_run).read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        report(small_run)
    assert small_run.report_file.read_bytes() == first
    assert not list(small_run.path.glob(".*"))


def test_imports_neither_tensorflow_nor_keras(small_run):
    program = (
        "import sys\nfrom kclassify.reporting.report import report\nreport(sys.argv[1])\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(small_run)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_headline_numbers_stand_in_both_pages(plain):
    accuracy = f"{100 * np.trace(_confusion()) / _confusion().sum():.2f} %"
    for page in plain:
        for text in (accuracy, "1.2 million", "41.3 million", "9 min 42 s", "Test accuracy"):
            assert text in page


def _confusion() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.poisson(1.2, (10, 10)) + np.diag(random.integers(75, 95, 10))


def test_page_is_self_contained(plain):
    html, _ = plain
    assert "<script" not in html
    assert "<link" not in html
    assert "default-src 'none'" in html
    links = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', html))
    # Only where the figures come from, beside it in the run's folder; nothing is loaded from there.
    assert links <= {"metrics.csv"}
    assert not re.findall(r"url\((?!#)", html)


def test_hostile_names_are_text_in_both_pages(hostile):
    html, markdown = hostile
    for page in (html, markdown):
        assert "<script" not in page
        assert "<img src=x" not in page
        assert "<b>" not in page
    assert "&lt;script&gt;alert(1)" in html


def test_hostile_names_keep_the_tables_of_markdown_whole(hostile):
    _, markdown = hostile
    table = markdown.split("| Class |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == len(HOSTILE)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in table} == {6}
    assert table[1].startswith(r"| a\|b |")
    assert table[2].startswith("| two lines |")


@pytest.mark.parametrize("names", [("NA", "1", "given", "", "null"), ("0", "1")])
def test_names_that_tables_take_for_values(tmp_path, names, write_run):
    html, _ = pages(write_run(tmp_path / "run", names))
    for name in names:
        assert f'<th scope="row">{name}</th>' in html


def test_names_that_are_not_utf8_are_written(tmp_path, write_run):
    html, _ = pages(
        write_run(tmp_path / "run", ("a", "b"), skipped=[["caf\udce9.png", "truncated"]])
    )
    assert "caf\\udce9.png" in html


def test_many_classes_get_a_table_instead_of_a_figure(tmp_path, write_run):
    few, _ = pages(write_run(tmp_path / "few", [f"c{place}" for place in range(20)]))
    many, _ = pages(write_run(tmp_path / "many", [f"c{place}" for place in range(21)]))
    assert 'class="plot confusion"' in few
    assert 'class="plot confusion"' not in many
    assert "Most confused" in many


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 400)])
def test_images_of_any_kind_are_embedded(small_run, channels, side, make_errors):
    errors = make_errors(side=side)
    small_run.write(small_run.errors_file, {**errors, "images": errors["images"][..., :channels]})
    html, _ = pages(small_run)
    assert html.count("data:image/png;base64,") == 12
    assert html.count('class="small"') == (12 if side < 128 else 0)
    assert len(html) < 1_500_000


def test_no_errors_is_said(small_run, make_errors):
    small_run.write(small_run.errors_file, make_errors(images=0))
    html, markdown = pages(small_run)
    assert "every image of the test split was given its right class" in html
    assert "There is none." in markdown


def test_another_split_is_named(small_run):
    evaluation = {**read_json(small_run.metrics_file), "split": "validation"}
    small_run.write(small_run.metrics_file, evaluation)
    html, markdown = pages(small_run)
    assert "Validation accuracy" in markdown
    assert "Test accuracy" not in html + markdown


def test_test_time_augmentation_is_named_where_there_was_one(small_run):
    evaluation = {**read_json(small_run.metrics_file), "tta": "flip"}
    assert "test-time augmentation" not in "".join(pages(small_run))
    small_run.write(small_run.metrics_file, evaluation)
    for page in pages(small_run):
        assert "test split, with test-time augmentation flip." in page
        assert "--tta flip" in page


def test_what_epochs_left_out_is_said_beside_their_curves(small_run):
    assert "were shown" not in "".join(pages(small_run))
    history = small_run.history
    history["left_out"] = [0.0] * (len(history) - 1) + [0.3]
    small_run.write(small_run.history_file, history)
    said = f"were shown, from epoch {len(history)} on without the 30% that were known best."
    assert all(said in page for page in pages(small_run))


def test_every_figure_and_image_has_words(plain):
    html, _ = plain
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', html)) == 4
    assert len(re.findall(r'<img [^>]*alt="Image test/', html)) == 12


def test_run_that_was_not_evaluated_is_refused(small_run):
    small_run.metrics_file.unlink()
    with pytest.raises(InputError, match=r"without metrics.json. Run `kclassify evaluate .*first"):
        report(small_run)
    assert not small_run.report_file.exists()


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a run folder"):
        report(tmp_path)
