"""Which labels of the data are likely wrong."""

from typing import Any

from kclassify.reporting.pictures import data_uri
from kclassify.reporting.sections.explanation import read_arrays
from kclassify.reporting.tables import read_analysis
from kclassify.runs import Run

TITLE = "Label errors"


def read(run: Run) -> dict[str, Any] | None:
    """Return what was found, the pairs of classes, and the worst images with their labels."""
    found = read_analysis(run, "label_errors")
    if found is None:
        return None
    images = read_arrays(run, "label_errors")["images"]
    rows = [{**row, "image": data_uri(image), "small": image.shape[0] < 128}
            for row, image in zip(found["worst"], images, strict=True)]  # fmt: skip
    pairs = [dict(zip(("given", "suggested", "images"), pair, strict=True))
             for pair in found["pairs"]]  # fmt: skip
    return {**found, "rows": rows, "pairs": pairs}
