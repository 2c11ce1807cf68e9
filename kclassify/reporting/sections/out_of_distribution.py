"""Whether the network can tell that an image is of no kind that it knows."""

from typing import Any

from kclassify.reporting.tables import read_analysis
from kclassify.runs import Run

TITLE = "Out of distribution"


def read(run: Run) -> dict[str, Any] | None:
    """Return a row for each set of unknown images and score."""
    found = read_analysis(run, "out_of_distribution")
    if found is None:
        return None
    rows = [
        {**row, "score": row["score"].replace("_", " "),
         "auroc_range": (row["auroc_low"], row["auroc_high"]),
         "fpr95_range": (row["fpr95_low"], row["fpr95_high"])}
        for row in found["rows"]
    ]  # fmt: skip
    return {**found, "verdict": found["verdict"].replace("_", " "), "rows": rows}
