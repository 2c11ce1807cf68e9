"""Whole channels out of a network: what is left is a smaller network, and a faster one.

After Li et al. 2017, "Pruning Filters for Efficient ConvNets", through residual connections too.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number, is_whole
from kclassify.models.folding import graph_of

runtime.prepare()

import keras  # noqa: E402

from kclassify.compression.channels import (  # noqa: E402
    PRODUCING,
    TOGETHER,
    Channels,
    Group,
    channel_groups,
    channels_of,
    in_order,
)

CRITERIA = ("l1", "l2", "batch_norm", "random")
# Convolutions are quickest on whole vectors of 8 numbers.
MULTIPLE = 8
# Of the shares that are tried: enough for single channels of the widest layers.
HALVINGS = 20


def channel_scores(
    channels: Channels, group: Group, *, criterion: str, seed: int = 0
) -> np.ndarray:
    """Return how much each channel of a group matters, ``(channels,)``: the lowest go first.

    Args:
        channels: of the network.
        group: one of `channel_groups`.
        criterion: ``"l1"`` or ``"l2"``, the norm of the filters that make it, summed over the
            layers that write to it (Li et al. 2017, there of one layer); ``"batch_norm"``, the
            absolute scale of the batch normalizations behind them; ``"random"``.
        seed: of the random scores.

    Raises:
        InputError: there is no scale to go by.
    """
    check_choice("criterion", criterion, CRITERIA)
    scores = np.zeros(len(group))
    if criterion == "random":
        return np.random.default_rng((seed, int(group.channels[0]))).random(len(group))
    for name, places in zip(group.producers, group.places, strict=True):
        values = _of_producer(channels, name, criterion)
        np.add.at(scores, places[places >= 0], values[places >= 0])
    return scores


def _of_producer(channels: Channels, name: str, criterion: str) -> np.ndarray:
    layer = channels.model.get_layer(name)
    if criterion == "batch_norm":
        return np.abs(_scale_behind(channels, name))
    kernel = layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel
    filters = kernel.numpy().reshape(-1, kernel.shape[-1])
    return np.linalg.norm(filters, ord=1 if criterion == "l1" else 2, axis=0)


def _scale_behind(channels: Channels, name: str) -> np.ndarray:
    made = channels.roots(channels.outputs[name])
    for layer in _behind(channels.model, name):
        norm = isinstance(layer, keras.layers.BatchNormalization) and layer.gamma is not None
        if norm and np.array_equal(channels.roots(channels.inputs[layer.name]), made):
            return layer.gamma.numpy()
    raise InputError(
        f"`criterion` must be one that the model has. Received: 'batch_norm', and there is no "
        f"batch normalization with a scale behind {name!r}. Choose 'l1' or 'l2'."
    )


def _behind(model: keras.Model, name: str) -> list[Any]:
    """Return the layers that the outputs of one go through, the nearest first."""
    layers = {operation.name: operation for operation in model.operations}
    sources, reached = graph_of(model), {name: layers[name]}
    for after in in_order(sources):
        passes = not isinstance(layers[after], PRODUCING)
        if passes and any(source in reached for source in sources[after]):
            reached[after] = layers[after]
    return list(reached.values())


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


def narrowed(
    model: keras.Model,
    *,
    macs: float = 0.5,
    criterion: str = "l1",
    seed: int = 0,
    multiple: int = MULTIPLE,
) -> keras.Model:
    """Return the network with the same share of each group of channels, the least of them gone.

    Args:
        model: a functional model; it is left as it is.
        macs: the most multiply-accumulates that are left, as a share, in (0, 1).
        criterion: which channels go, see `channel_scores`.
        seed: of random scores.
        multiple: of what the groups that are at least twice as wide keep.

    Returns:
        A functional model of Keras's own layers.

    Raises:
        InputError: a layer is not understood, or so many multiply-accumulates cannot go.

    Example:
        >>> from kclassify.compression.narrowing import narrowed
        >>> from kclassify.models.cost import count_macs
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("resnet", input_shape=(32, 32, 3), num_classes=10, depth=8)
        >>> count_macs(narrowed(model, macs=0.5)) <= 0.5 * count_macs(model)
        True
    """
    ok = isinstance(macs, float) and 0 < macs < 1
    check_number("macs", macs, expected="a share above 0 and below 1", ok=ok)
    check_choice("criterion", criterion, CRITERIA)
    expected = "a whole number of at least 1"
    check_number("multiple", multiple, expected=expected, ok=is_whole(multiple, least=1))
    channels = channels_of(model)
    parts = [
        (group, _order(group, channel_scores(channels, group, criterion=criterion, seed=seed)))
        for group in channel_groups(channels)
    ]

    def gone(share: float) -> np.ndarray:
        lost = [np.zeros(0, int)]
        for group, order in parts:
            lost.append(group.channels[order[: len(group) - _count(len(group), share, multiple)]])
        return np.concatenate(lost)

    share = _widest(lambda share: macs_left(channels, gone(share)), macs, model)
    return without_channels(channels, gone(share))


def _order(group: Group, scores: np.ndarray) -> np.ndarray:
    """Return the places of the channels that may go, the least first.

    The best of each layer is not among them: where outputs are joined side by side and added to
    others, the least of the group may be all that one layer makes.
    """
    owned = [places[places >= 0] for places in group.places]
    best = {int(places[scores[places].argmax()]) for places in owned}
    return np.array([place for place in scores.argsort(kind="stable") if place not in best], int)


def _count(channels: int, share: float, multiple: int) -> int:
    """Return how many of a group stay."""
    step = multiple if channels >= 2 * multiple else 1
    return min(channels, max(step, step * round(share * channels / step)))


def _widest(left: Callable[[float], float], macs: float, model: keras.Model) -> float:
    """Return the largest share of the channels that leaves no more than `macs`."""
    least, most = 0.0, 1.0
    if (fewest := left(least)) > macs:
        mend = "Give a higher one." if fewest < 1 else "Choose another technique."
        raise InputError(
            f"`macs` must be a share that pruning can leave. Received: macs={macs!r}, and with "
            f"the fewest channels {model.name!r} has {fewest:.3f} of its own. {mend}"
        )
    # A smaller share loses all that a larger one does, so what is left only falls with it.
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        least, most = (middle, most) if left(middle) <= macs else (least, middle)
    return least


def macs_left(channels: Channels, gone: np.ndarray) -> float:
    """Return the share of the multiply-accumulates that is left without some channels."""
    stays, whole = _staying(channels, gone), _staying(channels, np.zeros(0, int))
    layers = channels.model.layers
    before = sum(_macs(layer, whole) for layer in layers)
    return sum(_macs(layer, stays) for layer in layers) / before


def _macs(layer: keras.Layer, stays: Staying) -> int:
    if not isinstance(layer, (*PRODUCING, keras.layers.DepthwiseConv2D)):
        return 0
    positions = math.prod(layer.output.shape[1:-1])
    area = math.prod(getattr(layer, "kernel_size", (1,)))
    read, made = int(stays.read[layer.name].sum()), int(stays.made[layer.name].sum())
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return positions * area * made
    if isinstance(layer, keras.layers.SeparableConv2D):
        between = read * layer.depth_multiplier
        return positions * (area * between + between * made)
    return positions * area * read * made
