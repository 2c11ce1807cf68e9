"""The section on worse images and attacks."""

import re

import numpy as np
import pandas as pd
import pytest

from kclassify.checks import InputError
from kclassify.reporting.sections import robustness
from kclassify.reporting.tables import read_tables
from kclassify.reporting.templates import html_templates, markdown_templates

NAMES = ("gaussian_noise", "glass_blur", "fog")


def rendered(run):
    part = {"part": robustness.read(run), "run": read_tables(run)}
    html = html_templates().get_template("sections/robustness.html.jinja").render(part)
    markdown = markdown_templates()
    return html, markdown.get_template("sections/robustness.md.jinja").render(part)


def write(run, class_names, *, side=8, attacks=True, **changes):
    rows = [("clean", 0, 0.9)]
    rows += [(name, severity, 0.9 - 0.1 * place - 0.05 * severity)
             for place, name in enumerate(NAMES) for severity in range(1, 6)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["corruption", "severity", "accuracy"])
    table = table.assign(images=1000, right=1000 * table["accuracy"], low=0.1, high=0.9)
    classes = pd.DataFrame(
        {"class": list(class_names), "images": 100, "clean_accuracy": 0.9,
         "accuracy": np.linspace(0.8, 0.35, len(class_names)), "low": 0.3, "high": 0.85,
         "worst_corruption": "glass_blur", "worst_accuracy": 0.2345}
    )  # fmt: skip
    curve = pd.DataFrame(
        {"attack": ["fgsm", "fgsm", "pgd", "pgd"], "epsilon": [0, 8, 0, 8], "images": 1000,
         "right": [900, 200, 900, 7], "accuracy": [0.9, 0.2, 0.9, 0.007], "low": 0.0, "high": 0.95}
    )  # fmt: skip
    run.write(run.table_file("robustness"), table.set_index("corruption"))
    run.write(run.table_file("robustness_classes"), classes.set_index("class"))
    run.write(run.table_file("adversarial"), curve[: 4 * attacks].set_index("attack"))
    images = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), "uint8")
    arrays = {"images": images, "corruptions": np.array(["clean", *NAMES])}
    run.write(run.arrays_file("robustness"), arrays)
    means = table[table["severity"] > 0].groupby("corruption", sort=False)["accuracy"].mean()
    corruptions = [{"corruption": name, "accuracy": mean, "error": 1 - mean,
                    "relative_error": 0.7654, "relative_increase": None}
                   for name, mean in means.items()]  # fmt: skip
    facts = {
        "split": "test", "weights_sha256": run.summary["weights_sha256"],
        "corrupted_by": "kclassify", "sample": {"images": 1000, "attacked": 1000},
        "clean_accuracy": 0.9, "mean_corrupted_accuracy": 0.6512, "interval": [0.62, 0.68],
        "unnormalized_mean_corruption_error": 0.3488, "mean_corruption_error": None,
        "relative_mean_corruption_error": None, "baseline": None,
        "verdict": "the <verdict>", "corruptions": corruptions,
    }  # fmt: skip
    run.write(run.analysis_file("robustness"), {**facts, **changes})


def test_a_part_that_was_not_made_is_none(run):
    assert robustness.read(run) is None
    run.write(run.analysis_file("robustness"), {"weights_sha256": "of others"})
    assert robustness.read(run) is None


def test_all_that_was_measured_is_shown(run, class_names):
    write(run, class_names)
    html, markdown = rendered(run)
    for text in (
        *class_names,
        "glass blur",
        "65.12 %",
        "62.0 to 68.0 %",
        "23.45 %",
        "0.70 %",
        "PGD",
    ):
        assert text in html, text
        assert text in markdown, text
    for file in ("robustness.csv", "robustness_classes.csv", "adversarial.csv", "robustness.json"):
        assert f'href="{file}"' in html
    assert "the &lt;verdict&gt;" in html
    assert "<verdict>" not in markdown
    assert html.count("data:image/png;base64,") == 4
    assert html.count('alt="') == 4
    assert html.index(">fog</th>") < html.index(">glass blur</th>")
    assert "| fog | 65.00 % | 60.00 % | 55.00 % | 50.00 % | 45.00 % | 55.00 % |" in markdown


def test_the_drawing_has_a_number_in_every_cell_and_says_what_it_shows(run, class_names):
    write(run, class_names)
    figure = str(robustness.read(run)["figure"])
    for text in (">85.0<", ">55.0<", ">45.0<", ">mean<", ">glass blur<"):
        assert text in figure, text
    assert "gaussian noise 75.0 %" in re.search('aria-label="([^"]*)"', figure)[1]
    assert "var(--orange)" in figure
    opacities = {float(found) for found in re.findall(r"opacity: ([\d.]+)", figure)}
    assert max(opacities) <= 0.55


def test_errors_against_a_baseline_are_said_to_be_so(run, class_names):
    write(run, class_names)
    assert "mCE" not in rendered(run)[0]
    write(run, class_names, baseline="runs/alex_net", mean_corruption_error=0.8123,
          relative_mean_corruption_error=1.25)  # fmt: skip
    html, markdown = rendered(run)
    for text in ("0.8123", "0.7654", "1.25", "runs/alex_net", "Of the baseline"):
        assert text in html, text
    assert "0.8123 of that of runs/alex\\_net" in markdown


def test_without_attacks_nothing_is_said_of_them(run, class_names):
    write(run, class_names, attacks=False)
    html, markdown = rendered(run)
    assert "PGD" not in html + markdown
    assert "adversarial.csv" not in html


def test_a_class_without_images_and_one_called_by_a_number(run, class_names):
    write(run, class_names)
    table = pd.read_csv(run.table_file("robustness_classes"))
    table.loc[0, "images"] = 0
    table.loc[0, ["clean_accuracy", "accuracy", "low", "high", "worst_accuracy"]] = np.nan
    table.loc[0, "worst_corruption"] = ""
    run.write(run.table_file("robustness_classes"), table.set_index("class"))
    run.write(run.config_file, {**run.config, "class_names": ["NA", *map(str, range(9))]})
    last = robustness.read(run)["classes"][-1]
    assert (last["name"], last["interval"], last["worst"]) == ("NA", None, None)
    assert robustness.read(run)["classes"][0]["name"] == "8"


def test_damaged_examples_are_said_to_be_so(run, class_names):
    write(run, class_names)
    run.arrays_file("robustness").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a file of arrays"):
        robustness.read(run)


def test_the_section_stays_small_with_large_examples(run, class_names):
    write(run, class_names, side=128)
    assert len(rendered(run)[0]) < 600_000
