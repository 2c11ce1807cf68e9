"""When to say "I don't know": thresholds and sets of labels with a guarantee for small samples.

Both are chosen on the validation images. A guarantee is for images like those, drawn as those
were; that validation also chose the epoch and the temperature makes it a little optimistic.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import beta

from kclassify.checks import InputError, check_choice, check_number
from kclassify.models.deciding import LabelSets, Threshold

CERTAINTY = 0.95
# The accuracies that a report shows the thresholds of.
SHOWN_ACCURACIES = (0.9, 0.95, 0.98, 0.99, 0.995)
CURVE_POINTS = 101
# How many thresholds are looked at.
LOOKS = 20


def check_abstention(
    abstain_at: Mapping[str, float] | None, label_sets: float | None
) -> tuple[float | None, float | None]:
    """Return the accuracy and the coverage that are asked for, or say what they may be."""
    if abstain_at is None:
        accuracy = None
    else:
        ok = isinstance(abstain_at, Mapping) and len(abstain_at) == 1
        expected = 'a mapping of one name to a share, such as {"accuracy": 0.99}'
        check_number("abstain_at", abstain_at, expected=expected, ok=ok)
        ((name, accuracy),) = abstain_at.items()
        check_choice("abstain_at", name, ["accuracy"])
    for argument, share in (("abstain_at", accuracy), ("label_sets", label_sets)):
        ok = share is None or (isinstance(share, int | float) and 0 < share < 1)
        check_number(argument, share, expected="a share above 0 and below 1", ok=ok)
    return accuracy, label_sets


def threshold_for(
    confidence: np.ndarray, correct: np.ndarray, *, accuracy: float, certainty: float = CERTAINTY
) -> Threshold:
    """Return the lowest threshold above which the answers are guaranteed to be so accurate.

    Thresholds that answer 5, 10 and so on to 100 % of the validation images are looked at, and each
    look costs an equal part of the doubt that is left (Geifman and El-Yaniv 2017, "Selective
    Classification for Deep Neural Networks", who halve the images instead, and miss thresholds
    where few images are left). The bound on the errors above one is exact (Clopper and Pearson
    1934).

    Args:
        confidence: ``(n,)`` the highest probability of each validation image.
        correct: ``(n,)`` whether it is that of the given class.
        accuracy: what the answers are to have.
        certainty: how often the guarantee holds.

    Raises:
        InputError: no threshold can be guaranteed; says what could be.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.abstention import threshold_for
        >>> confidence = np.linspace(0.0, 1.0, 1000)
        >>> found = threshold_for(confidence, confidence > 0.2, accuracy=0.95)
        >>> 0.15 < found.probability < 0.3
        True
    """
    ranked = np.sort(confidence)[::-1]
    shares = np.arange(1, LOOKS + 1) / LOOKS
    lowest = np.unique(ranked[np.ceil(shares * len(ranked)).astype(int) - 1])
    # All images of one confidence are above a threshold or below it together.
    answered = np.array([np.sum(confidence >= threshold) for threshold in lowest])
    wrong = np.array([np.sum(~correct[confidence >= threshold]) for threshold in lowest])
    rates = _most_errors(wrong, answered, (1 - certainty) / LOOKS)
    if rates.min() > 1 - accuracy:
        raise _not_guaranteed(len(ranked), accuracy, float(1 - rates.min()), certainty)
    best = int(np.argmax(np.where(rates <= 1 - accuracy, answered, 0)))
    coverage = answered[best] / len(ranked)
    return Threshold(accuracy, certainty, float(lowest[best]), float(coverage), len(ranked))


def _most_errors(wrong: np.ndarray, images: np.ndarray, doubt: float) -> np.ndarray:
    """Return the error rates that are exceeded with at most so much doubt (Clopper-Pearson)."""
    right = images - wrong
    return np.where(right > 0, beta.ppf(1 - doubt, wrong + 1, np.maximum(right, 1)), 1.0)


def _not_guaranteed(images: int, accuracy: float, reached: float, certainty: float) -> InputError:
    # Without a single error, the bound falls to the rate with this many images.
    needed = math.ceil(math.log((1 - certainty) / LOOKS) / math.log(accuracy))
    return InputError(
        f"`abstain_at` must be an accuracy that {images:,} validation images can show. Received: "
        f"{accuracy}, where {reached:.4f} can be guaranteed at best, and where at least {needed:,} "
        "images without an error are needed. Ask for less, or validate on more."
    )


def label_sets_for(of_given: np.ndarray, *, coverage: float) -> LabelSets:
    """Return how probable a label must be to belong to a set that holds the right one so often.

    Split conformal prediction (Vovk et al. 2005; the score is that of Sadinle et al. 2019): of
    images drawn as the validation images were, the share is at least `coverage`, for every number
    of images and every network.

    Args:
        of_given: ``(n,)`` the probability of each validation image's given class.
        coverage: the share of images whose set holds the right label.

    Raises:
        InputError: the validation images are too few; says how many are needed.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.abstention import label_sets_for
        >>> float(label_sets_for(np.arange(1, 100) / 100, coverage=0.9).least_probability)
        0.1
    """
    images = len(of_given)
    # Rounded, since 0.95 times 20 must not be a little above 19.
    rank = math.ceil(round((images + 1) * coverage, 9))
    if rank > images:
        needed = math.ceil(round(coverage / (1 - coverage), 9))
        raise InputError(
            f"`label_sets` must be a coverage that {images:,} validation images can give. "
            f"Received: {coverage}, which takes {needed:,}. Ask for less, or validate on more."
        )
    return LabelSets(coverage, float(np.sort(of_given)[::-1][rank - 1]), images)


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Return what is right among the surest images, for shares of all of them.

    Returns:
        A row a share: `coverage`, `accuracy` of the images that are answered, and `threshold`,
        the probability that the last of them has.
    """
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum(correct[order])
    counts = np.unique(np.linspace(0, len(order), CURVE_POINTS).round().astype(int)[1:])
    counts = counts[counts > 0]
    return pd.DataFrame(
        {
            "coverage": counts / len(order),
            "accuracy": right[counts - 1] / counts,
            "threshold": confidence[order][counts - 1],
        }
    )


def shown_thresholds(confidence: np.ndarray, correct: np.ndarray) -> list[Threshold]:
    """Return the thresholds of `SHOWN_ACCURACIES` that can be guaranteed."""
    found = []
    for accuracy in SHOWN_ACCURACIES:
        try:
            found.append(threshold_for(confidence, correct, accuracy=accuracy))
        except InputError:
            break
    return found
