"""What is written of a run before it trains."""

from typing import Any

import numpy as np

from kclassify import __version__, runtime
from kclassify.atomic import remove_leftovers
from kclassify.config import FitConfig
from kclassify.data.fingerprint import fingerprint
from kclassify.data.sources import reference
from kclassify.data.spec import Source
from kclassify.runs import Run

runtime.prepare()

from kclassify.data.pipeline import first_images  # noqa: E402

# Images that an export is verified with.
SAMPLES = 256


def run_facts(data: Any, preset: str, config: FitConfig, source: Source) -> dict[str, Any]:
    """Return what makes the run what it is: the data and all that was decided."""
    return {
        "kclassify": __version__,
        "data": source.name,
        "reference": reference(data),
        "preset": preset,
        "class_names": list(source.class_names),
        "input_shape": list(source.input_shape),
        "sizes": {split: len(examples) for split, examples in source.splits.items()},
        "skipped": [list(item) for item in source.skipped],
        "fingerprint": fingerprint(source),
        "config": config.to_json(),
    }


def write_beginning(run: Run, facts: dict[str, Any], source: Source) -> None:
    """Write what does not change; where a run is gone on with, it mends what was damaged."""
    remove_leftovers(run.path)
    run.write(run.config_file, facts)
    run.write(run.environment_file, runtime.environment())
    run.write(run.samples_file, _samples(source))


def _samples(source: Source) -> dict[str, np.ndarray]:
    """Return images that an export can be verified with: validation's, then train's; not test's."""
    parts = (source.splits["validation"], source.splits["train"])
    images = np.concatenate([first_images(part, SAMPLES) for part in parts])
    ids = np.concatenate([part.ids[:SAMPLES] for part in parts])
    return {"images": images[:SAMPLES], "ids": ids[:SAMPLES]}
