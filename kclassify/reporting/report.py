"""`report`: a run as one page for people, in HTML and in Markdown."""

import base64
import io
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from kclassify.reporting import wording
from kclassify.reporting.card import card_text
from kclassify.reporting.figures import MOST_CELLS, confusion_figure, learning_curves
from kclassify.reporting.sections import SECTIONS
from kclassify.reporting.settings import commands, settings
from kclassify.reporting.tables import RunTables, read_tables
from kclassify.reporting.templates import html_templates, markdown_templates
from kclassify.runs import Run

MOST_PIXELS = 256
MOST_SKIPPED = 50


@dataclass(frozen=True)
class Section:
    """A part of the page: its name, its title, and what is in it; nothing where it was not made."""

    name: str
    title: str
    command: str
    html: Markup | None = None
    markdown: Markup | None = None


def report(run: Run | str | os.PathLike[str]) -> Path:
    """Write `report.html`, `report.md` and `model-card.md` and return the path of the first.

    The page needs nothing beside itself: no network, no JavaScript, no other file. It is made
    from the files of the run alone, so TensorFlow is not imported. An older report is replaced.

    Args:
        run: a run that was evaluated, or the path of its folder.

    Returns:
        The path of `report.html`.

    Raises:
        InputError: there is no such run, or it was not evaluated yet.

    Example:
        >>> import kclassify
        >>> kclassify.report("saved_models/none")
        Traceback (most recent call last):
        ...
        kclassify.checks.InputError: `run` must be a run folder, ...
    """
    run = Run.open(run)
    page = _page(read_tables(run))
    html = html_templates().get_template("page.html.jinja").render(page)
    markdown = markdown_templates().get_template("page.md.jinja").render(page)
    run.write(run.report_file.with_suffix(".md"), encodable(markdown))
    run.write(run.card_file, encodable(card_text(run)))
    run.write(run.report_file, encodable(html))
    return run.report_file


def _page(tables: RunTables) -> dict[str, Any]:
    few = len(tables.class_names) <= MOST_CELLS
    return {
        "run": tables,
        "config": tables.manifest["config"],
        "curves": learning_curves(tables.history, best_epoch=tables.summary["best_epoch"]),
        "left_out": _left_out(tables.history),
        "confusion": confusion_figure(tables.confusion, tables.class_names) if few else None,
        "classes": _classes(tables),
        "gallery": [(mistake, _png(mistake.image)) for mistake in tables.mistakes],
        "settings": settings(tables.manifest["config"]),
        "environment": _environment_rows(tables.environment),
        "commands": commands(tables),
        "most_skipped": MOST_SKIPPED,
        "sections": [_section(name, tables) for name in SECTIONS],
    }


def _left_out(history: pd.DataFrame) -> str | None:
    """Say since when images were left out of the epochs; None where none were."""
    if "left_out" not in history or not history["left_out"].any():
        return None
    since = history.loc[history["left_out"] > 0, "epoch"].min()
    share = history["left_out"].max()
    return f"from epoch {since} on without the {share:.0%} that were known best"


def _section(name: str, tables: RunTables) -> Section:
    module = import_module(f"kclassify.reporting.sections.{name}")
    command = SECTIONS[name].format(run=tables.run)
    found = module.read(tables.run)
    if found is None:
        return Section(name, module.TITLE, command)
    parts = {"part": found, "run": tables}
    html = html_templates().get_template(f"sections/{name}.html.jinja").render(parts)
    markdown = markdown_templates().get_template(f"sections/{name}.md.jinja").render(parts)
    # Both have escaped what they were given.
    return Section(name, module.TITLE, command, Markup(html), Markup(markdown))


def _classes(tables: RunTables) -> list[dict[Any, Any]]:
    table = tables.per_class[["precision", "recall", "f1", "support"]]
    return table.assign(name=tables.class_names).to_dict("records")


def _environment_rows(environment: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in environment.items():
        rows += list(value.items()) if isinstance(value, dict) else [(wording.words(name), value)]
    return rows


def _png(image: np.ndarray) -> str:
    """Return a data URI of an image `(height, width, channels)`, no larger than is looked at."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def encodable(text: str) -> str:
    """Return text that UTF-8 can hold, whatever the names of files are."""
    # A file name that is no UTF-8 reaches Python with lone surrogates in it.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
