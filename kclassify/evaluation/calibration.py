"""Probabilities that can be believed: one temperature, fitted on the validation images.

A temperature divides the logits, so that no prediction changes, only how sure each is (Guo et al.
2017, "On Calibration of Modern Neural Networks"). It is fitted for what is evaluated, test-time
views included, kept in the run, and part of every export.

Where all of a few validation images are right, any temperature that is lower would be better
still. So the labels count as a little unsure, by the share that Platt (1999) takes for his.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from kclassify import runtime
from kclassify.checks import InputError, check_choice
from kclassify.evaluation.intervals import wilson
from kclassify.evaluation.metrics import (
    BINS,
    METRICS,
    OF_PROBABILITIES,
    class_ids,
    confidence_bins,
    shares,
)
from kclassify.runs import Run

runtime.prepare()

from kclassify.evaluation.predictions import Predictions, predict  # noqa: E402
from kclassify.evaluation.run_data import own_split_of, source_of, with_own_data  # noqa: E402
from kclassify.models.saved import load_run_model  # noqa: E402
from kclassify.models.temperature import (  # noqa: E402
    HIGHEST,
    LOWEST,
    calibrations,
    kept_calibration,
)
from kclassify.models.test_time import VIEWS, with_test_time  # noqa: E402

LEAST_IMAGES = 50
# What a probability of 0 counts as: the smallest that float32 holds.
SMALLEST = 1e-38


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it changes on the validation images that it was fitted on.

    Attributes:
        tta: the test-time augmentation that it is for.
        temperature: what the logits are divided by; below 1 the network was too unsure.
        images: how many it was fitted on.
        before: the metrics of the probabilities without it.
        after: the same with it.
    """

    tta: str
    temperature: float
    images: int
    before: dict[str, float]
    after: dict[str, float]

    def __str__(self) -> str:
        table = pd.DataFrame({"before": self.before, "after": self.after})
        return (
            f"temperature {self.temperature:.4f}, fitted on {self.images:,} validation images\n"
            f"{table.to_string(float_format='{:.4f}'.format)}"
        )

    def _repr_html_(self) -> str:
        table = pd.DataFrame({"before": self.before, "after": self.after})
        return f"<p>temperature {self.temperature:.4f}</p>{table.to_html()}"


def calibrate(
    run: Run | str | os.PathLike[str], *, tta: str = "none", data: Any = None, verbose: bool = True
) -> Calibration:
    """Fit the temperature of a run's probabilities on its validation images, and keep it.

    `evaluate` and `export` do so by themselves where they find the validation images and at least
    50 of them. From then on both use it, until the run is trained again.

    Args:
        run: a run or its folder.
        tta: the test-time augmentation that it is for, as in `evaluate`.
        data: as for `fit`, with a validation split; images without one are not used.
        verbose: show a progress bar when it takes longer than a second or two.

    Returns:
        A `Calibration`; the run has it in ``calibration.json``.

    Raises:
        InputError: the validation images cannot be found, or are too few.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> kclassify.calibrate(run, verbose=False).images
        160
    """
    check_choice("tta", tta, VIEWS)
    run = Run.open(run)
    run, data = with_own_data(run, data, verbose=verbose)
    examples = own_split_of(run, split="validation", data=data, verbose=verbose)
    if len(examples) < LEAST_IMAGES:
        raise InputError(
            f"`run` must have at least {LEAST_IMAGES} validation images to be calibrated on. "
            f"Received: {len(examples)} in {str(run)!r}. Train with a larger validation_fraction, "
            "or pass `data` with a validation split."
        )
    model = with_test_time(load_run_model(run), tta)
    names = tuple(run.config["class_names"])
    batch_size = max(1, 256 // VIEWS[tta])
    found = predict(model, examples, names, batch_size=batch_size, verbose=verbose)
    return _keep(run, tta, found)


def found_calibration(run: Run, tta: str) -> Calibration | None:
    """Return the calibration that a run has for its weights and `tta`, or None."""
    kept = kept_calibration(run, tta)
    return Calibration(tta, **kept) if kept else None


def needed_calibration(run: Run, tta: str, *, verbose: bool) -> Calibration | None:
    """Return what a run has, or fit it now; None where its validation images are not to be had."""
    found = found_calibration(run, tta)
    if found is not None or run.config.get("sizes", {}).get("validation", 0) < LEAST_IMAGES:
        return found
    try:
        source = source_of(run, verbose=verbose)
    except InputError:
        return None
    return calibrate(replace(run, source=source), tta=tta, verbose=verbose)


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature that makes the labels most likely.

    Args:
        labels: ``(n,)`` class indices or ``(n, num_classes)`` soft labels.
        probabilities: ``(n, num_classes)`` of the network as it is.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.calibration import fit_temperature
        >>> sure = np.tile([0.99, 0.01], (1000, 1))
        >>> labels = (np.arange(1000) % 10 == 0).astype(int)  # right on nine of ten
        >>> temperature = fit_temperature(labels, sure)
        >>> round(float(0.99 ** (1 / temperature) / (0.99 ** (1 / temperature)
        ...                                          + 0.01 ** (1 / temperature))), 2)
        0.9
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
    unsure = 1 / (len(labels) + 2)
    classes = probabilities.shape[1]
    targets = (1 - unsure) * shares(labels, classes) + unsure / classes

    def surprise(logarithm: float) -> float:
        return -float(np.mean(np.sum(targets * log_softmax(logits / np.exp(logarithm), 1), 1)))

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded").x))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities after their logits are divided by `temperature`, float32."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
    return softmax(logits / temperature, axis=1).astype(np.float32)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return, for each bin of confidence, how many images are in it and how many are right.

    Returns:
        A row a bin: `from` and `to`, the ends of the bin; `images`; `confidence`, their mean
        probability; `accuracy`; and `low` and `high`, its 95 % interval. An empty bin has NaN.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == class_ids(labels)
    bins = confidence_bins(confidence)
    images, hits, sums = (
        np.bincount(bins, weights=values, minlength=BINS)
        for values in (None, right, confidence)
    )  # fmt: skip
    low, high = wilson(hits, images)
    edges = np.arange(BINS + 1) / BINS
    some = np.where(images > 0, images, np.nan)
    return pd.DataFrame(
        {
            "from": edges[:-1], "to": edges[1:], "images": images.astype(int),
            "confidence": sums / some, "accuracy": hits / some,
            "low": np.where(images > 0, low, np.nan), "high": np.where(images > 0, high, np.nan),
        }
    )  # fmt: skip


def of_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the metrics that a temperature changes."""
    return {name: METRICS[name](labels, probabilities) for name in OF_PROBABILITIES}


def _keep(run: Run, tta: str, found: Predictions) -> Calibration:
    labels, before = found.labels, found.probabilities
    temperature = fit_temperature(labels, before)
    after = tempered(before, temperature)
    metrics = [of_probabilities(labels, probabilities) for probabilities in (before, after)]
    calibration = Calibration(tta, temperature, len(labels), *metrics)
    run.write(run.validation_file(tta), _confidences(labels, after))
    kept = {"split": "validation", "weights_sha256": run.summary["weights_sha256"]}
    entry = {name: value for name, value in vars(calibration).items() if name != "tta"}
    run.write(run.calibration_file, {**kept, "by_tta": {**calibrations(run), tta: entry}})
    return calibration


def _confidences(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a threshold is chosen by, without the rest of a large array."""
    ids = class_ids(labels)
    return {
        "confidence": probabilities.max(axis=1),
        "correct": probabilities.argmax(axis=1) == ids,
        "of_given": probabilities[np.arange(len(ids)), ids],
    }
