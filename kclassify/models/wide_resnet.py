"""Wide residual networks (Zagoruyko and Komodakis 2016)."""

from kclassify import runtime
from kclassify.checks import check_number, is_whole
from kclassify.models.blocks import (
    Style,
    check_dropout,
    check_whole,
    conv,
    image_inputs,
    logits,
    norm_act,
)

runtime.prepare()

import keras  # noqa: E402

STYLE = Style(activation="relu", normalization="batch", kernel_initializer="he_normal")


def wide_resnet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    depth: int = 16,
    width: int = 4,
    dropout: float = 0.0,
) -> keras.Model:
    """Build three stages of ``(depth - 4) / 6`` pre-activated blocks: WRN-`depth`-`width`.

    Args:
        input_shape: ``(height, width, channels)``.
        num_classes: how many logits.
        depth: 6n + 4, from 10.
        width: by how much the stages are wider than 16, 32 and 64.
        dropout: share of the features that are dropped between a block's two convolutions.

    Returns:
        A model from uint8 images to logits.

    Raises:
        InputError: a value is not what its argument takes.

    Example:
        >>> from kclassify.models.wide_resnet import wide_resnet
        >>> wide_resnet((32, 32, 3), 10, depth=10, width=1).output_shape
        (None, 10)
    """
    ok = is_whole(depth, least=10) and depth % 6 == 4
    check_number("depth", depth, expected="6n + 4: one of 10, 16, 22, 28, 34, 40, ...", ok=ok)
    check_whole("width", width)
    check_dropout(dropout)
    inputs, x = image_inputs(input_shape)
    x = conv(x, 16, STYLE)
    for stage in range(3):
        for block in range((depth - 4) // 6):
            strides = 2 if stage and not block else 1
            x = _block(x, 16 * width * 2**stage, strides=strides, dropout=dropout)
    x = keras.layers.GlobalAveragePooling2D()(norm_act(x, STYLE))
    return keras.Model(inputs, logits(x, num_classes), name="wide_resnet")


def _block(
    x: keras.KerasTensor, filters: int, *, strides: int, dropout: float
) -> keras.KerasTensor:
    shortcut = x
    x = norm_act(x, STYLE)
    if strides != 1 or shortcut.shape[-1] != filters:
        # Only here does the shortcut start after the activation, as in the authors' own code.
        shortcut = conv(x, filters, STYLE, kernel_size=1, strides=strides)
    x = norm_act(conv(x, filters, STYLE, strides=strides), STYLE)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    return keras.layers.Add()([conv(x, filters, STYLE), shortcut])
