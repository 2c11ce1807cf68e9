"""Which channels of a network stand or fall together, read from its graph.

Each channel of each tensor has a number; what is added to one another is united, so that a residual
stream, and all that writes to it, is one group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.folding import graph_of

runtime.prepare()

import keras  # noqa: E402

# What a channel goes through as it is, whatever the others are.
PASSING = (
    keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Activation, keras.layers.ReLU,
    keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Dropout, keras.layers.SpatialDropout2D,
    keras.layers.GaussianNoise, keras.layers.GaussianDropout, keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D, keras.layers.GlobalMaxPooling2D, keras.layers.Identity,
    keras.layers.GlobalAveragePooling2D, keras.layers.ZeroPadding2D, keras.layers.Cropping2D,
    keras.layers.UpSampling2D, keras.layers.BatchNormalization, keras.layers.DepthwiseConv2D,
)  # fmt: skip
# Whose answer for one channel depends on the others: none of theirs may go.
TOGETHER = (keras.layers.LayerNormalization, keras.layers.GroupNormalization,
            keras.layers.Normalization)  # fmt: skip
UNITING = (keras.layers.Add, keras.layers.Multiply, keras.layers.Average, keras.layers.Maximum,
           keras.layers.Subtract)  # fmt: skip
PRODUCING = (keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.Dense)
# Activations that look at one number at a time; softmax does not, and of a stranger none can tell.
ELEMENTWISE = tuple(
    keras.activations.get(name)
    for name in (
        "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu",
        "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu",
        "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus", "squareplus",
        "tanh", "tanh_shrink", "threshold",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Channels that may go, with all the layers that they go from.

    Attributes:
        producers: the names of the layers that make them.
        channels: the numbers of the channels, by which a `Channels` knows them.
        places: for each producer, which of `channels` each of its outputs is; -1 is none of them.
    """

    producers: tuple[str, ...]
    channels: np.ndarray
    places: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.channels)


@dataclass
class Channels:
    """The channels of all the tensors of a network, by number.

    Attributes:
        model: the network.
        inputs: by layer, the numbers of what it reads; of several tensors, of the first.
        outputs: by layer, the numbers of what it makes.
        same: for each number, one that it was united with, or itself.
        pinned: numbers that have to stay.
    """

    model: keras.Model
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    same: list[int] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)

    def new(self, count: int) -> np.ndarray:
        """Return the numbers of as many new channels."""
        first = len(self.same)
        self.same += range(first, first + count)
        return np.arange(first, first + count)

    def root(self, number: int) -> int:
        """Return the number that stands for all that were united with it."""
        while self.same[number] != number:
            number = self.same[number]
        return number

    def roots(self, numbers: np.ndarray) -> np.ndarray:
        """Return the roots of several."""
        return np.array([self.root(number) for number in numbers], int)

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Have the channels of two tensors stand or fall together."""
        for one, other in zip(*np.broadcast_arrays(a, b), strict=True):
            self.same[self.root(one)] = self.root(other)

    def pin(self, numbers: np.ndarray) -> None:
        """Have channels stay."""
        self.pinned.update(int(number) for number in numbers)


def channels_of(model: keras.Model) -> Channels:
    """Number the channels of a network.

    Raises:
        InputError: a layer is not understood; the sentence names it.
    """
    if not hasattr(model, "operations") or isinstance(model, keras.Sequential):
        raise _refusal(model, f"a {type(model).__name__} model, which is not a functional one")
    found, sources = Channels(model), graph_of(model)
    layers = {operation.name: operation for operation in model.operations}
    _check_understood(model, layers)
    for name in in_order(sources):
        tensors = [found.outputs[source] for source in sources[name]]
        if tensors:
            found.inputs[name] = tensors[0]
        found.outputs[name] = _out(found, layers[name], tensors)
        if _together(layers[name]):
            found.pin(found.outputs[name])
    for tensor in keras.tree.flatten(model.outputs):
        found.pin(found.outputs[tensor._keras_history.operation.name])
    return found


def _check_understood(model: keras.Model, layers: Mapping[str, Any]) -> None:
    calls = {layer["name"]: len(layer["inbound_nodes"]) for layer in model.get_config()["layers"]}
    known = (*PASSING, *TOGETHER, *UNITING, *PRODUCING, keras.layers.Flatten,
             keras.layers.Reshape, keras.layers.Concatenate)  # fmt: skip
    # What is called in several places would have to lose the same channels in each of them.
    strange = [f"{name!r} ({type(layer).__name__}{', called more than once' * (calls[name] > 1)})"
               for name, layer in layers.items()
               if type(layer) not in known or calls[name] > 1 or _unusual(layer)]  # fmt: skip
    if strange:
        raise _refusal(model, f"{', '.join(strange[:4])}{' and others' * (len(strange) > 4)}")


def _refusal(model: keras.Model, where: str) -> InputError:
    return InputError(
        f"`technique` must be one that the model can take. Received: 'prune_filters' for "
        f"{model.name!r}, in which it is not known how channels go through {where}. "
        "Choose 'prune' or 'quantize'."
    )


def _unusual(layer: Any) -> bool:
    """Tell whether a layer counts its channels in a way of its own, or has other weights."""
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    axis = getattr(layer, "axis", -1)
    rank = len(layer.output.shape)
    other_axis = isinstance(axis, int) and axis not in (-1, rank - 1)
    counted = isinstance(layer, (keras.layers.Concatenate, keras.layers.BatchNormalization))
    grouped = getattr(layer, "groups", 1) != 1 and isinstance(layer, keras.layers.Conv2D)
    shaped = isinstance(layer, keras.layers.Reshape) and not _keeps_channels(layer)
    changed = getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)
    return first or grouped or shaped or bool(changed) or (counted and other_axis)


def _keeps_channels(layer: Any) -> bool:
    return len(layer.input.shape) > 1 and layer.input.shape[-1] == layer.output.shape[-1]


def _together(layer: Any) -> bool:
    """Tell whether what a layer makes of one channel depends on which others there are."""
    mixed = getattr(layer, "activation", None) not in (None, *ELEMENTWISE)
    scaled = isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.scale) > 0
    shifted = isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.offset) > 0
    shaped = getattr(layer, "noise_shape", None) is not None
    return isinstance(layer, TOGETHER) or mixed or scaled or shifted or shaped


def in_order(sources: Mapping[str, list[str]]) -> list[str]:
    """Return the names so that each comes after what it reads."""
    ordered: dict[str, None] = {}
    left = dict(sources)
    while left:
        ready = [name for name, reads in left.items() if all(read in ordered for read in reads)]
        ordered |= dict.fromkeys(ready)
        left = {name: reads for name, reads in left.items() if name not in ordered}
    return list(ordered)


def _out(found: Channels, layer: Any, tensors: list[np.ndarray]) -> np.ndarray:
    """Return the numbers of what a layer makes of some tensors."""
    count = layer.output.shape[-1]
    if isinstance(layer, PRODUCING):
        return _made(found, layer, count)
    if not tensors:
        made = found.new(count)
        found.pin(made)
        return made
    if isinstance(layer, keras.layers.Concatenate):
        return np.concatenate(tensors)
    if isinstance(layer, UNITING):
        for other in tensors[1:]:
            found.unite(tensors[0], other)
        return max(tensors, key=len)
    if isinstance(layer, keras.layers.Flatten):
        return np.tile(tensors[0], count // len(tensors[0]))
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return np.repeat(tensors[0], layer.depth_multiplier)
    return tensors[0]


def _made(found: Channels, layer: keras.Layer, count: int) -> np.ndarray:
    made = found.new(count)
    # What is not trained was set on purpose, such as a whitening layer.
    if not layer.trainable:
        found.pin(made)
    return made


def channel_groups(channels: Channels) -> list[Group]:
    """Return the groups of channels that may go, each of at least two.

    Example:
        >>> from kclassify.compression.channels import channel_groups, channels_of
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("resnet", input_shape=(32, 32, 3), num_classes=10, depth=8)
        >>> sorted(len(group.producers) for group in channel_groups(channels_of(model)))
        [1, 1, 1, 2, 2, 2]
    """
    pinned = {channels.root(number) for number in channels.pinned}
    makers = [layer.name for layer in channels.model.layers if isinstance(layer, PRODUCING)]
    made = {name: channels.roots(channels.outputs[name]) for name in makers}
    groups: list[tuple[list[str], set[int]]] = []
    for name, roots in made.items():
        names, numbers = [name], set(roots.tolist()) - pinned
        if not numbers:
            continue
        for other in [group for group in groups if group[1] & numbers]:
            groups.remove(other)
            names, numbers = other[0] + names, other[1] | numbers
        groups.append((names, numbers))
    order = list(made)
    groups.sort(key=lambda group: order.index(group[0][0]))
    return [_group(names, numbers, made) for names, numbers in groups if len(numbers) > 1]


def _group(names: list[str], numbers: set[int], made: Mapping[str, np.ndarray]) -> Group:
    channels = np.array(sorted(numbers))
    index = {number: place for place, number in enumerate(channels.tolist())}
    places = tuple(np.array([index.get(int(root), -1) for root in made[name]]) for name in names)
    return Group(tuple(names), channels, places)
