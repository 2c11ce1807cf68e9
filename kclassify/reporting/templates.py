"""The templates of this room; each is compiled once a process."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kclassify.reporting import wording

# What templates write numbers and names by.
WORDS = (
    wording.percent, wording.amount, wording.cell, wording.duration, wording.words, wording.setting,
    wording.written,
)  # fmt: skip


@cache
def html_templates() -> Environment:
    """Return the templates of pages, which escape what they are given."""
    return _templates(autoescape=True)


@cache
def markdown_templates() -> Environment:
    """Return the templates of Markdown, which escape what they are given."""
    return _templates(finalize=wording.escape_markdown)


def _templates(**how: Any) -> Environment:
    found = Environment(
        loader=PackageLoader("kclassify.reporting", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **how,
    )
    found.filters.update({word.__name__: word for word in WORDS})
    return found
