"""Which images an epoch shows, where the losses that they had decide it. NumPy only."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Selection:
    """The images of one epoch, in order.

    Attributes:
        indices: ``(positions,)``: the image that each position of the epoch takes.
        shown: how many different images there are; after so many positions they come again.
    """

    indices: np.ndarray
    shown: int


def select(losses: np.ndarray, *, share: float, positions: int, seed: int, epoch: int) -> Selection:
    """Return an epoch of as many positions as any, without the images of the smallest losses.

    The others come in random order, all of them before any comes again, and so until the epoch is
    full: what is left out makes room, and not a shorter epoch.

    Args:
        losses: ``(images,)``; infinite for what was not seen yet.
        share: of the images to leave out, in (0, 1).
        positions: of the epoch.
        seed: with `epoch` the key of the order.
        epoch: which one, from 0.

    Example:
        >>> import numpy as np
        >>> from kclassify.data.selection import select
        >>> losses = np.array([0.1, 2.0, 0.2, 1.0])
        >>> sorted(select(losses, share=0.5, positions=4, seed=0, epoch=2).indices.tolist())
        [1, 1, 3, 3]
    """
    shown = max(1, len(losses) - math.floor(share * len(losses)))
    kept = np.argsort(-losses, kind="stable")[:shown]
    random = np.random.default_rng((seed, epoch))
    rounds = [random.permutation(kept) for _ in range(math.ceil(positions / shown))]
    return Selection(np.concatenate(rounds)[:positions], shown)
