"""An evaluated run, opened once for everything that is asked about it."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError, check_choice
from kclassify.data.spec import SPLITS, Examples
from kclassify.runs import Run, read_json

runtime.prepare()

import keras  # noqa: E402

from kclassify.evaluation.predictions import (  # noqa: E402
    Predictions,
    hash_of_images,
    read_predictions,
)
from kclassify.evaluation.run_data import (  # noqa: E402
    examples_of,
    own_split_of,
    with_own_data,
)
from kclassify.models.saved import load_run_model  # noqa: E402
from kclassify.models.temperature import as_evaluated  # noqa: E402


@dataclass(frozen=True)
class Subject:
    """A run with its model, the split it was evaluated on, and what was predicted there.

    Attributes:
        run: the run.
        network: the one that was trained: uint8 images to logits.
        model: the same as it was evaluated and is served: with test-time views and temperature.
        split: which was evaluated last.
        predictions: what `evaluate` found there, in the order of the images.
        data: what was given instead of the run's own data, or None.
        verbose: whether progress is shown.
        seen: what was computed of it and is asked for again, by name.
    """

    run: Run
    network: keras.Model
    model: keras.Model
    split: str
    predictions: Predictions
    data: Any = None
    verbose: bool = True
    seen: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the model's outputs."""
        return self.predictions.class_names

    @property
    def whose(self) -> dict[str, str]:
        """Of which weights and which evaluation something is, as a file says it."""
        weights = self.run.summary["weights_sha256"]
        return {"weights_sha256": weights, "evaluated": self.predictions.key(self.split)}

    def examples(self) -> Examples:
        """Return the images and labels that were evaluated.

        Raises:
            InputError: the data cannot be found, or has other images by now.
        """
        found = examples_of(self.run, split=self.split, data=self.data, verbose=self.verbose)
        hashes = (self.predictions.pixels, hash_of_images(found.images))
        same = hashes[0] == hashes[1] or not all(hashes)
        if not same or not np.array_equal(found.ids, self.predictions.ids):
            raise InputError(
                f"`data` must be what {str(self.run)!r} was evaluated on. Received: other images. "
                f"Run `kclassify evaluate {self.run}` again, with the same data."
            )
        return found

    def others(self, split: str) -> Examples:
        """Return another split, to compare the evaluated one with; see `own_split_of`."""
        return own_split_of(self.run, split=split, data=self.data, verbose=self.verbose)


def open_subject(
    run: Run | Subject | str | os.PathLike[str],
    *,
    split: str | None = None,
    data: Any = None,
    verbose: bool = True,
) -> Subject:
    """Open a run that was evaluated; one that is open is returned as it is.

    Args:
        run: a run or its folder.
        split: which evaluation; by default the last one.
        data: images to use instead of the run's own, in any form that `fit` takes.
        verbose: show progress bars.

    Raises:
        InputError: the run was not evaluated, or by another model than it has.
    """
    if isinstance(run, Subject):
        return run
    run = Run.open(run)
    found = read_evaluation(run)
    wanted = split or found["split"]
    check_choice("split", wanted, SPLITS)
    network = load_run_model(run)
    model = as_evaluated(run, network, tta=found["tta"])
    predictions = read_predictions(run, wanted)
    run, data = with_own_data(run, data, verbose=verbose)
    return Subject(run, network, model, wanted, predictions, data, verbose)


def run_of(run: Run | Subject | str | os.PathLike[str]) -> Run:
    """Return the run of a subject, or the run itself."""
    return run.run if isinstance(run, Subject) else Run.open(run)


def read_evaluation(run: Run) -> dict[str, Any]:
    """Return what `metrics.json` holds, or say that the run must be evaluated first."""
    if not run.metrics_file.is_file():
        raise InputError(
            f"`run` must be an evaluated run. Received: {str(run)!r}, without "
            f"{run.metrics_file.name}. Run `kclassify evaluate {run}` first."
        )
    found = read_json(run.metrics_file, {"split": str, "metrics": dict})
    if found.get("weights_sha256") != run.summary["weights_sha256"]:
        raise InputError(
            f"`run` must hold the evaluation of its own model. Received: {str(run)!r}, whose "
            f"metrics are of other weights. Run `kclassify evaluate {run}` again."
        )
    return {"tta": "none", **found}
