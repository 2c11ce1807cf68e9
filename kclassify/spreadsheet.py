"""CSV files that a spreadsheet shows and does not run."""

from pathlib import Path
from typing import Any

# A cell that begins so is a formula to a spreadsheet (OWASP, "CSV injection").
_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(table: Any, path: str | Path, *, index: bool = True) -> None:
    """Write a DataFrame or Series; texts that a spreadsheet would run get an apostrophe first."""
    frame = table.to_frame() if table.ndim == 1 else table
    frame = frame.apply(lambda column: column.map(harmless))
    if index:
        frame = frame.set_axis(frame.index.map(harmless)).rename_axis(frame.index.name)
    frame.rename(columns=harmless).to_csv(path, index=index)


def harmless(value: Any) -> Any:
    """Return a value as a cell that is never run.

    Example:
        >>> from kclassify.spreadsheet import harmless
        >>> harmless("=1+1"), harmless("cat"), harmless(-1)
        ("'=1+1", 'cat', -1)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_STARTS) else value
