"""Dense layers and 1x1 convolutions as a product of two thinner ones, where that costs less."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError, check_number

runtime.prepare()

import keras  # noqa: E402

from kclassify.models.weights import follow_weights  # noqa: E402

# The share of the network's weights that a layer must save: less is not worth a training.
WORTH = 0.01


@dataclass(frozen=True)
class Factors:
    """A layer and what its kernel is replaced by.

    Attributes:
        layer: its name.
        rank: the width between the two new layers.
        weights: of its kernel.
        left: of the two new kernels.
        first: ``(inputs, rank)``.
        second: ``(rank, outputs)``.
    """

    layer: str
    rank: int
    weights: int
    left: int
    first: np.ndarray
    second: np.ndarray


def factorized(model: keras.Model, *, energy: float = 0.95) -> keras.Model:
    """Return a copy of `model` whose dense and 1x1 kernels are products where that pays.

    A kernel becomes the best product of a rank (Eckart and Young 1936): the smallest that keeps
    a share of `energy` of its squared values. It pays where the two save
    at least a hundredth of the network's weights.

    Args:
        model: a functional model.
        energy: share of each kernel's squared singular values that is kept, in (0, 1).

    Raises:
        InputError: it pays in no layer; the sentence says why.

    Example:
        >>> from kclassify.compression.low_rank import factorized
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("lenet", input_shape=(32, 32, 3), num_classes=10)
        >>> factorized(model, energy=0.5).count_params() < model.count_params()
        True
    """
    found = {factors.layer: factors for factors in paying(model, energy=energy)}
    if not found:
        raise InputError(
            f"`technique` must be one that the model can take. Received: 'low_rank' for "
            f"{model.name!r}, {_reason(model, energy)}. Choose another, or a lower `energy`."
        )
    thin: dict[str, keras.Layer] = {}

    def copied(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model):
            return layer
        if layer.name in found:
            thin[layer.name] = _thin(layer, found[layer.name].rank)
        # The thin one strides.
        strides = {"strides": 1} if layer.name in thin and hasattr(layer, "strides") else {}
        return type(layer).from_config(layer.get_config() | strides)

    def called(layer: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        inputs = thin[layer.name](inputs) if layer.name in thin else inputs
        return layer(inputs, *args, **options)

    copy = keras.models.clone_model(
        model, clone_function=copied, call_function=called, recursive=True
    )
    for layer in model.layers:
        _set_weights(layer, copy, found.get(layer.name), thin.get(layer.name))
    follow_weights(copy)
    return copy


def paying(model: keras.Model, *, energy: float) -> list[Factors]:
    """Return the layers for which two thinner ones are worth it, with their factors."""
    number = isinstance(energy, int | float) and not isinstance(energy, bool)
    check_number(
        "energy", energy, expected="a number between 0 and 1", ok=number and 0 < energy < 1
    )
    found = [_factors(layer, energy) for layer in model.layers if _is_matrix(layer)]
    least = WORTH * model.count_params()
    return [factors for factors in found if factors.weights - factors.left >= least]


def _is_matrix(layer: keras.Layer) -> bool:
    """Tell whether a layer multiplies each place by one matrix."""
    if isinstance(layer, keras.layers.Dense):
        return True
    plain = type(layer) is keras.layers.Conv2D and layer.groups == 1
    return plain and layer.kernel_size == (1, 1)


def _factors(layer: keras.Layer, energy: float) -> Factors:
    kernel = layer.kernel.numpy()
    matrix = kernel.reshape(kernel.shape[-2:]).astype(np.float64)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = np.cumsum(values**2) / np.sum(values**2)
    rank = min(int(np.searchsorted(kept, energy)) + 1, len(values))
    root = np.sqrt(values[:rank])
    first, second = left[:, :rank] * root, root[:, None] * right[:rank]
    return Factors(layer.name, rank, matrix.size, first.size + second.size, first, second)


def _thin(layer: keras.Layer, rank: int) -> keras.Layer:
    """Return the layer that goes before: `rank` wide, with neither bias nor activation."""
    name = f"{layer.name}_thin"
    if isinstance(layer, keras.layers.Dense):
        return keras.layers.Dense(rank, use_bias=False, name=name, dtype=layer.dtype_policy)
    # It strides, so that the other one works on fewer places.
    return keras.layers.Conv2D(
        rank, 1, strides=layer.strides, use_bias=False, name=name, dtype=layer.dtype_policy
    )


def _set_weights(
    layer: keras.Layer, copy: keras.Model, factors: Factors | None, thin: keras.Layer | None
) -> None:
    twin, weights = copy.get_layer(layer.name), layer.get_weights()
    if factors is None or thin is None:
        twin.set_weights(weights)
        return
    ones = (1,) * (weights[0].ndim - 2)
    thin.set_weights([factors.first.reshape(*ones, *factors.first.shape)])
    twin.set_weights([factors.second.reshape(*ones, *factors.second.shape), *weights[1:]])


def _reason(model: keras.Model, energy: float) -> str:
    matrices = [layer for layer in model.layers if _is_matrix(layer)]
    if not matrices:
        return "which has neither dense layers nor 1x1 convolutions"
    largest = max(matrices, key=lambda layer: math.prod(layer.kernel.shape))
    factors = _factors(largest, energy)
    return (
        f"where it pays in no layer: {largest.name!r}, the largest, would have {factors.left:,} "
        f"weights in two of rank {factors.rank} rather than {factors.weights:,}"
    )
