"""The backbones of keras.applications, each fed what it was trained on: for transfer learning."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number
from kclassify.models.blocks import check_dropout, logits

runtime.prepare()

import keras  # noqa: E402

BACKBONES = tuple(name for name in dir(keras.applications) if name[0].isupper())
POOLINGS = ("avg", "max")
# Of ImageNet, in red, green, blue; for pixels in [0, 1] and, for Caffe's networks, in [0, 255].
MEAN = (0.485, 0.456, 0.406)
VARIANCE = (0.229**2, 0.224**2, 0.225**2)
CAFFE_MEAN = (123.68, 116.779, 103.939)


def _unscaled(x: keras.KerasTensor) -> keras.KerasTensor:
    """Only make floats of the pixels: the backbone begins with its own rescaling."""
    return keras.layers.Rescaling(1.0)(x)


def _symmetric(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)


def _standardized(x: keras.KerasTensor) -> keras.KerasTensor:
    x = keras.layers.Rescaling(1 / 255)(x)
    return keras.layers.Normalization(mean=MEAN, variance=VARIANCE)(x)


def _caffe(x: keras.KerasTensor) -> keras.KerasTensor:
    x = keras.layers.Rescaling(1.0)(x)
    x = keras.layers.Normalization(mean=CAFFE_MEAN, variance=(1.0, 1.0, 1.0))(x)
    return keras.ops.flip(x, axis=-1)  # to blue, green, red


@dataclass(frozen=True)
class Family:
    """What the backbones of one module of keras.applications have in common."""

    scaling: Callable[[keras.KerasTensor], keras.KerasTensor]
    smallest: int = 32


FAMILIES = {
    "convnext": Family(_unscaled),
    "densenet": Family(_standardized),
    "efficientnet": Family(_unscaled),
    "efficientnet_v2": Family(_unscaled),
    "inception_resnet_v2": Family(_symmetric, smallest=75),
    "inception_v3": Family(_symmetric, smallest=75),
    "mobilenet": Family(_symmetric),
    "mobilenet_v2": Family(_symmetric),
    "mobilenet_v3": Family(_unscaled),
    "nasnet": Family(_symmetric),
    "resnet": Family(_caffe),
    "resnet_v2": Family(_symmetric),
    "vgg16": Family(_caffe),
    "vgg19": Family(_caffe),
    "xception": Family(_symmetric, smallest=71),
}


def application(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    backbone: str = "MobileNetV2",
    weights: str | os.PathLike[str] | None = None,
    trainable: bool = True,
    pooling: str = "avg",
    dropout: float = 0.0,
) -> keras.Model:
    """Build a backbone of keras.applications with a new last layer.

    The scaling that the backbone was trained with is part of the model. Grey images are repeated
    to three channels.

    Args:
        input_shape: ``(height, width, channels)`` with 1 or 3 channels, at least 32x32 (71x71
            or 75x75 for the Xception and Inception backbones).
        num_classes: how many logits.
        backbone: a name in `keras.applications`.
        weights: None for random ones, ``"imagenet"`` to download them, or the path of a file.
            EfficientNetB0 to B7 take the official file only by ``"imagenet"``: given a path,
            Keras leaves out a rescaling which that file needs.
        trainable: whether the backbone learns too; if not, it also runs as in inference.
        pooling: ``"avg"`` or ``"max"``, over height and width.
        dropout: share of the features that are dropped before the last layer.

    Returns:
        A model from uint8 images to logits.

    Raises:
        InputError: a value is not what its argument takes, or the weights cannot be had.

    Example:
        >>> from kclassify.models.application import application
        >>> application((32, 32, 1), 2, backbone="MobileNetV3Small").output_shape
        (None, 2)
    """
    check_choice("backbone", backbone, BACKBONES)
    check_choice("pooling", pooling, POOLINGS)
    check_number("trainable", trainable, expected="True or False", ok=isinstance(trainable, bool))
    check_dropout(dropout)
    family = FAMILIES[getattr(keras.applications, backbone).__module__.split(".")[-1]]
    _check_input_shape(input_shape, backbone, smallest=family.smallest)
    base = _load(backbone, weights, input_shape=(*input_shape[:2], 3), pooling=pooling)
    base.trainable = trainable
    inputs = keras.Input(input_shape, dtype="uint8", name="images")
    x = keras.layers.Concatenate()([inputs] * 3) if input_shape[-1] == 1 else inputs
    x = base(family.scaling(x)) if trainable else base(family.scaling(x), training=False)
    return keras.Model(inputs, logits(x, num_classes, dropout=dropout), name="application")


def _check_input_shape(input_shape: tuple[int, int, int], backbone: str, *, smallest: int) -> None:
    if min(input_shape[:2]) < smallest or input_shape[-1] not in (1, 3):
        raise InputError(
            f"`input_shape` must be at least {smallest}x{smallest} with 1 or 3 channels for "
            f"{backbone!r}. Received: input_shape={input_shape}. "
            "Set `image_size` and `channels`, or choose another backbone."
        )


def _load(backbone: str, weights: str | os.PathLike[str] | None, **options: object) -> keras.Model:
    build = getattr(keras.applications, backbone)
    if weights is None:
        return build(include_top=False, weights=None, **options)
    try:
        return build(include_top=False, weights=os.fspath(weights), **options)
    except Exception as error:  # Keras raises a bare Exception where a download fails.
        raise InputError(
            "`weights` must be None, 'imagenet' (which is downloaded), or the path of a weights "
            f"file of {backbone} without its top. Received: weights={str(weights)!r} "
            f"({_first_line(error)}). Pass the path of a local file."
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
