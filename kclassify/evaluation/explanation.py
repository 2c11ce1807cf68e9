"""`explain`: where in its worst errors a network saw what it said, and whether that can be told."""

import os
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number, is_whole
from kclassify.data.spec import Examples
from kclassify.evaluation.subject import Subject, open_subject
from kclassify.models.saved import check_layers
from kclassify.runs import Run

runtime.prepare()

from kclassify.data.pipeline import first_images  # noqa: E402
from kclassify.evaluation.faithfulness import Check, check_method, faithfulness  # noqa: E402
from kclassify.evaluation.predictions import worst_errors  # noqa: E402
from kclassify.evaluation.saliency import METHODS  # noqa: E402
from kclassify.serving.inputs import collect  # noqa: E402
from kclassify.serving.reading import read_batches  # noqa: E402

# Images that the method is checked on, drawn from all that were evaluated.
CHECKED = 64
# From blue to yellow, ever lighter: it is read alike by all, with or without colour vision.
COLOURS = "cividis"
OPACITY = 0.6
MOST_SIDE = 128


@dataclass(frozen=True)
class Explanation:
    """Maps of what a network looked at, and the check of the method.

    Attributes:
        method: a name in `METHODS`.
        table: a row an image: `id`, `given`, `predicted`, and the areas `deletion` (lower is
            better) and `insertion` (higher is better).
        images: uint8 ``(n, height, width, channels)``.
        maps: float32 ``(n, height, width)``.
        overlays: uint8 ``(n, height, width, 3)``, small, the maps over the images.
        check: whether such maps explain what this network learned.
    """

    method: str
    table: pd.DataFrame
    images: np.ndarray
    maps: np.ndarray
    overlays: np.ndarray
    check: Check

    @property
    def verdict(self) -> str:
        """One sentence."""
        check = self.check
        means = (
            f"insertion less deletion {check.gain:.3f} on {check.images} images, of the same maps "
            f"moved {check.moved:.3f}, of shuffled networks {check.unlearned:.3f}"
        )
        if check.flagged:
            return f"{self.method} was not shown to explain this network ({means})"
        return f"{self.method} explains what this network looks at ({means})"

    def __str__(self) -> str:
        rows = self.table.to_string(index=False, float_format="{:.3f}".format)
        return f"{rows}\n{self.verdict}"

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False)


def explain(
    run: Run | str | os.PathLike[str],
    *,
    images: Any = None,
    method: str = "grad_cam",
    most: int = 24,
    data: Any = None,
    verbose: bool = True,
) -> Explanation:
    """Show where in images a run's network saw the classes that it predicted.

    Whether the method's maps explain this network is checked on 64 evaluated images, see
    `kclassify.evaluation.faithfulness`. The network is asked without test-time views.

    Args:
        run: a run that was evaluated, or its folder.
        images: which, in any form that a `Classifier` takes; by default the worst errors.
        method: ``"grad_cam"``, ``"integrated_gradients"``, ``"smooth_grad"`` or ``"occlusion"``.
        most: images at most.
        data: as for `evaluate`.
        verbose: show progress bars.

    Returns:
        An `Explanation`. The run has it as ``explanation.csv``, ``explanations.npz`` and
        ``explanation.json``, and its report shows it.

    Raises:
        InputError: an argument is not what it should be, or the run was not evaluated.

    Example:
        >>> import kclassify
        >>> from kclassify.evaluation.explanation import explain
        >>> run = kclassify.fit("digits", epochs=1, run_dir="explained", verbose=False)
        >>> _ = kclassify.evaluate(run, verbose=False)
        >>> explain(run, images="digit.png", verbose=False)
        Traceback (most recent call last):
        ...
        kclassify.checks.InputError: `images` must be images that can be read. ...
    """
    check_choice("method", method, METHODS)
    expected = "a whole number of at least 1"
    check_number("most", most, expected=expected, ok=is_whole(most, least=1))
    subject = open_subject(run, data=data, verbose=verbose)
    check_layers(subject.run, purpose="an explanation")
    given = None if images is None else _given(subject, images, most)
    examples = subject.examples()
    with tqdm(total=3, desc="explaining", delay=1.5, disable=not verbose) as bar:
        shown = given or _worst(subject, examples, most)
        found = _explained(subject, shown, method)
        bar.update(1)
        check = check_method(subject.network, *_sample(subject, examples), method)
        bar.update(2)
    explanation = Explanation(method, *found, check)
    _write(subject, explanation)
    return explanation


def overlay(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Lay maps as colours over grey images, the lightest where a map is highest.

    Args:
        images: uint8 ``(n, height, width, channels)``.
        maps: ``(n, height, width)``, at least 0.

    Returns:
        uint8 ``(n, height, width, 3)``.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.explanation import overlay
        >>> overlay(np.zeros((2, 8, 8, 1), "uint8"), np.ones((2, 8, 8))).shape
        (2, 8, 8, 3)
    """
    tops = maps.max(axis=(1, 2), keepdims=True, initial=0)
    heat = mpl.colormaps[COLOURS](maps / np.where(tops > 0, tops, 1))[..., :3] * 255
    grey = images.mean(axis=-1, keepdims=True)
    return np.rint(OPACITY * heat + (1 - OPACITY) * grey).astype(np.uint8)


def _worst(subject: Subject, examples: Examples, most: int) -> dict[str, np.ndarray]:
    return worst_errors(subject.predictions, examples, most=most)


def _given(subject: Subject, images: Any, most: int) -> dict[str, np.ndarray]:
    shape = subject.network.input_shape[1:]
    items = collect(images, channels=shape[-1])[:most]
    read = [one for batch in read_batches(items, input_shape=shape, batch_size=64)
            for one in batch]  # fmt: skip
    for item, pixels in zip(items, read, strict=True):
        if isinstance(pixels, str):
            raise InputError(
                f"`images` must be images that can be read. Received: {item.name!r} ({pixels}). "
                "Leave it out, or save it again as PNG."
            )
    stacked = np.stack(read)
    answers = np.asarray(subject.model(stacked, training=False)).argmax(axis=1)
    names = np.asarray(subject.class_names)[answers]
    ids = np.array([item.name for item in items])
    return {"images": stacked, "ids": ids, "given": np.full(len(ids), ""), "predicted": names}


def _explained(
    subject: Subject, shown: dict[str, np.ndarray], method: str
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    images, names = shown["images"], list(subject.class_names)
    predicted = np.array([names.index(name) for name in shown["predicted"]], np.int32)
    columns = {"id": shown["ids"], "given": shown["given"], "predicted": shown["predicted"]}
    if not len(images):
        empty = np.zeros(images.shape[:3], np.float32)
        table = pd.DataFrame({**columns, "deletion": [], "insertion": []})
        return table, images, empty, overlay(_small(images), _small(empty))
    maps = METHODS[method](subject.network, images, predicted).astype(np.float32)
    deletion, insertion = faithfulness(subject.network, images, predicted, maps)
    table = pd.DataFrame({**columns, "deletion": deletion, "insertion": insertion})
    return table, images, maps, overlay(_small(images), _small(maps))


def _sample(subject: Subject, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    picked = np.sort(rng.permutation(len(examples))[:CHECKED])
    predicted = subject.predictions.probabilities[picked].argmax(axis=1).astype(np.int32)
    return first_images(examples.take(picked), len(picked)), predicted


def _small(images: np.ndarray) -> np.ndarray:
    step = -(-max(images.shape[1:3]) // MOST_SIDE)
    return images[:, ::step, ::step]


def _write(subject: Subject, found: Explanation) -> None:
    run, check = subject.run, found.check
    run.write(run.table_file("explanation"), found.table.set_index("id"))
    arrays = {"images": _small(found.images), "overlays": found.overlays}
    run.write(run.arrays_file("explanations"), arrays)
    facts = {
        "split": subject.split, "method": found.method, "verdict": found.verdict,
        "flagged": check.flagged, **vars(check), **subject.whose,
    }  # fmt: skip
    run.write(run.analysis_file("explanation"), facts)
