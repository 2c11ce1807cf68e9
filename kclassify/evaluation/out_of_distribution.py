"""`out_of_distribution`: whether a network can tell that an image is of no kind that it knows.

Three scores, higher where an image is more like the training's: the highest probability (Hendrycks
and Gimpel 2017), the energy of the logits (Liu et al. 2020) and the distance to the k-th nearest
training image in the features of the last layer (Sun et al. 2022).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logsumexp, softmax
from scipy.stats import norm, rankdata
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score

from kclassify import runtime
from kclassify.checks import InputError, check_number, is_whole
from kclassify.config import FitConfig
from kclassify.data.preparation import as_trained, to_memory
from kclassify.data.sources import load_source, source_name
from kclassify.data.spec import Examples
from kclassify.evaluation.features import (
    EVALUATED_IMAGES,
    TRAINING_IMAGES,
    Outputs,
    outputs_of,
    sampled,
    unit,
)
from kclassify.evaluation.intervals import CONFIDENCE, wilson
from kclassify.evaluation.sampling import stratified
from kclassify.evaluation.subject import Subject, open_subject
from kclassify.models.saved import check_layers
from kclassify.runs import Run

runtime.prepare()

import tensorflow as tf  # noqa: E402

from kclassify.data.images import resize_images, to_channels  # noqa: E402
from kclassify.data.pipeline import first_images  # noqa: E402

KEPT = 0.95
# Of large images more would take gigabytes while they are resized.
CROPS_AT_ONCE = 64
# Sun et al. take k = 50 of 50,000 images; it stays a thousandth of those that are there.
NEIGHBOUR_SHARE = 1 / 1000
COLUMNS = (
    "against", "score", "images", "auroc", "auroc_low", "auroc_high", "fpr95", "fpr95_low",
    "fpr95_high",
)  # fmt: skip


@dataclass(frozen=True)
class OutOfDistribution:
    """How well unknown images are told apart.

    Attributes:
        split: the evaluated split, the known images.
        images: how many of it.
        neighbour: the k of the nearest neighbour score.
        threshold_from: the split on which 95 % of the images are kept.
        table: a row for each set and score: `auroc`, the probability that a known image scores
            above an unknown one; `fpr95`, the share of unknown images that are kept where 95 % of
            the known ones are; and the ends of their 95 % intervals.
    """

    split: str
    images: int
    neighbour: int
    threshold_from: str
    table: pd.DataFrame

    @property
    def verdict(self) -> str:
        """One sentence."""
        means = self.table.groupby("score", sort=False)["auroc"].mean()
        worst = self.table.iloc[int(self.table["auroc"].to_numpy().argmin())]
        return (
            f"{means.idxmax()} tells unknown images apart best, with a mean AUROC of "
            f"{means.max():.3f}; the hardest were {worst['against']} by {worst['score']}, "
            f"{worst['auroc']:.3f}"
        )

    def __str__(self) -> str:
        rows = self.table.to_string(index=False, float_format="{:.3f}".format)
        return f"{rows}\n{self.verdict}"

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False)


def out_of_distribution(
    run: Run | str | os.PathLike[str],
    *,
    against: Any = None,
    images: int = EVALUATED_IMAGES,
    data: Any = None,
    seed: int = 0,
    verbose: bool = True,
) -> OutOfDistribution:
    """Measure how well a run's network tells the evaluated images from others.

    The network is asked as it was trained, without test-time views or temperature.

    Args:
        run: a run that was evaluated, or its folder.
        against: other images, in any form that `fit` takes; their labels are not used. By default
            uniform noise, Gaussian noise as bright as the training images, scikit-learn's digits
            (unless the run is on them) and crops of its two photographs.
        images: of each set and of each split of the run, at most.
        data: as for `evaluate`, with a training split.
        seed: of the noise, the crops and the choice of images.
        verbose: show progress bars.

    Returns:
        An `OutOfDistribution`. The run has it as ``out_of_distribution.csv`` and ``.json``, and
        its report shows it.

    Raises:
        InputError: an argument is not what it should be, or the run was not evaluated.

    Example:
        >>> import kclassify
        >>> from kclassify.evaluation.out_of_distribution import out_of_distribution
        >>> run = kclassify.fit("digits", epochs=1, run_dir="unknown", verbose=False)
        >>> _ = kclassify.evaluate(run, verbose=False)
        >>> found = out_of_distribution(run, images=50, verbose=False)
        >>> found.table["against"].unique().tolist()
        ['uniform noise', 'gaussian noise', 'photographs']
    """
    whole = "a whole number of at least "
    check_number("images", images, expected=f"{whole}2", ok=is_whole(images, least=2))
    check_number("seed", seed, expected=f"{whole}0", ok=is_whole(seed, least=0))
    subject = open_subject(run, data=data, verbose=verbose)
    check_layers(subject.run, purpose="distances between features")
    shown = sampled(subject, "evaluated", images, seed=seed)
    train = sampled(subject, "train", TRAINING_IMAGES, seed=seed)
    sets = (_embedded(subject, train.examples, images, seed) if against is None
            else _given(subject, against, images, seed))  # fmt: skip
    scores = scorer(train)
    known = scores(shown)
    threshold_from, kept = _kept(subject, images, seed, scores) or (subject.split, known)
    rows = [
        _row(name, score, known[score], unknown, threshold=np.quantile(kept[score], 1 - KEPT))
        for name, examples in sets.items()
        for score, unknown in scores(outputs_of(subject, examples)).items()
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    found = OutOfDistribution(
        subject.split,
        len(known["energy"]),
        neighbour_of(len(train.features)),
        threshold_from,
        table,
    )
    _write(subject, found)
    return found


def scorer(train: Outputs) -> Callable[[Outputs], dict[str, np.ndarray]]:
    """Return the function of outputs to scores ``(n,)`` by name; higher is better known."""
    bank = unit(train.features)
    neighbour = neighbour_of(len(bank))

    def scores(found: Outputs) -> dict[str, np.ndarray]:
        return {
            "max_softmax": softmax(found.logits, axis=1).max(axis=1),
            "energy": logsumexp(found.logits, axis=1),
            "nearest_neighbour": -_distances(unit(found.features), bank, neighbour),
        }

    return scores


def neighbour_of(images: int) -> int:
    """Return which nearest neighbour is looked at among `images` of the training."""
    return max(1, round(NEIGHBOUR_SHARE * images))


def auroc_interval(known: np.ndarray, unknown: np.ndarray) -> tuple[float, float]:
    """Return the ends of the 95 % interval of an AUROC, DeLong et al. 1988.

    Args:
        known: ``(n,)`` scores of what should be higher.
        unknown: ``(m,)`` scores of what should be lower.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.out_of_distribution import auroc_interval
        >>> low, high = auroc_interval(np.arange(50, 150), np.arange(100))
        >>> f"{low:.2f} to {high:.2f}"
        '0.83 to 0.92'
    """
    ranks = rankdata(np.concatenate([known, unknown]))
    n, m = len(known), len(unknown)
    above = (ranks[:n] - rankdata(known)) / m
    below = 1 - (ranks[n:] - rankdata(unknown)) / n
    error = np.sqrt(above.var(ddof=1) / n + below.var(ddof=1) / m)
    half = norm.ppf(0.5 + CONFIDENCE / 2) * error
    return float(max(0.0, above.mean() - half)), float(min(1.0, above.mean() + half))


def _row(
    against: str, score: str, known: np.ndarray, unknown: np.ndarray, *, threshold: float
) -> dict[str, Any]:
    is_known = np.repeat([1, 0], [len(known), len(unknown)])
    low, high = auroc_interval(known, unknown)
    passed = int((unknown >= threshold).sum())
    fpr_low, fpr_high = wilson(passed, len(unknown))
    return {
        "against": against, "score": score, "images": len(unknown),
        "auroc": float(roc_auc_score(is_known, np.concatenate([known, unknown]))),
        "auroc_low": low, "auroc_high": high, "fpr95": passed / len(unknown),
        "fpr95_low": float(fpr_low), "fpr95_high": float(fpr_high),
    }  # fmt: skip


def _distances(
    vectors: np.ndarray, bank: np.ndarray, neighbour: int, *, at_once: int = 500
) -> np.ndarray:
    """Return the distance of each vector to its `neighbour`-th nearest one in the bank."""
    found = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), at_once):
        cosines = vectors[start : start + at_once] @ bank.T
        cosines.partition(cosines.shape[1] - neighbour, axis=1)
        found[start : start + at_once] = cosines[:, cosines.shape[1] - neighbour]
    return np.sqrt(np.maximum(2 - 2 * found, 0))


def _some(examples: Examples, most: int, seed: int) -> Examples:
    return examples.take(stratified(examples.class_ids, most, seed=seed))


def _kept(
    subject: Subject, most: int, seed: int, scores: Callable[[Outputs], dict[str, np.ndarray]]
) -> tuple[str, dict[str, np.ndarray]] | None:
    """Return the scores that a threshold is chosen by, and their split; None without one."""
    try:
        kept = sampled(subject, "validation", most, seed=seed)
    except InputError:
        return None
    return "validation", scores(kept)


def _given(subject: Subject, against: Any, most: int, seed: int) -> dict[str, Examples]:
    config = FitConfig.from_json(subject.run.config["config"]).replace(class_names=None)
    source = load_source(against, config)
    split = "test" if "test" in source.splits else next(iter(source.splits))
    # What they show is no class of the run, so that any will do.
    one = replace(source.splits[split], labels=np.zeros(len(source.splits[split]), np.int32))
    unnamed = replace(source, splits={split: one}, class_names=subject.class_names[:1])
    shape = tuple(subject.network.input_shape[1:])
    examples = as_trained(unnamed, split, class_names=subject.class_names, input_shape=shape)
    chosen = to_memory(_some(examples, most, seed), config, verbose=subject.verbose)
    return {source_name(against): chosen}


def _embedded(subject: Subject, train: Examples, most: int, seed: int) -> dict[str, Examples]:
    height, width, channels = subject.network.input_shape[1:]
    size, rng = (most, height, width, channels), np.random.default_rng(seed)
    noise = _noise_like(first_images(train, most), size, rng)
    sets = {"uniform noise": rng.integers(0, 256, size, np.uint8), "gaussian noise": noise}
    if subject.run.config["data"] != "digits":
        digits = load_digits().images[:most, ..., None] * 255 / 16
        sets["digits"] = _brought(digits.astype(np.uint8), size[1:])
    sets["photographs"] = _crops(size, rng)
    return {name: _unlabelled(images) for name, images in sets.items()}


def _noise_like(
    images: np.ndarray, size: tuple[int, int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Return noise as bright and as varied as `images`, made one by one to save memory."""
    mean = images.mean(axis=(0, 1, 2))
    squares = sum((one.astype(np.float64) ** 2).mean(axis=(0, 1)) for one in images) / len(images)
    spread = np.sqrt(squares - mean**2)
    found = np.empty(size, np.uint8)
    for place in range(len(found)):
        drawn = rng.normal(mean, spread, size[1:])
        found[place] = np.clip(np.rint(drawn), 0, 255)
    return found


def _crops(size: tuple[int, int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return pieces of two photographs, each twice as large as the model's images or the whole."""
    photographs = load_sample_images().images
    found = np.empty(size, np.uint8)
    for number, photograph in enumerate(photographs):
        places = np.arange(number, len(found), len(photographs))
        sides = [min(2 * side, whole) for side, whole in
                 zip(size[1:3], photograph.shape[:2], strict=True)]  # fmt: skip
        windows = np.lib.stride_tricks.sliding_window_view(photograph, sides, axis=(0, 1))
        for some in np.array_split(places, -(-len(places) // CROPS_AT_ONCE)):
            tops, lefts = (rng.integers(0, count, len(some)) for count in windows.shape[:2])
            found[some] = _brought(np.moveaxis(windows[tops, lefts], 1, -1), size[1:])
    return found


def _brought(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(resize_images(to_channels(tf.constant(images), shape[2]), shape[:2]))


def _unlabelled(images: np.ndarray) -> Examples:
    count = len(images)
    return Examples(images, np.zeros(count, np.int32), np.arange(count).astype(str))


def _write(subject: Subject, found: OutOfDistribution) -> None:
    run = subject.run
    run.write(run.table_file("out_of_distribution"), found.table.set_index("against"))
    facts = {
        "split": found.split, "images": found.images, "neighbour": found.neighbour,
        "threshold_from": found.threshold_from, "verdict": found.verdict,
        "rows": found.table.to_dict("records"), **subject.whose,
    }  # fmt: skip
    run.write(run.analysis_file("out_of_distribution"), facts)
