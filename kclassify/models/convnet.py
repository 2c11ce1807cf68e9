"""A plain network of convolutions and poolings: plain, and each part can be changed."""

from collections.abc import Sequence

from kclassify import runtime
from kclassify.models.blocks import (
    Style,
    check_depth,
    check_dropout,
    check_whole,
    conv,
    conv_norm_act,
    image_inputs,
    logits,
    norm_act,
)

runtime.prepare()

import keras  # noqa: E402


def convnet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filters: int | Sequence[int] = 32,
    depth: int = 3,
    kernel_size: int = 3,
    activation: str = "relu",
    normalization: str = "batch",
    dropout: float = 0.0,
    kernel_initializer: str = "he_normal",
    dense_units: int | None = None,
) -> keras.Model:
    """Build stages of two convolutions, each twice as wide as the one before and half as large.

    The pooling stands straight after a stage's first convolution (as in Jordan 2024), so the
    second works on a quarter of the pixels.

    Args:
        input_shape: ``(height, width, channels)``.
        num_classes: how many logits.
        filters: width of the first stage; or the widths of all, and then `depth` is not used.
        depth: number of stages.
        kernel_size: height and width of every kernel.
        activation: of every hidden layer.
        normalization: ``"batch"``, ``"layer"``, ``"group"`` or ``"none"``.
        dropout: share of the features that are dropped before the last layer.
        kernel_initializer: of every kernel but the last layer's.
        dense_units: width of a hidden dense layer before the last; None leaves it out.

    Returns:
        A model from uint8 images to logits.

    Raises:
        InputError: a value is not what its argument takes, or `depth` halves too small an image.

    Example:
        >>> from kclassify.models.convnet import convnet
        >>> convnet((8, 8, 1), 10, filters=8, depth=2).output_shape
        (None, 10)
    """
    style = Style(activation, normalization, kernel_initializer)
    widths = _widths(filters, depth)
    check_whole("kernel_size", kernel_size)
    check_dropout(dropout)
    if dense_units is not None:
        check_whole("dense_units", dense_units)
    check_depth("depth", len(widths), input_shape)
    inputs, x = image_inputs(input_shape)
    for width in widths:
        x = _stage(x, width, style, kernel_size=kernel_size)
    x = keras.layers.GlobalMaxPooling2D()(x)
    if dense_units:
        x = _dense(x, dense_units, style)
    return keras.Model(inputs, logits(x, num_classes, dropout=dropout), name="convnet")


def _widths(filters: int | Sequence[int], depth: int) -> list[int]:
    check_whole("depth", depth)
    if isinstance(filters, list | tuple) and filters:
        for width in filters:
            check_whole("filters", width)
        return list(filters)
    check_whole("filters", filters)
    return [filters * 2**stage for stage in range(depth)]


def _stage(
    x: keras.KerasTensor, filters: int, style: Style, *, kernel_size: int
) -> keras.KerasTensor:
    x = conv(x, filters, style, kernel_size=kernel_size)
    # "same" would keep the last row and column of an odd size, which only small ones need.
    padding = "same" if min(x.shape[1:3]) < 4 else "valid"
    x = keras.layers.MaxPooling2D(2, padding=padding)(x)
    return conv_norm_act(norm_act(x, style), filters, style, kernel_size=kernel_size)


def _dense(x: keras.KerasTensor, units: int, style: Style) -> keras.KerasTensor:
    return keras.layers.Dense(
        units, activation=style.activation, kernel_initializer=style.kernel_initializer
    )(x)
