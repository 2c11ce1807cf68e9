"""The model card of a run, in Hugging Face's format, from the files of the run alone.

Mitchell et al. 2019 say what a card is for: what the model was measured on, and where it was not.
"""

from typing import Any

import yaml

from kclassify.reporting import wording
from kclassify.reporting.sections import SECTIONS
from kclassify.reporting.tables import RunTables, read_analysis, read_tables
from kclassify.reporting.templates import markdown_templates
from kclassify.runs import Run

# The analyses that a card speaks of where they were not made: what they measure.
ANALYSES = {
    "robustness": "accuracy on worse images",
    "slices": "accuracy by brightness, contrast, sharpness and saturation",
    "out_of_distribution": "what it says of images of none of its classes",
    "cost": "latency, throughput and memory",
    "label_errors": "wrong labels in the data",
}
DATA_CHECK = ("damaged, doubled and leaked images", "kclassify check RUN")
CALIBRATION = ("calibration of the probabilities", "kclassify evaluate RUN")


def card_text(run: Run) -> str:
    """Return the model card: YAML that Hugging Face's Hub reads, then Markdown for people.

    Nothing is measured here: what the run has no file of is said not to have been measured.

    Args:
        run: a run that was evaluated.

    Returns:
        The text of ``model-card.md``, which the Hub takes as ``README.md``.

    Raises:
        InputError: the run was not evaluated, or its files are damaged or of two evaluations.

    Example:
        >>> import kclassify
        >>> from kclassify.reporting.card import card_text
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> _ = kclassify.evaluate(run, verbose=False)
        >>> card_text(run).splitlines()[0]
        '---'
    """
    tables = read_tables(run)
    analyses = {name: read_analysis(run, name) for name in ANALYSES}
    parts = {
        "front": _front_matter(tables),
        "run": tables,
        "fingerprint": tables.manifest.get("fingerprint"),
        "temperature": tables.evaluation.get("temperature"),
        "uncalibrated": tables.evaluation.get("uncalibrated", {}),
        "analyses": analyses,
        "unmeasured": _unmeasured(tables, analyses),
        "environment": _environment_rows(tables.environment),
    }
    return markdown_templates().get_template("card.md.jinja").render(parts)


def _front_matter(tables: RunTables) -> str:
    facts = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "keras", "tensorflow", "kclassify"],
        "model-index": [{"name": _line(tables.run.path.name), "results": [_result(tables)]}],
    }
    # Whatever a name holds, YAML quotes it; what is nested is indented, so no "---" ends it.
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def _result(tables: RunTables) -> dict[str, Any]:
    name = _line(tables.data)
    metrics = [
        {"type": metric, "name": wording.words(metric), "value": value}
        for metric, value in tables.evaluation["metrics"].items()
    ]
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": name, "name": name, "split": tables.split},
        "metrics": metrics,
    }


def _line(text: str) -> str:
    return " ".join(text.split())


def _unmeasured(tables: RunTables, analyses: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was not measured, each with the command that measures it."""
    found = [
        (ANALYSES[name], SECTIONS[name].format(run="RUN"))
        for name, facts in analyses.items()
        if facts is None
    ]
    if tables.data_check is None:
        found.append(DATA_CHECK)
    if "temperature" not in tables.evaluation:
        found.append(CALIBRATION)
    return found


def _environment_rows(environment: dict[str, Any]) -> list[tuple[str, Any]]:
    packages = environment.get("packages", {})
    plain = [(wording.words(name), value) for name, value in environment.items()
             if not isinstance(value, dict)]  # fmt: skip
    return plain + [(name, version) for name, version in packages.items() if version]
