"""Residual networks for small images (He et al. 2016, section 4.2)."""

from kclassify import runtime
from kclassify.checks import check_number
from kclassify.models.blocks import (
    Style,
    check_dropout,
    check_whole,
    conv,
    conv_norm_act,
    image_inputs,
    logits,
    norm,
)

runtime.prepare()

import keras  # noqa: E402

DEPTHS = tuple(range(8, 111, 6))


def resnet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    depth: int = 20,
    filters: int = 16,
    activation: str = "relu",
    normalization: str = "batch",
    dropout: float = 0.0,
    kernel_initializer: str = "he_normal",
) -> keras.Model:
    """Build the CIFAR form: three stages of ``(depth - 2) / 6`` blocks of two convolutions.

    Where a block changes the shape, its shortcut is a convolution of 1x1 (option B). The paper
    pads with zeros there (option A), which has 2,752 fewer trainable parameters at the defaults.

    Args:
        input_shape: ``(height, width, channels)``.
        num_classes: how many logits.
        depth: 6n + 2, from 8 to 110.
        filters: width of the first stage; the second and third double it.
        activation: of every hidden layer.
        normalization: ``"batch"``, ``"layer"``, ``"group"`` or ``"none"``.
        dropout: share of the features that are dropped before the last layer.
        kernel_initializer: of every kernel but the last layer's.

    Returns:
        A model from uint8 images to logits.

    Raises:
        InputError: a value is not what its argument takes.

    Example:
        >>> from kclassify.models.resnet import resnet
        >>> resnet((32, 32, 3), 10, depth=8).output_shape
        (None, 10)
    """
    style = Style(activation, normalization, kernel_initializer)
    expected = f"6n + 2, from 8 to 110: one of {list(DEPTHS)}"
    check_number("depth", depth, expected=expected, ok=depth in DEPTHS)
    check_whole("filters", filters)
    check_dropout(dropout)
    inputs, x = image_inputs(input_shape)
    x = conv_norm_act(x, filters, style)
    for stage in range(3):
        for block in range((depth - 2) // 6):
            strides = 2 if stage and not block else 1
            x = _block(x, filters * 2**stage, style, strides=strides)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, logits(x, num_classes, dropout=dropout), name="resnet")


def _block(x: keras.KerasTensor, filters: int, style: Style, *, strides: int) -> keras.KerasTensor:
    shortcut = x
    if strides != 1:
        shortcut = norm(conv(x, filters, style, kernel_size=1, strides=strides), style)
    x = conv_norm_act(x, filters, style, strides=strides)
    x = norm(conv(x, filters, style), style)
    x = keras.layers.Add()([x, shortcut])
    return keras.layers.Activation(style.activation)(x)
