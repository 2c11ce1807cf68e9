"""Fewer images that stand for all."""

import numpy as np


def stratified(labels: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    """Return the places of at most so many images, of every class its share.

    Args:
        labels: ``(n,)`` class indices.
        most: how many places at most.
        seed: which images of a class are taken depends on it alone.

    Returns:
        Places in rising order; all of them where there are no more than `most`.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.sampling import stratified
        >>> labels = np.array([0] * 90 + [1] * 10)
        >>> np.bincount(labels[stratified(labels, 20, seed=0)]).tolist()
        [18, 2]
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    depths = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        # How much of the class has been taken with this one, to half an image.
        depths[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(depths[order], kind="stable")[:most]])
