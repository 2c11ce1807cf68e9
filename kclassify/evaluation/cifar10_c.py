"""CIFAR-10-C: the corrupted test images that Hendrycks and Dietterich 2019 published."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from kclassify.checks import InputError
from kclassify.data.cifar10 import CLASS_NAMES
from kclassify.evaluation.corruptions import CORRUPTIONS, SEVERITIES, WorseImages
from kclassify.evaluation.sampling import stratified
from kclassify.runs import Run

LABELS = "labels"
WHERE = "https://zenodo.org/records/2535967"
BATCH = 2048


@dataclass(frozen=True)
class Cifar10C:
    """An opened folder; the images are read from disk when they are asked for.

    Attributes:
        files: by corruption, uint8 ``(5 * n, height, width, channels)``, the five severities after
            one another.
        labels: ``(n,)`` class indices of each severity.
    """

    files: dict[str, np.ndarray]
    labels: np.ndarray

    def images(self, places: np.ndarray, name: str, severity: int) -> np.ndarray:
        """Return the images at some places, with one corruption."""
        return self.files[name][(severity - 1) * len(self.labels) + places]

    def sample(self, most: int | None, *, seed: int) -> WorseImages:
        """Return so many images, of every class its share; by default all."""
        picked = stratified(self.labels, most or len(self.labels), seed=seed)
        starts = range(0, len(picked), BATCH)
        batches = (partial(self.images, picked[start : start + BATCH]) for start in starts)
        return WorseImages(self.labels[picked], batches)


def open_cifar10_c(folder: str | os.PathLike[str], run: Run) -> Cifar10C:
    """Open a folder for a run, or say what is wrong with either.

    Args:
        folder: with ``labels.npy`` and a file for each of the 15 corruptions.
        run: its classes must be CIFAR-10's, and its images as large as those in the folder.

    Raises:
        InputError: a file is missing, damaged or of another shape, or the run is of other classes.
    """
    if tuple(run.config["class_names"]) != CLASS_NAMES:
        raise InputError(
            f"`cifar10_c` must be left out for a run of other classes than CIFAR-10's. Received: "
            f"{str(run)!r}, whose classes are {run.config['class_names']}. The corruptions are "
            "made of the run's own images then."
        )
    labels = _labels(Path(folder))
    shape = (len(labels), *run.config["input_shape"])
    return Cifar10C(
        {name: _images(Path(folder) / f"{name}.npy", shape) for name in CORRUPTIONS},
        labels[: len(labels) // len(SEVERITIES)],
    )


def _labels(folder: Path) -> np.ndarray:
    path = folder / f"{LABELS}.npy"
    found = _read(path)
    expected = "(50000,) whole numbers from 0 to 9, the same for each of five severities"
    _check(path, found, expected, ok=found.ndim == 1 and found.dtype.kind in "iu")
    whole = len(found) > 0 and len(found) % len(SEVERITIES) == 0
    _check(path, found, expected, ok=whole and found.min() >= 0 and found.max() < len(CLASS_NAMES))
    alike = found.reshape(len(SEVERITIES), -1)
    _check(path, found, expected, ok=bool((alike == alike[0]).all()))
    return found.astype(np.int32)


def _images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    found = _read(path)
    _check(path, found, f"uint8 {shape}", ok=found.dtype == np.uint8 and found.shape == shape)
    return found


def _read(path: Path) -> np.ndarray:
    try:
        return open_memmap(path, mode="r")
    except (OSError, EOFError, ValueError) as error:
        kind = "which is damaged" if path.exists() else "which is not there"
        raise InputError(
            f"`cifar10_c` must be a folder with {LABELS}.npy and a file for each of the "
            f"{len(CORRUPTIONS)} corruptions. Received: {str(path.parent)!r}, whose {path.name} is "
            f"needed, {kind}. Unpack CIFAR-10-C.tar of {WHERE}."
        ) from error


def _check(path: Path, found: np.ndarray, expected: str, *, ok: bool) -> None:
    if not ok:
        raise InputError(
            f"`cifar10_c` must hold {path.name} of {expected}. Received: {str(path)!r}, "
            f"{found.dtype} {found.shape}. Unpack CIFAR-10-C.tar of {WHERE}."
        )
