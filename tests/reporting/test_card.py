import json
import re
import subprocess
import sys

import pytest
import yaml

from kclassify.checks import InputError
from kclassify.reporting.card import card_text

HOSTILE = ("a: [b", "---\nlicense: evil", "<script>alert(1)</script>", "x | y ` * # {{ 1 }} {% %}")


def split_card(text):
    """Return the front matter, as Hugging Face's Hub finds it, and the Markdown."""
    found = re.match(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))", text)
    return yaml.safe_load(found[2]), text[found.end() :]


def facts_of(run, name, **facts):
    run.write(run.analysis_file(name), {"weights_sha256": run.summary["weights_sha256"], **facts})


def change(run, file, **changes):
    run.write(file, {**json.loads(file.read_text()), **changes})


def test_the_front_matter_has_the_metrics_as_the_hub_reads_them(run):
    front, _ = split_card(card_text(run))
    assert front["library_name"] == "keras"
    assert front["pipeline_tag"] == "image-classification"
    assert "license" not in front
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"type": "cifar10", "name": "cifar10", "split": "test"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == json.loads(run.metrics_file.read_text())["metrics"]


def test_the_place_of_the_licence_is_a_comment(run):
    assert card_text(run).splitlines()[1].startswith("# license: ")


def test_what_an_old_run_did_not_note_is_said_not_to_have_been_measured(run):
    _, text = split_card(card_text(run))
    assert "not noted" in text
    for command in ("kclassify robustness", "label-errors DATA", "kclassify check RUN",
                    "kclassify evaluate RUN"):  # fmt: skip
        assert command in text.split("## Limits")[1]


def test_what_was_measured_is_shown_and_not_among_the_limits(run):
    change(run, run.config_file, fingerprint="f00d")
    change(run, run.metrics_file, temperature=1.5, uncalibrated={"loss": 0.75},
           intervals={"accuracy": [0.84, 0.88]})  # fmt: skip
    run.write(run.data_check_file, {"findings": [
        {"severity": "warning", "kind": "doubles", "count": 2, "what": "2 images are doubled",
         "examples": []}]})  # fmt: skip
    facts_of(run, "robustness", split="test", images=500)
    facts_of(run, "label_errors", images=50_000, estimated=312, split="train and validation")
    text = card_text(run)
    for shown in ("f00d", "0.84 to 0.88", "temperature 1.5", "| Loss | 0.7500 | 0.4821 |",
                  "warning: 2 images are doubled", "| Images | 500 |", "Of 50,000 labels",
                  "estimates 312 to be wrong"):  # fmt: skip
        assert shown in text
    limits = text.split("## Limits")[1]
    for command in ("robustness", "label-errors", "check RUN", "evaluate RUN"):
        assert command not in limits
    assert "--parts slices" in limits


def test_an_analysis_of_other_weights_is_not_shown(run):
    run.write(run.analysis_file("robustness"), {"weights_sha256": "other", "images": 500})
    assert "kclassify robustness" in card_text(run)


def test_a_temperature_of_one_changed_nothing(run):
    change(run, run.metrics_file, temperature=1.0, uncalibrated={})
    assert "the temperature is 1" in card_text(run)


def test_a_split_that_the_training_saw_is_called_so(run):
    assert "the training left alone" not in card_text(run)
    change(run, run.metrics_file, split="train")
    assert "not images that the training left alone" in card_text(run)


def test_hostile_names_break_neither_yaml_nor_markdown(tmp_path, write_run):
    for place, name in enumerate([*HOSTILE, "caf\u00e9 \u732b", "lone \udc80"]):
        run = write_run(tmp_path / f"run-{place}", HOSTILE, data=name)
        front, text = split_card(card_text(run))
        assert list(front) == ["library_name", "pipeline_tag", "tags", "model-index"]
        dataset = front["model-index"][0]["results"][0]["dataset"]
        assert dataset["name"] == " ".join(name.split())
        assert "<script>" not in text
        assert "\nlicense: evil" not in text
        assert "x \\| y" in text


def test_a_hostile_folder_is_the_name_of_the_model(tmp_path, write_run):
    run = write_run(tmp_path / "a: b\n--- #c", ["x", "y"])
    front, _ = split_card(card_text(run))
    assert front["model-index"][0]["name"] == "a: b --- #c"


def test_a_run_without_metrics_is_refused(small_run):
    small_run.metrics_file.unlink()
    with pytest.raises(InputError, match="evaluated run"):
        card_text(small_run)


def test_a_card_needs_no_tensorflow(small_run):
    code = (
        "import sys; from kclassify.reporting.card import card_text; from kclassify.runs import "
        f"Run; card_text(Run.open({str(small_run)!r})); print('tensorflow' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
