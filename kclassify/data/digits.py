"""The 1,797 handwritten digits that scikit-learn ships: 8x8 pixels, grey, nothing to download."""

import numpy as np

from kclassify.config import FitConfig
from kclassify.data.spec import Examples, Source

# The pixels count from 0 to 16.
LEVELS = 16


def load(reference: str, config: FitConfig) -> Source:
    """Load all the digits as one split, ``train``, which is split later.

    Example:
        >>> from kclassify import FitConfig
        >>> from kclassify.data.digits import load
        >>> load("digits", FitConfig()).input_shape
        (8, 8, 1)
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / LEVELS)).astype(np.uint8)[..., np.newaxis]
    ids = np.array([f"digits/{index}" for index in range(len(images))])
    examples = Examples(images, digits.target.astype(np.int32), ids)
    return Source("digits", {"train": examples}, tuple(str(name) for name in digits.target_names))
