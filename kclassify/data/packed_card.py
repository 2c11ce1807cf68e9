"""The data card of a packed set: what is in it, and where from, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kclassify.checks import printable
from kclassify.data.spec import Source

MOST_NAMED = 20


def card(source: Source, facts: Mapping[str, Any], shards: Mapping[str, Sequence[Any]]) -> str:
    """Return the card as Markdown.

    Args:
        source: what is packed.
        facts: what the manifest says of it.
        shards: by split, a row a file.
    """
    height, width, channels = source.input_shape
    size = sum(row["bytes"] for rows in shards.values() for row in rows)
    config = ", ".join(f"{name}={value!r}" for name, value in facts["config"].items())
    lines = [
        f"# {_text(source.name)}",
        "",
        f"- from: {_text(facts['origin'] or 'memory')}",
        f"- images: uint8, {height}x{width}x{channels} (height, width, channels)",
        f"- labels: {'shares of classes' if facts['soft'] else 'class indices'}, "
        f"{source.num_classes} classes",
        f"- files: {sum(map(len, shards.values()))} of records, {size / 1e6:,.1f} MB",
        f"- order: random within each split, seed {facts['config']['seed']}",
        f"- made with: {_text(config)}",
        f"- images left out: {len(source.skipped)}",
        f"- SHA-256 of the source: {facts['fingerprint']}",
        "",
        *_table(source),
        *_left_out(source),
    ]
    return "\n".join(lines) + "\n"


def _table(source: Source) -> list[str]:
    counts = [
        np.bincount(part.class_ids, minlength=source.num_classes) for part in source.splits.values()
    ]
    rows = [["class", *source.splits], ["---"] * (1 + len(counts))]
    rows += [
        [_text(name), *(f"{count[place]:,}" for count in counts)]
        for place, name in enumerate(source.class_names)
    ]
    rows.append(["all", *(f"{count.sum():,}" for count in counts)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _left_out(source: Source) -> list[str]:
    if not source.skipped:
        return []
    more = len(source.skipped) - MOST_NAMED
    named = [f"- {_text(path)}: {_text(why)}" for path, why in source.skipped[:MOST_NAMED]]
    return ["", "Left out:", "", *named, *([f"- and {more} more"] if more > 0 else [])]


def _text(text: str) -> str:
    """Return text that neither a terminal nor Markdown obeys."""
    plain = printable(text).replace("\n", " ").replace("\t", " ")
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in plain)
