"""Confident learning: which labels are wrong, from probabilities that no label had a part in.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels".
All functions take the given labels, integers ``(n,)``, and the probabilities ``(n, num_classes)``
of models that were trained without the image in question.
"""

import numpy as np


def confident_joint(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return how many images of each given class are confidently of each class.

    An image counts for the class that is the most probable of those whose probability reaches the
    class's threshold: the mean that it has in the images that are given it. Where none does, the
    image is not counted.

    Returns:
        int64 counts ``(num_classes, num_classes)``, given by confident class.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.confident_learning import confident_joint
        >>> likely = np.array([0.9, 0.8, 0.1, 0.2, 0.9])
        >>> confident_joint(np.array([0, 0, 0, 1, 1]), np.stack([likely, 1 - likely], axis=1))
        array([[2, 1],
               [1, 1]])
    """
    classes = probabilities.shape[1]
    reached = probabilities >= _thresholds(given, probabilities)
    counted = reached.any(axis=1)
    confident = np.where(reached, probabilities, -1.0).argmax(axis=1)
    cells = classes * given[counted] + confident[counted]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _thresholds(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the mean probability of each class where it is given; of one that never is, above 1.

    The mean is rounded down a little, so that equal probabilities reach it.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(given, minlength=classes)
    sums = np.bincount(given, probabilities[np.arange(len(given)), given], minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1) - 1e-9, np.inf)


def estimated_joint(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return how many images of each given class are estimated to be of each class.

    It is the confident joint, each row of it scaled to all the images that are given the class.
    Of a class without a confident image, no label is taken to be wrong.

    Returns:
        float64 ``(num_classes, num_classes)``, given by true class; its sum is ``n``.
    """
    joint = confident_joint(given, probabilities).astype(float)
    counts = np.bincount(given, minlength=len(joint))[:, np.newaxis]
    totals = joint.sum(axis=1, keepdims=True)
    joint += np.eye(len(joint)) * (totals == 0)
    return joint * counts / np.maximum(totals, 1)


def wrong_labels(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return which labels are estimated to be wrong: pruning by noise rate.

    For each given class and each other one, they are as many as the estimated joint has, of those
    images in which the other class is ahead of the given one by the most. One in which it is not
    ahead is left out, which the paper leaves open.

    Returns:
        bool ``(n,)``.
    """
    wanted = np.rint(estimated_joint(given, probabilities))
    wrong = np.zeros(len(given), dtype=bool)
    for label in np.unique(given):
        members = np.flatnonzero(given == label)
        ahead = probabilities[members] - probabilities[members, label, np.newaxis]
        places = (-ahead).argsort(axis=0, kind="stable").argsort(axis=0)
        wrong[members] = ((places < wanted[label]) & (ahead > 0)).any(axis=1)
    return wrong


def margins(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the normalized margin: the probability of the given class less the highest other.

    Returns:
        ``(n,)`` from -1, surely wrong, to 1.
    """
    places = np.arange(len(given))
    others = probabilities.copy()
    others[places, given] = -np.inf
    return probabilities[places, given] - others.max(axis=1)
