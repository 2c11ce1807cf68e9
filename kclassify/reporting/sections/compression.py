"""How the run came of another, and what else was tried."""

from typing import Any

from kclassify.reporting.figures import trade_off_figure
from kclassify.reporting.tables import read_analysis
from kclassify.runs import Run

TITLE = "Compression"


def read(run: Run) -> dict[str, Any] | None:
    """Return the trade-off, the parent first, and a drawing of it."""
    found = read_analysis(run, "compression")
    if found is None:
        return None
    rows = [{**row, "interval": (row["accuracy_low"], row["accuracy_high"]),
             "points": 100 * row["difference"], "range": (100 * row["low"], 100 * row["high"]),
             "passed": "yes" if row["passes"] else "no"} for row in found["rows"]]  # fmt: skip
    told = {**found["technique"], **found["technique"].get("training", {})}
    asked = {name: value for name, value in told.items() if value is not None
             and name not in ("parent", "technique", "training", "trained", "begin")}  # fmt: skip
    return {
        **found,
        "rows": rows,
        "asked": ", ".join(f"{name} {value}" for name, value in asked.items()),
        "drawing": trade_off_figure(found["rows"], chosen=found["chosen"]),
    }
