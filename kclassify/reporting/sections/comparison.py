"""Whether this run is better than others, on the same images."""

from typing import Any

from kclassify.reporting.tables import TEXTS, read_analysis, read_csv
from kclassify.runs import Run

TITLE = "Comparison"
MOST_CHANGES = 12


def read(run: Run) -> dict[str, Any] | None:
    """Return the runs, the tests of every two, and the first images that changed."""
    found = read_analysis(run, "comparison")
    if found is None:
        return None
    changes = read_csv(run.table_file("comparison-changes"), texts=TEXTS).reset_index()
    return {
        **found,
        "runs": [{**row, "interval": (row["low"], row["high"])} for row in found["runs"]],
        "pairs": [{**row, "points": 100 * row["difference"],
                   "range": (100 * row["low"], 100 * row["high"])} for row in found["pairs"]],
        "sentences": found["verdict"].splitlines(),
        "changes": changes.head(MOST_CHANGES).to_dict("records"),
        "changed": len(changes),
    }  # fmt: skip
