"""What the run takes to serve, on the machine that measured it."""

from typing import Any

from kclassify.reporting.tables import read_analysis
from kclassify.runs import Run

TITLE = "Cost"


def read(run: Run) -> dict[str, Any] | None:
    """Return the sizes, and a row for each batch size."""
    return read_analysis(run, "cost")
