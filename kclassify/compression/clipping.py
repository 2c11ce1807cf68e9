"""Weights kept within limits: a smaller range is rounded to integers more finely.

As a constraint while a network is trained it is ``fit(..., weight_clip=0.5)``; here it is a step
afterwards, whose limit is chosen by what it does.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kclassify import runtime
from kclassify.checks import check_number
from kclassify.compression.parent import Parent
from kclassify.evaluation.corruptions import CORRUPTIONS

runtime.prepare()

import keras  # noqa: E402

from kclassify.compression.pruning import kernels  # noqa: E402
from kclassify.compression.quantization import rounded_kernel  # noqa: E402
from kclassify.compression.retraining import copy_of  # noqa: E402
from kclassify.data.pipeline import first_images  # noqa: E402
from kclassify.models.folding import FOLDABLE  # noqa: E402

# Validation images that noise is added to, and how strong it is, of 5.
NOISY_IMAGES, SEVERITY = 1000, 2

# Shares of each kernel's absolute values that are within the limit.
SHARES = (0.9999, 0.999, 0.995, 0.99, 0.98, 0.95)


def check_shares(shares: object) -> None:
    """Raise `InputError` unless `shares` are numbers between 0 and 1."""
    several = isinstance(shares, list | tuple) and bool(shares)
    ok = several and all(isinstance(s, float) and 0 < s < 1 for s in shares)  # type: ignore[attr-defined]
    check_number("shares", shares, expected="numbers between 0 and 1, such as (0.999, 0.99)", ok=ok)


def clipped(model: keras.Model, *, share: float) -> keras.Model:
    """Return a copy of `model` with each kernel clipped to where `share` of its values are within.

    Args:
        model: a functional model; it is left as it is.
        share: of the absolute values of each kernel, in (0, 1).

    Example:
        >>> import numpy as np
        >>> from kclassify.compression.clipping import clipped
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("lenet", input_shape=(16, 16, 1), num_classes=2)
        >>> small = clipped(model, share=0.9)
        >>> bool(np.abs(small.layers[2].kernel).max() < np.abs(model.layers[2].kernel).max())
        True
    """
    copy = copy_of(model)
    for kernel in kernels(copy):
        values = kernel.numpy()
        limit = np.quantile(np.abs(values), share)
        kernel.assign(np.clip(values, -limit, limit))
    return copy


def choose_share(
    parent: Parent, *, shares: Sequence[float] | None, max_drop: float
) -> tuple[float, pd.DataFrame]:
    """Return the share that does best in 8 bits, and what each does.

    Of those that lose no more than `max_drop` of the validation accuracy, the one whose kernels
    are best when they have 8 bits, as in a quantized file.

    Args:
        parent: the run.
        shares: to try; by default `SHARES`.
        max_drop: of the accuracy.

    Returns:
        The share, and a row for each: `share`, `largest` (absolute value in any kernel),
        `accuracy` on validation images, `accuracy_int8` with such kernels, and
        `accuracy_noise` of the float network on noisy images.
    """
    some = parent.source.splits["validation"].some(NOISY_IMAGES, seed=0)
    noisy = CORRUPTIONS["gaussian_noise"](
        first_images(some, len(some)), SEVERITY, np.random.default_rng(0)
    )
    rows = [_row(parent, share, noisy, some.class_ids) for share in (1.0, *(shares or SHARES))]
    table = pd.DataFrame(rows)
    passing = table[table["accuracy"] >= table["accuracy"].iloc[0] - max_drop]
    return float(passing.loc[passing["accuracy_int8"].idxmax(), "share"]), table


def _row(parent: Parent, share: float, noisy: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    network = clipped(parent.network, share=share)
    answers = network.predict(noisy, batch_size=256, verbose=0).argmax(axis=1)
    return {
        "share": share,
        "largest": max(float(np.abs(kernel.numpy()).max()) for kernel in kernels(network)),
        "accuracy": float(parent.right_on_validation(network).mean()),
        "accuracy_int8": float(parent.right_on_validation(rounded(network)).mean()),
        "accuracy_noise": float(np.mean(answers == labels)),
    }


def rounded(model: keras.Model) -> keras.Model:
    """Return a copy whose kernels have 8 bits, as a quantized file has them.

    That batch normalization is not folded in makes no difference: it scales whole channels.
    """
    copy = copy_of(model)
    for layer in copy.layers:
        if isinstance(layer, FOLDABLE):
            layer.set_weights([rounded_kernel(layer), *layer.get_weights()[1:]])
    return copy
