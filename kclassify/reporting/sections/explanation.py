"""Where the network saw what it said, in its worst errors."""

import zipfile
from typing import Any

import numpy as np

from kclassify.checks import InputError
from kclassify.reporting.pictures import data_uri
from kclassify.reporting.tables import TEXTS, read_analysis, read_csv
from kclassify.runs import Run

TITLE = "Explanation"
MOST_SHOWN = 24


def read(run: Run) -> dict[str, Any] | None:
    """Return the verdict, and the images with their maps and scores."""
    found = read_analysis(run, "explanation")
    if found is None:
        return None
    table = read_csv(run.table_file("explanation"), texts=TEXTS).reset_index().fillna("")
    arrays = read_arrays(run, "explanations")
    shown = zip(table.to_dict("records"), arrays["images"], arrays["overlays"], strict=True)
    rows = [{**row, "image": data_uri(image), "overlay": data_uri(overlay),
             "small": image.shape[0] < 128}
            for row, image, overlay in list(shown)[:MOST_SHOWN]]  # fmt: skip
    return {**found, "rows": rows}


def read_arrays(run: Run, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of an analysis, or say that they are damaged."""
    path = run.arrays_file(name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"`run` must hold whole files. Received: {str(path)!r}, which cannot be read as a file "
            f"of arrays. Run `kclassify analyze {run}` again."
        ) from error
