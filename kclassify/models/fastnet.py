"""The network of the CIFAR-10 speed records (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds")."""

from collections.abc import Sequence

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.blocks import Style, check_depth, check_whole, image_inputs, logits
from kclassify.models.whitening import whitening_layer

runtime.prepare()

import keras  # noqa: E402


def fastnet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filters: Sequence[int] = (64, 256, 256),
    activation: str = "relu",
) -> keras.Model:
    """Build a frozen whitening layer, then stages of two convolutions that start as the identity.

    A stage is convolution, pooling, normalization, activation, convolution, normalization,
    activation. Departures from the paper: the whitening layer has no bias, the activation is the
    cheaper ReLU, the last pooling is over the whole image, so that any size can be had, and the
    logits are not scaled down. Its presets train kernels by Muon and all else, such as the biases
    of normalization, by Adam at a twentieth of that rate, which falls from the first step on; the
    paper has Nesterov momentum, 64 times the rate for those biases, and a rise.

    Args:
        input_shape: ``(height, width, channels)``.
        num_classes: how many logits.
        filters: the width of each stage; each halves the image.
        activation: of every hidden layer.

    Returns:
        A model from uint8 images to logits. `fit` sets its whitening layer from the training
        images (`set_whitening`); where `fit` is not used, it stays random.

    Raises:
        InputError: a value is not what its argument takes, or the stages halve too small an image.

    Example:
        >>> from kclassify.models.fastnet import fastnet
        >>> fastnet((8, 8, 3), 10, filters=(8, 16)).output_shape
        (None, 10)
    """
    style = Style(activation=activation)
    widths = _widths(filters)
    check_depth("filters", len(widths), input_shape)
    inputs, x = image_inputs(input_shape)
    x = keras.layers.Activation(style.activation)(whitening_layer(input_shape[2])(x))
    for width in widths:
        x = keras.layers.MaxPooling2D(2, padding="same")(_conv(x, width))
        x = _norm_act(x, style)
        x = _norm_act(_conv(x, width), style)
    x = keras.layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, logits(x, num_classes), name="fastnet")


def _widths(filters: object) -> list[int]:
    if not isinstance(filters, list | tuple) or not filters:
        raise InputError(
            f"`filters` must be the widths of the stages, such as (64, 256, 256). "
            f"Received: filters={filters!r}."
        )
    for width in filters:
        check_whole("filters", width)
    return list(filters)


def _conv(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Convolve, at first passing on as many of the channels as there is room for."""
    layer = keras.layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
    )
    x = layer(x)
    kernel = np.array(layer.kernel)
    passed = min(kernel.shape[2:])
    kernel[..., :passed] = 0.0
    kernel[1, 1, range(passed), range(passed)] = 1.0
    layer.kernel.assign(kernel)
    return x


def _norm_act(x: keras.KerasTensor, style: Style) -> keras.KerasTensor:
    """Normalize with quick statistics, for trainings of a few hundred steps, and activate."""
    x = keras.layers.BatchNormalization(scale=False, momentum=0.6)(x)
    return keras.layers.Activation(style.activation)(x)
