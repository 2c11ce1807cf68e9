"""Which channels of a network go, and how many of each layer.

After Li et al. 2017, "Pruning Filters for Efficient ConvNets": each group loses the same share of
its channels. With the criterion ``"gradient"``, whose scores can be compared between layers, a
group loses the more, the less its channels matter for what they cost (Molchanov et al. 2019,
"Importance Estimation for Neural Network Pruning"; they do not divide by the cost).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number, is_whole
from kclassify.data.spec import Examples
from kclassify.models.folding import graph_of

runtime.prepare()

import keras  # noqa: E402

from kclassify.compression.channels import (  # noqa: E402
    PRODUCING,
    Channels,
    Group,
    channel_groups,
    channels_of,
    in_order,
)
from kclassify.compression.narrowing import cost_left, without_channels  # noqa: E402
from kclassify.compression.pruning import gradient_scores, kernels  # noqa: E402

CRITERIA = ("l1", "l2", "batch_norm", "gradient", "random")
COSTS = ("macs", "parameters")
# Convolutions are quickest on whole vectors of 8 numbers.
MULTIPLE = 8
# Of the shares that are tried: enough for single channels of the widest layers.
HALVINGS = 20
# What a group keeps, where its channels are compared with those of others.
LEAST = 0.25

ByLayer = Mapping[str, np.ndarray]
NONE: ByLayer = {}


def channel_scores(
    channels: Channels, group: Group, *, criterion: str, seed: int = 0, gradients: ByLayer = NONE
) -> np.ndarray:
    """Return how much each channel of a group matters, ``(channels,)``: the lowest go first.

    Args:
        channels: of the network.
        group: one of `channel_groups`.
        criterion: ``"l1"`` or ``"l2"``, the norm of the filters that make it, summed over the
            layers that write to it (Li et al. 2017, there of one layer); ``"batch_norm"``, the
            absolute scale of the batch normalizations behind them; ``"gradient"``, gradient times
            weight, absolute, summed over its filters; ``"random"``.
        seed: of the random scores.
        gradients: by layer, what `filter_gradients` gives.

    Raises:
        InputError: there is no scale to go by.
    """
    check_choice("criterion", criterion, CRITERIA)
    scores = np.zeros(len(group))
    if criterion == "random":
        return np.random.default_rng((seed, int(group.channels[0]))).random(len(group))
    for name, places in zip(group.producers, group.places, strict=True):
        # Where a layer is not trained, there is no gradient; its channels stay.
        of = gradients.get(name, np.full(len(places), np.inf)) if criterion == "gradient" else None
        values = _of_producer(channels, name, criterion) if of is None else of
        np.add.at(scores, places[places >= 0], values[places >= 0])
    return scores


def _of_producer(channels: Channels, name: str, criterion: str) -> np.ndarray:
    layer = channels.model.get_layer(name)
    if criterion == "batch_norm":
        return np.abs(_scale_behind(channels, name))
    kernel = _kernel(layer)
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


def filter_gradients(model: keras.Model, train: Examples | None) -> ByLayer:
    """Return of each trained layer how much its filters matter: ``(filters,)`` numbers.

    They are the sums of `pruning.gradient_scores` over the weights of a filter.

    Raises:
        InputError: there are no images.
    """
    if train is None:
        raise InputError(
            "`train` must be given with the criterion 'gradient', which asks training images. "
            "Received: None."
        )
    of_weights = zip(kernels(model), gradient_scores(model, train), strict=True)
    by_path = {kernel.path: scores for kernel, scores in of_weights}
    makers = [layer for layer in model.layers if isinstance(layer, PRODUCING)]
    return {
        layer.name: by_path[_kernel(layer).path].reshape(-1, _kernel(layer).shape[-1]).sum(axis=0)
        for layer in makers
        if _kernel(layer).path in by_path
    }


def _kernel(layer: Any) -> Any:
    """Return the kernel that has a filter for each channel that the layer makes."""
    return layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel


@dataclass(frozen=True)
class Aim:
    """How much of a network is to be left, and of what.

    Attributes:
        cost: ``"macs"`` or ``"parameters"``.
        share: the most that is left of it, in (0, 1).
        criterion: what says which channels go, see `channel_scores`.
    """

    cost: str
    share: float
    criterion: str


def aim_of(
    *, macs: float | None = None, parameters: float | None = None, criterion: str | None = None
) -> Aim:
    """Return the aim that some options are: half of the multiply-accumulates by default.

    Raises:
        InputError: both are given, or a value is not a share.
    """
    given = {"macs": macs, "parameters": parameters}
    asked = {cost: share for cost, share in given.items() if share is not None} or {"macs": 0.5}
    if len(asked) > 1:
        raise InputError(
            "`macs` must be given without `parameters`: of one of them it is said how much is "
            f"left. Received: macs={macs!r}, parameters={parameters!r}. Leave one out."
        )
    (cost, share), *_ = asked.items()
    ok = isinstance(share, float) and 0 < share < 1
    check_number(cost, share, expected="a share above 0 and below 1", ok=ok)
    criterion = criterion or ("gradient" if cost == "parameters" else "l1")
    check_choice("criterion", criterion, CRITERIA)
    return Aim(cost, share, criterion)


def narrowed(
    model: keras.Model,
    aim: Aim,
    *,
    seed: int = 0,
    multiple: int = MULTIPLE,
    train: Examples | None = None,
) -> keras.Model:
    """Return the network with fewer channels in each group, the least of them gone.

    Args:
        model: a functional model; it is left as it is.
        aim: how much is left.
        seed: of random scores.
        multiple: of what the groups that are at least twice as wide keep.
        train: the training images, for the criterion ``"gradient"``.

    Returns:
        A functional model of Keras's own layers.

    Raises:
        InputError: a layer is not understood, or so much cannot go.

    Example:
        >>> from kclassify.compression.choosing import Aim, narrowed
        >>> from kclassify.models.cost import count_macs
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("resnet", input_shape=(32, 32, 3), num_classes=10, depth=8)
        >>> count_macs(narrowed(model, Aim("macs", 0.5, "l1"))) <= 0.5 * count_macs(model)
        True
    """
    expected = "a whole number of at least 1"
    check_number("multiple", multiple, expected=expected, ok=is_whole(multiple, least=1))
    channels = channels_of(model)
    queues = _queues(channels, aim, seed=seed, train=train)

    def left(counts: list[int]) -> float:
        return cost_left(channels, _gone(queues, counts), cost=aim.cost)

    share = _widest(lambda share: left(_counts(queues, share, multiple)), aim, model)
    counts = _counts(queues, share, multiple)
    # Groups of one width lose a step all at once, and so more than has to go.
    for place in reversed(range(len(queues))):
        more = _wider(queues, counts, place, multiple)
        counts = more if left(more) <= aim.share else counts
    return without_channels(channels, _gone(queues, counts))


@dataclass(frozen=True)
class Queue:
    """The channels of a group that may go.

    Attributes:
        group: the group.
        order: their places in it, the first to go first.
        turns: for each, the share of all channels that go before it does; None where a group loses
            the same share as any other.
    """

    group: Group
    order: np.ndarray
    turns: np.ndarray | None = None

    def staying(self, share: float) -> float:
        """Return the share of the group that stays where `share` of all channels do."""
        if self.turns is None:
            return share
        return 1.0 - float(np.sum(self.turns < 1.0 - share)) / len(self.group)


def _queues(channels: Channels, aim: Aim, *, seed: int, train: Examples | None) -> list[Queue]:
    ranked, groups = aim.criterion == "gradient", channel_groups(channels)
    gradients = filter_gradients(channels.model, train) if ranked else NONE
    scores = [
        channel_scores(channels, group, criterion=aim.criterion, seed=seed, gradients=gradients)
        for group in groups
    ]
    orders = [_order(*pair) for pair in zip(groups, scores, strict=True)]
    if not ranked:
        return [Queue(*pair) for pair in zip(groups, orders, strict=True)]
    return _ranked(channels, aim, groups, scores, orders)


def _ranked(
    channels: Channels,
    aim: Aim,
    groups: list[Group],
    scores: list[np.ndarray],
    orders: list[np.ndarray],
) -> list[Queue]:
    """Return queues in which a channel's turn comes by what it matters for what it costs."""
    orders = [
        order[: len(group) - max(1, round(LEAST * len(group)))]
        for group, order in zip(groups, orders, strict=True)
    ]
    # What a channel costs beside all its neighbours: as one of them goes, another costs less.
    costs = [1.0 - cost_left(channels, group.channels[:1], cost=aim.cost) for group in groups]
    worth = [of[order] / cost for of, order, cost in zip(scores, orders, costs, strict=True)]
    everyone = np.sort(np.concatenate([np.zeros(0), *worth]))
    turns = [np.searchsorted(everyone, mine) / len(everyone) for mine in worth]
    return [Queue(*parts) for parts in zip(groups, orders, turns, strict=True)]


def _order(group: Group, scores: np.ndarray) -> np.ndarray:
    """Return the places of the channels that may go, the least first.

    The best of each layer is not among them: where outputs are joined side by side and added to
    others, the least of the group may be all that one layer makes.
    """
    owned = [places[places >= 0] for places in group.places]
    best = {int(places[scores[places].argmax()]) for places in owned}
    return np.array([place for place in scores.argsort(kind="stable") if place not in best], int)


def _step(channels: int, multiple: int) -> int:
    """Return what a group keeps a multiple of."""
    return multiple if channels >= 2 * multiple else 1


def _counts(queues: list[Queue], share: float, multiple: int) -> list[int]:
    """Return how many of each group stay."""
    counts = []
    for queue in queues:
        whole = len(queue.group)
        step = _step(whole, multiple)
        counts.append(min(whole, max(step, step * round(queue.staying(share) * whole / step))))
    return counts


def _wider(queues: list[Queue], counts: list[int], place: int, multiple: int) -> list[int]:
    whole = len(queues[place].group)
    more = min(whole, counts[place] + _step(whole, multiple))
    return [*counts[:place], more, *counts[place + 1 :]]


def _gone(queues: list[Queue], counts: list[int]) -> np.ndarray:
    lost = [
        queue.group.channels[queue.order[: len(queue.group) - stay]]
        for queue, stay in zip(queues, counts, strict=True)
    ]
    return np.concatenate([np.zeros(0, int), *lost])


def _widest(left: Callable[[float], float], aim: Aim, model: keras.Model) -> float:
    """Return the largest share of the channels that leaves no more than the aim."""
    least, most = 0.0, 1.0
    if (fewest := left(least)) > aim.share:
        mend = "Give a higher one." if fewest < 1 else "Choose another technique."
        raise InputError(
            f"`{aim.cost}` must be a share that pruning can leave. Received: {aim.cost}="
            f"{aim.share!r}, and with the fewest channels {model.name!r} has {fewest:.3f} of its "
            f"own. {mend}"
        )
    # A smaller share loses all that a larger one does, so what is left only falls with it.
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        least, most = (middle, most) if left(middle) <= aim.share else (least, middle)
    return least
