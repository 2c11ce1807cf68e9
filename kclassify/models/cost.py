"""What a network costs: multiply-accumulates and weights."""

import math

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402

# The attributes that hold the kernels of a layer; each is applied at every output position.
KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
COUNTED = (
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def count_macs(model: keras.Model) -> int:
    """Return the multiply-accumulates of one image's way through `model`.

    Convolutions and dense layers are counted, nested models included; what grows with the
    pixels alone, such as normalization and pooling, is not, and neither are biases.

    Args:
        model: a built functional model.

    Returns:
        The number; floating-point operations are about twice as many.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        >>> count_macs(model)  # 6 x 6 positions, kernels of 3 x 3 x 3 x 4
        3888
    """
    return sum(_layer_macs(layer) for layer in model.layers)


def count_parameters(model: keras.Model) -> int:
    """Return the number of weights of `model`, frozen ones and moving statistics included.

    It is the "Total params" of Keras's own summary. PyTorch does not count moving statistics.

    Example:
        >>> import keras
        >>> count_parameters(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
        8
    """
    return sum(math.prod(weight.shape) for weight in model.weights)


def _layer_macs(layer: keras.Layer) -> int:
    if isinstance(layer, keras.Model):
        return count_macs(layer)
    if not isinstance(layer, COUNTED):
        return 0
    positions = math.prod(layer.output.shape[1:-1])
    kernels = [getattr(layer, name, None) for name in KERNELS]
    return positions * sum(math.prod(kernel.shape) for kernel in kernels if kernel is not None)
