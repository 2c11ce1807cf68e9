"""Training that computes as 8-bit integers will: kernels and activations are rounded on the way."""

from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.weights import copy_weights

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.models.folding import FOLDABLE  # noqa: E402

AT_ONCE = 32
# Whose outputs an integer network rounds; a maximum is one of what it gets.
ROUNDED = (*FOLDABLE, keras.layers.Add, keras.layers.Activation, keras.layers.ReLU,
           keras.layers.Rescaling, keras.layers.GlobalAveragePooling2D,
           keras.layers.AveragePooling2D)  # fmt: skip


def quantized_form(model: keras.Model, *, images: np.ndarray) -> keras.Model:
    """Return a copy of a network whose kernels and activations are rounded as in 8 bits.

    Gradients pass the rounding as if it were not there, within the range (Jacob et al. 2018). The
    ranges of activations are fixed, those of kernels follow the weights.

    Args:
        model: a functional model without batch normalization, see `fold_batch_norm`.
        images: uint8, of the training split, whose activations say the ranges.

    Returns:
        A model of Keras's own layers that call otherwise, with the same weights in the same order:
        `set_weights` brings them back.

    Raises:
        InputError: there is a model within the model, whose layers would not be rounded.

    Example:
        >>> import numpy as np
        >>> from kclassify.compression.quantized_training import quantized_form
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("lenet", input_shape=(16, 16, 1), num_classes=2)
        >>> form = quantized_form(model, images=np.zeros((2, 16, 16, 1), np.uint8))
        >>> [w.shape for w in form.get_weights()] == [w.shape for w in model.get_weights()]
        True
    """
    if nested := nested_model(model):
        raise InputError(
            f"`max_drop` must be a loss that {model.name!r} keeps to in 8 bits without training, "
            f"which does not reach into the model {nested!r} within it. Give a higher one, or "
            "scheme='litert_float16'."
        )
    ranges = _ranges(model, images)

    def copied(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model):
            return layer
        copy = type(layer).from_config(layer.get_config())
        if layer.name in ranges:
            _round_outputs(copy, *ranges[layer.name])
        if isinstance(layer, FOLDABLE):
            _round_kernel(copy)
        return copy

    form = keras.models.clone_model(model, clone_function=copied, recursive=True)
    copy_weights(model, form)
    return form


def nested_model(model: keras.Model) -> str | None:
    """Return the name of a model within the model, if there is one."""
    return next((layer.name for layer in model.layers if isinstance(layer, keras.Model)), None)


def _ranges(model: keras.Model, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return the extremes of the outputs that are rounded, by layer."""
    layers = [layer for layer in model.layers if isinstance(layer, ROUNDED)]
    outputs = keras.Model(model.input, [layer.output for layer in layers])
    found = {layer.name: (0.0, 1e-6) for layer in layers}
    # Some at a time: the outputs of all layers are kept.
    for start in range(0, len(images), AT_ONCE):
        values = keras.tree.flatten(outputs(images[start : start + AT_ONCE], training=False))
        for layer, one in zip(layers, values, strict=True):
            low, high = found[layer.name]
            found[layer.name] = min(low, float(np.min(one))), max(high, float(np.max(one)))
    # A layer whose activation stands alone behind it is rounded there, once, as the two are one.
    return {name: ends for name, ends in found.items() if name not in _before_activations(model)}


def _before_activations(model: keras.Model) -> set[str]:
    """Return the layers before a relu: other activations are operations of their own in 8 bits."""
    fused = (keras.activations.relu, keras.activations.relu6)
    names = set()
    for layer in model.layers:
        is_relu = isinstance(layer, keras.layers.Activation) and layer.activation in fused
        if is_relu or isinstance(layer, keras.layers.ReLU):
            names.add(layer.input._keras_history.operation.name)
    return names


def _round_outputs(layer: keras.Layer, low: float, high: float) -> None:
    plain = layer.call

    def call(*arguments, **options):
        outputs = plain(*arguments, **options)
        return tf.quantization.fake_quant_with_min_max_args(outputs, min=low, max=high)

    layer.call = call


def _round_kernel(layer: keras.Layer) -> None:
    """Have a layer compute with its kernel rounded, and learn as if it were not."""
    plain = layer.call
    # Keras keeps it behind a property in most layers.
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    name = "kernel" if depthwise else "_kernel"

    def call(*arguments, **options):
        whole = getattr(layer, name)
        # Not by `setattr`, by which Keras would track what is put there.
        rounded = _rounded(tf.convert_to_tensor(whole), depthwise=depthwise)
        object.__setattr__(layer, name, rounded)
        try:
            return plain(*arguments, **options)
        finally:
            object.__setattr__(layer, name, whole)

    layer.call = call


def _rounded(kernel: tf.Tensor, *, depthwise: bool = False) -> tf.Tensor:
    # The output channels of a depthwise kernel are its last two axes.
    columns = tf.reshape(kernel, (-1, np.prod(kernel.shape[-2:]))) if depthwise else kernel
    axes = list(range(len(columns.shape) - 1))
    most = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(columns), axis=axes), 1e-6))
    # Between -127 and 127, as the kernels of LiteRT and ONNX are.
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        columns, -most, most, narrow_range=True
    )
    return tf.reshape(rounded, kernel.shape)
