"""How a report writes numbers, values and names."""

import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

# What starts something within a line of GitHub's Markdown, or ends the cell of a table.
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$@])")


def percent(share: float) -> str:
    """Write a share of 1.

    Example:
        >>> percent(0.98754)
        '98.75 %'
    """
    return f"{100 * share:.2f} %"


def amount(number: float | None) -> str:
    """Write a large number with a word for its thousands.

    Example:
        >>> amount(41_300_000), amount(62_006), amount(None)
        ('41.3 million', '62,006', 'unknown')
    """
    if number is None:
        return "unknown"
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"


def cell(value: object) -> str:
    """Write whatever a table may hold; nothing for what is missing.

    Example:
        >>> cell(0.123456), cell(12.0), cell(float("nan")), cell([32, 64])
        ('0.1235', '12', '', '[32, 64]')
    """
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float | None) -> str:
    """Write a time in its two largest units; nothing for one that is not known.

    Example:
        >>> duration(7.26), duration(582), duration(7300), duration(None)
        ('7.3 s', '9 min 42 s', '2 h 1 min', '')
    """
    if seconds is None or seconds != seconds:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def words(name: str) -> str:
    """Write the name of a metric or of a column.

    Example:
        >>> words("precision_macro"), words("top_5_accuracy"), words("classwise_ece")
        ('Precision, macro', 'Top-5 accuracy', 'Classwise calibration error (ECE)')
    """
    name = re.sub(r"^val_", "validation ", name)
    text = re.sub(r"^top_(\d+)_", r"top-\1 ", name)
    text = re.sub(r"_(macro|weighted)$", r", \1", text).replace("_", " ")
    text = re.sub(r"\bece\b", "calibration error (ECE)", text)
    return text[:1].upper() + text[1:]


def setting(value: Any) -> str:
    """Write the value of a field of the configuration.

    Example:
        >>> setting({"depth": 20}), setting(None), setting(["a", "b"]), setting(0.1)
        ('depth=20', 'none', 'a, b', '0.1')
    """
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def written(value: Any, how: str) -> str:
    """Write a cell of a table as its column says.

    Args:
        value: of the cell; nothing is written for what is missing.
        how: ``"text"``; ``"number"``, 4 digits; ``"whole"``; ``"share"``, of 1, in percent; or,
            of two ends, ``"range"``, of numbers, and ``"interval"``, of shares in percent.

    Example:
        >>> written(0.98754, "share"), written(12345, "whole"), written((0.1, 0.25), "interval")
        ('98.75 %', '12,345', '10.0 to 25.0 %')
        >>> written((-0.5, 1.25), "range"), written(None, "number")
        ('-0.5 to 1.25', '')
    """
    if value is None or value != value:
        return ""
    return _WRITTEN[how](value)


_WRITTEN: dict[str, Callable[[Any], str]] = {
    "text": str,
    "number": lambda value: f"{value:.4g}",
    "whole": lambda value: f"{value:,.0f}",
    "share": percent,
    "range": lambda ends: f"{ends[0]:.4g} to {ends[1]:.4g}",
    "interval": lambda ends: f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %",
}


def escape_markdown(value: Any) -> str:
    """Return `value` as text that means nothing else in Markdown or in the HTML within it.

    Example:
        >>> print(escape_markdown("a|b <script> *c*"))
        a\\|b &lt;script&gt; \\*c\\*
    """
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split())
    text = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)
