"""Thresholds and label sets of a run: chosen on its validation images, measured on others."""

import zipfile

import numpy as np
import pandas as pd

from kclassify.checks import InputError
from kclassify.evaluation.abstention import (
    coverage_curve,
    label_sets_for,
    shown_thresholds,
    threshold_for,
)
from kclassify.evaluation.intervals import wilson
from kclassify.evaluation.metrics import class_ids
from kclassify.models.deciding import UNKNOWN, Deciding, LabelSets, Threshold
from kclassify.models.temperature import kept_calibration
from kclassify.runs import Run

THRESHOLD_COLUMNS = (
    "asked", "probability", "on_validation", "answered", "accuracy", "accuracy_low",
    "accuracy_high",
)  # fmt: skip


def deciding_of(run: Run, tta: str, accuracy: float | None, coverage: float | None) -> Deciding:
    """Choose what is asked for on the validation images of a calibrated run.

    Args:
        run: the run.
        tta: the test-time augmentation that is evaluated or exported.
        accuracy: of the answers that are not withheld, or None.
        coverage: of the sets of labels, or None.

    Raises:
        InputError: the run is not calibrated, or its validation images cannot guarantee it.
    """
    if accuracy is None and coverage is None:
        return Deciding()
    names = run.config["class_names"]
    if accuracy is not None and UNKNOWN in names:
        raise InputError(
            f"`abstain_at` must be left out where a class is called {UNKNOWN!r}, as what is "
            f"withheld is. Received: class_names={names}. Rename the class."
        )
    sure = validation_confidences(run, tta)
    return Deciding(
        threshold_for(sure["confidence"], sure["correct"], accuracy=accuracy) if accuracy else None,
        label_sets_for(sure["of_given"], coverage=coverage) if coverage else None,
    )


def validation_confidences(run: Run, tta: str) -> dict[str, np.ndarray]:
    """Return how sure the calibrated model is of each validation image, as `calibrate` noted it.

    Returns:
        `confidence`, the highest probability; `correct`, whether it is the given class's; and
        `of_given`, the given class's; each ``(n,)``.

    Raises:
        InputError: the run is not calibrated for `tta`, or the file is damaged.
    """
    if kept_calibration(run, tta) is None:
        raise _not_known(run, tta)
    try:
        # Opened here, since np.load leaves a file open that is no whole archive.
        with (
            run.validation_file(tta).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            return {name: arrays[name] for name in ("confidence", "correct", "of_given")}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _not_known(run, tta) from error


def _not_known(run: Run, tta: str) -> InputError:
    return InputError(
        "`abstain_at` and `label_sets` must be chosen on validation images. Received: "
        f"{str(run)!r}, where none are known for tta={tta!r}, or their file is damaged. Run "
        f"`kclassify calibrate {run} --tta {tta}`."
    )


def measured(deciding: Deciding, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return what `deciding` comes to on other images.

    Returns:
        `answered`, the share that gets an answer, and `accuracy` of the answers; `set_coverage`,
        the share whose set holds the given label, and `set_size`, the mean number of labels. The
        shares of answers and sets have their 95 % intervals as `_low` and `_high`.
    """
    return {
        **_answers(deciding.threshold, labels, probabilities),
        **_sets(deciding.label_sets, labels, probabilities),
    }


def coverage_of(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return what is right among the surest images, see `coverage_curve`."""
    right = probabilities.argmax(axis=1) == class_ids(labels)
    return coverage_curve(probabilities.max(axis=1), right).set_index("coverage")


def thresholds_of(
    run: Run, tta: str, labels: np.ndarray, probabilities: np.ndarray
) -> pd.DataFrame:
    """Return the thresholds that validation guarantees, and what they come to on other images.

    Returns:
        A row an accuracy that is asked for, none where the run is not calibrated: `probability`,
        the threshold; `on_validation`, the share that is answered there; `answered`, `accuracy`,
        `accuracy_low` and `accuracy_high` on these images.
    """
    found = []
    if kept_calibration(run, tta) is not None:
        sure = validation_confidences(run, tta)
        found = shown_thresholds(sure["confidence"], sure["correct"])
    rows = [
        {"asked": threshold.accuracy, "probability": threshold.probability,
         "on_validation": threshold.coverage, **_answers(threshold, labels, probabilities)}
        for threshold in found
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(THRESHOLD_COLUMNS)).set_index("asked")


def _answers(
    threshold: Threshold | None, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, float]:
    if threshold is None:
        return {}
    answered = probabilities.max(axis=1) >= threshold.probability
    right = int((probabilities.argmax(axis=1) == class_ids(labels))[answered].sum())
    return {
        "answered": float(answered.mean()),
        **_share("accuracy", right, int(answered.sum())),
    }


def _sets(
    label_sets: LabelSets | None, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, float]:
    if label_sets is None:
        return {}
    members = probabilities >= label_sets.least_probability
    holds = members[np.arange(len(members)), class_ids(labels)]
    return {
        **_share("set_coverage", int(holds.sum()), len(holds)),
        "set_size": float(members.sum(axis=1).mean()),
    }


def _share(name: str, count: int, images: int) -> dict[str, float]:
    low, high = wilson(count, images)
    share = count / images if images else float("nan")
    return {name: share, f"{name}_low": float(low), f"{name}_high": float(high)}
