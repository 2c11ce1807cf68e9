"""Whole channels out of a network: what is left is a smaller network, and a faster one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.weights import follow_weights

runtime.prepare()

import keras  # noqa: E402

from kclassify.compression.channels import (  # noqa: E402
    PRODUCING,
    TOGETHER,
    Channels,
    channel_groups,
)


def without_channels(channels: Channels, gone: np.ndarray) -> keras.Model:
    """Return the network that is left without some channels, with the weights that are left.

    Args:
        channels: of the network, which is left as it is.
        gone: numbers, as the groups have them.

    Raises:
        InputError: a number is of no group, or a layer would have no channel left.

    Example:
        >>> from kclassify.compression.channels import channel_groups, channels_of
        >>> from kclassify.compression.narrowing import without_channels
        >>> from kclassify.models.registry import build_model
        >>> channels = channels_of(build_model("lenet", input_shape=(32, 32, 3), num_classes=10))
        >>> first = channel_groups(channels)[0]
        >>> without_channels(channels, first.channels[:2]).layers[2].filters
        4
    """
    _check_gone(channels, gone)
    stays = _staying(channels, gone)
    twins: list[tuple[keras.Layer, keras.Layer]] = []

    def copied(layer: Any) -> Any:
        twin = type(layer).from_config(layer.get_config() | _width(layer, stays))
        twins.append((layer, twin))
        return twin

    copy = keras.models.clone_model(channels.model, clone_function=copied)
    for layer, twin in twins:
        twin.set_weights(_left(layer, stays))
    follow_weights(copy)
    return copy


def _check_gone(channels: Channels, gone: np.ndarray) -> None:
    groups = channel_groups(channels)
    strange = set(np.asarray(gone, int).tolist()).difference(*(g.channels for g in groups))
    if strange:
        raise InputError(
            f"`gone` must be channels of the groups. Received: {sorted(strange)[:4]}, which are "
            "of none. Take them from `channel_groups`."
        )
    empty = [name for group in groups
             for name, places in zip(group.producers, group.places, strict=True)
             if (places >= 0).all() and np.isin(group.channels[places], gone).all()]  # fmt: skip
    if empty:
        raise InputError(
            f"`gone` must leave each layer a channel. Received: all the channels of {empty[0]!r}. "
            "Keep one of them."
        )


@dataclass(frozen=True)
class Staying:
    """Which channels stay: bool arrays of what each layer reads and makes, by its name."""

    read: dict[str, np.ndarray]
    made: dict[str, np.ndarray]


def _staying(channels: Channels, gone: np.ndarray) -> Staying:
    lost = np.asarray(gone, int)

    def of(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: ~np.isin(channels.roots(numbers), lost) for name, numbers in tensors.items()}

    return Staying(of(channels.inputs), of(channels.outputs))


def _width(layer: Any, stays: Staying) -> dict[str, Any]:
    count = int(stays.made[layer.name].sum())
    if isinstance(layer, keras.layers.Reshape):
        return {"target_shape": (*layer.target_shape[:-1], count)}
    if isinstance(layer, keras.layers.Dense):
        return {"units": count}
    return {"filters": count} if isinstance(layer, PRODUCING) else {}


def _left(layer: keras.Layer, stays: Staying) -> list[np.ndarray]:
    """Return the weights of a layer that are left."""
    weights = layer.get_weights()
    if not weights or isinstance(layer, TOGETHER):
        return weights
    read, made = stays.read[layer.name], stays.made[layer.name]
    if isinstance(layer, keras.layers.SeparableConv2D):
        depth, point, *bias = weights
        between = np.repeat(read, layer.depth_multiplier)
        return [depth[:, :, read], point[:, :, between][..., made], *(b[made] for b in bias)]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return [weights[0][:, :, read], *(bias[made] for bias in weights[1:])]
    if isinstance(layer, PRODUCING):
        kernel = weights[0][..., read, :][..., made]
        return [kernel, *(bias[made] for bias in weights[1:])]
    # Of a normalization, a number a channel.
    return [weight[read] for weight in weights]


def cost_left(channels: Channels, gone: np.ndarray, *, cost: str = "macs") -> float:
    """Return the share of a network's cost that is left without some channels.

    Args:
        channels: of the network.
        gone: numbers, as the groups have them.
        cost: ``"macs"``, or ``"parameters"``, of the kernels: nearly all there are.
    """
    stays, whole = _staying(channels, gone), _staying(channels, np.zeros(0, int))
    layers, of = channels.model.layers, {"macs": _macs, "parameters": _weights}[cost]
    return sum(of(layer, stays) for layer in layers) / sum(of(layer, whole) for layer in layers)


def _macs(layer: keras.Layer, stays: Staying) -> int:
    return math.prod(layer.output.shape[1:-1]) * _weights(layer, stays)


def _weights(layer: keras.Layer, stays: Staying) -> int:
    """Return how many weights a layer's kernel has."""
    if not isinstance(layer, (*PRODUCING, keras.layers.DepthwiseConv2D)):
        return 0
    area = math.prod(getattr(layer, "kernel_size", (1,)))
    read, made = int(stays.read[layer.name].sum()), int(stays.made[layer.name].sum())
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return area * made
    if isinstance(layer, keras.layers.SeparableConv2D):
        between = read * layer.depth_multiplier
        return area * between + between * made
    return area * read * made
