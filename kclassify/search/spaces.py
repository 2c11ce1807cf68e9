"""The spaces that are searched where none is given: for each model, what matters most.

Ranges are laid around what the configuration has, so that they fit a preset, a batch size and a
dataset of any size.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kclassify.config import FitConfig

# How far the learning rate and the weight decay go from the configuration's, both ways.
RATE_FACTOR, DECAY_FACTOR = 4.0, 10.0
# AdamW's rates and decays; those of the other optimizers would be far off.
ADAMW_RATE = {"min_value": 5e-4, "max_value": 1e-2, "sampling": "log", "default": 3e-3}
ADAMW_DECAY = {"min_value": 5e-3, "max_value": 0.5, "sampling": "log", "default": 0.05}
SMALLEST_BATCH = 4


def default_space(base: FitConfig, input_shape: Sequence[int]) -> dict[str, Any]:
    """Return the space of the model of `base`, as `read_space` reads it."""
    return {**_training(base), **MODEL_SPACES[base.model](base, min(input_shape[:2]))}


def _training(base: FitConfig) -> dict[str, Any]:
    batches = [base.batch_size // 2, base.batch_size, base.batch_size * 2]
    return {
        **_optimizers(base),
        "batch_size": [size for size in batches if size >= SMALLEST_BATCH] or [base.batch_size],
        "label_smoothing": [0.0, 0.1, 0.2],
        "augmentation": _augmentations(base.augmentation),
    }


def _optimizers(base: FitConfig) -> dict[str, Any]:
    """Return the learning rate around that of `base`, and AdamW beside the optimizers of SGD."""
    rate = around(base.learning_rate, RATE_FACTOR)
    decay = around(base.weight_decay, DECAY_FACTOR) if base.weight_decay else None
    if base.optimizer not in ("sgd", "momentum", "nesterov"):
        return {"learning_rate": rate} | ({"weight_decay": decay} if decay else {})
    own, other = {"optimizer": [base.optimizer]}, {"optimizer": ["adamw"]}
    space = {
        "optimizer": [base.optimizer, "adamw"],
        "learning_rate": [{**rate, "when": own}, {**ADAMW_RATE, "when": other}],
    }
    decays = [{**decay, "when": own}] if decay else []
    return {**space, "weight_decay": [*decays, {**ADAMW_DECAY, "when": other}]}


def around(value: float, factor: float) -> dict[str, Any]:
    """Return the range from a `factor`-th of `value` to `factor` times it, by logarithms."""
    ends = {"min_value": value / factor, "max_value": value * factor}
    return {**ends, "sampling": "log", "default": value}


def _augmentations(there: str) -> list[str]:
    """Return what may be tried: what is not mirrored stays so, since digits must not be."""
    if there in ("none", "crop"):
        return ["none", "crop"]
    return list(dict.fromkeys([there, "flip_crop", "cutout"]))


def _lenet(base: FitConfig, side: int) -> dict[str, Any]:
    return {
        "activation": ["relu", "silu", "tanh"],
        "kernel_initializer": ["glorot_uniform", "he_normal"],
    }


def _convnet(base: FitConfig, side: int) -> dict[str, Any]:
    filters = base.model_args.get("filters", 32)
    space: dict[str, Any] = {"dropout": [0.0, 0.1, 0.2, 0.3], "kernel_size": [3, 5]}
    if isinstance(filters, int):
        space["filters"] = [max(4, filters // 2), filters, filters * 2]
        space["depth"] = [depth for depth in (2, 3, 4) if 2**depth <= side] or [1]
    return space


def _fastnet(base: FitConfig, side: int) -> dict[str, Any]:
    first, *others = base.model_args.get("filters", (64, 256, 256))
    widths = [
        [first, *others],
        [first * 3 // 2, *(width * 3 // 2 for width in others)],
        [first * 2, *(width * 2 for width in others)],
        [first, *(width * 2 for width in others)],
    ]
    return {"filters": widths, "activation": ["relu", "silu"]}


def _resnet(base: FitConfig, side: int) -> dict[str, Any]:
    return {"depth": [8, 14, 20], "filters": [16, 32], "dropout": [0.0, 0.2]}


def _wide_resnet(base: FitConfig, side: int) -> dict[str, Any]:
    return {"depth": [10, 16], "width": [1, 2, 4], "dropout": [0.0, 0.2]}


def _application(base: FitConfig, side: int) -> dict[str, Any]:
    return {"dropout": [0.0, 0.2, 0.4], "pooling": ["avg", "max"]}


MODEL_SPACES: dict[str, Callable[[FitConfig, int], dict[str, Any]]] = {
    "lenet": _lenet,
    "convnet": _convnet,
    "fastnet": _fastnet,
    "resnet": _resnet,
    "wide_resnet": _wide_resnet,
    "application": _application,
}
