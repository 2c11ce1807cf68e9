"""Batch normalization folded into the layer before it: the same answers by fewer operations."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.models.weights import follow_weights

runtime.prepare()

import keras  # noqa: E402

FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Return a copy of `model` for inference, with batch normalizations folded into kernels.

    One is folded where it stands straight after a convolution or a dense layer that has no
    activation and that nothing else uses. A max pooling may stand between them where no channel
    is scaled by less than zero, for then the order makes no difference. The others stay. Nested
    functional models are folded too.

    Args:
        model: a functional model; it is left as it is.

    Returns:
        A functional model with weights of its own, whose logits are the same up to float32's
        rounding. It is not for training: what was folded no longer follows the batches.

    Example:
        >>> from kclassify.models.folding import fold_batch_norm
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("resnet", input_shape=(32, 32, 3), num_classes=10, depth=8)
        >>> len(model.weights), len(fold_batch_norm(model).weights)
        (47, 20)
    """
    norms = {id(layer): norm for layer, norm in _pairs(model)}
    gone = {id(norm) for norm in norms.values()}
    copies: list[tuple[keras.Layer, keras.Layer]] = []

    def copied(layer: Any) -> Any:
        if isinstance(layer, keras.Model) or not isinstance(layer, keras.Layer):
            return layer
        if id(layer) in gone:
            return keras.layers.Identity()
        bias = {"use_bias": True} if id(layer) in norms else {}
        copies.append((layer, type(layer).from_config(layer.get_config() | bias)))
        return copies[-1][1]

    copy = keras.models.clone_model(
        model, clone_function=copied, call_function=_called, recursive=True
    )
    for layer, twin in copies:
        norm = norms.get(id(layer))
        twin.set_weights(_folded(layer, norm) if norm else layer.get_weights())
    follow_weights(copy)
    return copy


def _called(layer: Any, inputs: Any, *args: Any, **options: Any) -> Any:
    """Call a layer of the copy, or leave it out where it does nothing."""
    if isinstance(layer, keras.layers.Identity):
        return inputs
    return layer(inputs, *args, **options)


def _pairs(model: keras.Model) -> Iterator[tuple[keras.Layer, keras.layers.BatchNormalization]]:
    """Find the layers that can take a normalization in, in nested functional models too."""
    operations: dict[str, Any] = {operation.name: operation for operation in model.operations}
    sources, uses = _graph(model.get_config())
    for name, operation in operations.items():
        if isinstance(operation, keras.Model) and hasattr(operation, "operations"):
            yield from _pairs(operation)
        if type(operation) is not keras.layers.BatchNormalization:
            continue
        before: Any = operations.get(_only_source(name, sources, uses))
        pooled = type(before) is keras.layers.MaxPooling2D
        if pooled:
            before = operations.get(_only_source(before.name, sources, uses))
        if _takes_in(before, operation, pooled=pooled):
            yield before, operation


def graph_of(model: keras.Model) -> dict[str, list[str]]:
    """Return the names of the operations that each operation of a functional model reads."""
    return _graph(model.get_config())[0]


def _graph(config: dict[str, Any]) -> tuple[dict[str, list[str]], Counter[str]]:
    """Return what each operation reads, by name, and how often each is read."""
    sources = {layer["name"]: list(_tensors(layer["inbound_nodes"])) for layer in config["layers"]}
    uses = Counter(name for names in sources.values() for name in names)
    uses.update(part for part in keras.tree.flatten(config["output_layers"]))
    return sources, uses


def _tensors(value: Any) -> Iterator[str]:
    """Yield the names of the operations whose outputs a node's arguments hold."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield value["config"]["keras_history"][0]
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _only_source(name: str, sources: dict[str, list[str]], uses: Counter[str]) -> str:
    """Return what `name` reads, if that is one operation that nothing else reads; else nothing."""
    names = sources[name]
    return names[0] if len(names) == 1 and uses[names[0]] == 1 else ""


def _takes_in(layer: Any, norm: keras.layers.BatchNormalization, *, pooled: bool) -> bool:
    if type(layer) not in FOLDABLE or layer.activation is not keras.activations.linear:
        return False
    last = norm.axis == -1 or (norm.axis == 3 and type(layer) is not keras.layers.Dense)
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    float32 = layer.compute_dtype == norm.compute_dtype == "float32"
    commutes = not pooled or bool((_scale(norm) >= 0).all())
    return last and channels_last and float32 and commutes


def _folded(layer: keras.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return the kernel and the bias of a layer that answers as `layer` and `norm` together."""
    kernel, *bias = layer.get_weights()
    scale, beta = _scale(norm), 0.0 if norm.beta is None else np.array(norm.beta)
    shift = (bias[0] if bias else 0.0) - np.array(norm.moving_mean, np.float64)
    # The output channels of a depthwise kernel are its last two axes.
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    channels = kernel.shape[-2:] if depthwise else kernel.shape[-1:]
    return [kernel * scale.reshape(channels), shift * scale + beta]


def _scale(norm: keras.layers.BatchNormalization) -> np.ndarray:
    """Return what each channel is multiplied by, in double precision: it is rounded once."""
    gamma = 1.0 if norm.gamma is None else np.array(norm.gamma, np.float64)
    return gamma / np.sqrt(np.array(norm.moving_variance, np.float64) + norm.epsilon)
