"""The form of a network that is trained: the same weights, through faster kernels.

Keras 3's BatchNormalization is a dozen operations on TensorFlow, where one kernel does; and a
processor with bfloat16 units multiplies twice as fast in 16 bits. Both matter while training and
neither to what is kept, so a network is built and saved of Keras's own float32 layers, and `fit`
trains a copy.
"""

from typing import Any

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.blocks import LOGITS
from kclassify.models.weights import copy_weights

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import ops  # noqa: E402

from kclassify.models.synchronized import normalized  # noqa: E402

# Where channels are no whole vectors of 16, the kernel takes 5 to 20 times as long in bfloat16:
# converting to float32 and back is quicker.
VECTOR = 16


def fuse(layer: keras.layers.BatchNormalization) -> None:
    """Have `layer` call TensorFlow's fused kernel.

    It stays Keras's own in class, weights, config and answers, so it is saved as Keras's own. What
    the kernel cannot do, such as normalizing vectors, is left to Keras.

    Example:
        >>> import keras
        >>> from kclassify.models.training_form import fuse
        >>> layer = keras.layers.BatchNormalization()
        >>> fuse(layer)
        >>> layer(keras.ops.ones((2, 4, 4, 3)), training=True).shape
        TensorShape([2, 4, 4, 3])
    """
    otherwise = layer.call

    def call(inputs, training=None, mask=None):
        if len(inputs.shape) != 4 or layer.axis not in (-1, 3) or mask is not None:
            return otherwise(inputs, training=training, mask=mask)
        return _fused(layer, inputs, learning=bool(training) and layer.trainable)

    layer.call = call


def _fused(layer: keras.layers.BatchNormalization, inputs, *, learning: bool):
    dtype = inputs.dtype
    if dtype == tf.bfloat16 and inputs.shape[-1] % VECTOR:
        inputs = tf.cast(inputs, tf.float32)
    scale, offset = _vector(layer, layer.gamma, 1.0), _vector(layer, layer.beta, 0.0)
    if learning and _several_replicas():
        outputs, mean, variance = normalized(inputs, scale, offset, epsilon=layer.epsilon)
        _move(layer, mean, variance)
        return tf.cast(outputs, dtype)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=scale,
        offset=offset,
        mean=[] if learning else layer.moving_mean,
        variance=[] if learning else layer.moving_variance,
        epsilon=layer.epsilon,
        is_training=learning,
    )
    if learning:
        _update_statistics(layer, inputs, mean, variance)
    return tf.cast(outputs, dtype)


def _vector(layer: keras.layers.BatchNormalization, weight, otherwise: float):
    if weight is None:
        return tf.fill(layer.moving_mean.shape, otherwise)
    return ops.cast(weight, "float32")


def _update_statistics(layer: keras.layers.BatchNormalization, inputs, mean, variance) -> None:
    count = ops.cast(tf.size(inputs) // inputs.shape[-1], "float32")
    # The kernel divides by count - 1, Keras by count.
    _move(layer, mean, variance * (count - 1.0) / count)


def _several_replicas() -> bool:
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def _move(layer: keras.layers.BatchNormalization, mean, variance) -> None:
    for moving, found in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + found * (1.0 - layer.momentum))


def training_form(
    model: keras.Model, *, policy: str = "float32", any_size: bool = False
) -> keras.Model:
    """Return a copy of `model` for training, with weights of its own that start as the model's.

    Args:
        model: a functional model of Keras's own layers.
        policy: the dtype policy of every layer but the last, such as ``"mixed_bfloat16"``.
        any_size: whether the copy takes images of any height and width.

    Returns:
        A model with the same weights in the same order; `set_weights` brings them back.

    Raises:
        InputError: a layer's weights depend on the size, and it should be any.

    Example:
        >>> from kclassify.models.registry import build_model
        >>> from kclassify.models.training_form import training_form
        >>> model = build_model("convnet", input_shape=(8, 8, 1), num_classes=2, depth=2)
        >>> fast = training_form(model)
        >>> model.set_weights(fast.get_weights())
    """

    def converted(layer: Any) -> Any:
        if isinstance(layer, keras.Model) or not isinstance(layer, keras.Layer):
            return layer
        copied = type(layer).from_config(layer.get_config() | _dtype(layer, policy))
        if type(layer) is keras.layers.BatchNormalization:
            fuse(copied)
        return copied

    inputs = keras.Input((None, None, model.input_shape[-1]), dtype="uint8") if any_size else None
    try:
        copy = keras.models.clone_model(
            model, clone_function=converted, recursive=True, input_tensors=inputs
        )
        copy_weights(model, copy)
    except ValueError as error:
        if not any_size:
            raise
        raise InputError(
            f"`progressive` must be None for {model.name!r}, whose weights depend on the images' "
            "size. Leave it out, or choose another model."
        ) from error
    return copy


def _dtype(layer: keras.Layer, policy: str) -> dict[str, Any]:
    # 8 bits of mantissa are too few for logits, and for differences between pixels.
    kept = layer.name == LOGITS or isinstance(layer, keras.layers.Rescaling)
    return {} if kept else {"dtype": policy}
