"""The networks by name. A new one is one module and one line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kclassify.checks import InputError, check_choice, check_number, is_whole, nearest

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Model:
    """A network that `build_model` knows.

    Attributes:
        builder: ``"module:function"``, imported only when the network is built.
        arguments: the names of the builder's own keyword arguments.
        description: one line for `kclassify models`.
    """

    builder: str
    arguments: tuple[str, ...]
    description: str


MODELS: dict[str, Model] = {
    "lenet": Model(
        builder="kclassify.models.lenet:lenet",
        arguments=("activation", "kernel_initializer"),
        description="two convolutions and three dense layers: the tutorial's network",
    ),
    "convnet": Model(
        builder="kclassify.models.convnet:convnet",
        arguments=(
            "filters",
            "depth",
            "kernel_size",
            "activation",
            "normalization",
            "dropout",
            "kernel_initializer",
            "dense_units",
        ),
        description="stages of two convolutions and a pooling",
    ),
    "fastnet": Model(
        builder="kclassify.models.fastnet:fastnet",
        arguments=("filters", "activation"),
        description="whitened, starts as the identity; the quickest to a good result",
    ),
    "resnet": Model(
        builder="kclassify.models.resnet:resnet",
        arguments=(
            "depth",
            "filters",
            "activation",
            "normalization",
            "dropout",
            "kernel_initializer",
        ),
        description="residual network for small images, 8 to 110 layers (He et al. 2016)",
    ),
    "wide_resnet": Model(
        builder="kclassify.models.wide_resnet:wide_resnet",
        arguments=("depth", "width", "dropout"),
        description="fewer and wider residual layers (Zagoruyko and Komodakis 2016)",
    ),
    "application": Model(
        builder="kclassify.models.application:application",
        arguments=("backbone", "weights", "trainable", "pooling", "dropout"),
        description="any backbone of keras.applications, new or pretrained",
    ),
}


def build_model(
    name: str, *, input_shape: tuple[int, int, int], num_classes: int, **arguments: Any
) -> "keras.Model":
    """Build an untrained network that takes uint8 images and gives logits.

    The rescaling of pixels is inside, so the model is fed images as they are.

    Args:
        name: one of `MODELS`.
        input_shape: ``(height, width, channels)``.
        num_classes: how many logits, at least 2.
        **arguments: the network's own, such as ``depth=20``; `MODELS` lists them.

    Returns:
        A functional model from uint8 ``(batch_size, height, width, channels)`` to float32
        logits ``(batch_size, num_classes)``, made of Keras's own layers alone.

    Raises:
        InputError: an unknown name or argument, or a value that the network does not take.

    Example:
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("lenet", input_shape=(32, 32, 3), num_classes=10)
        >>> model.count_params()
        62006
    """
    check_choice("model", name, MODELS)
    _check_arguments(name, arguments)
    _check_shapes(input_shape, num_classes)
    module, function = MODELS[name].builder.split(":")
    builder = getattr(import_module(module), function)
    shape = tuple(int(size) for size in input_shape)
    return builder(shape, int(num_classes), **arguments)


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    known = MODELS[name].arguments
    for argument, value in arguments.items():
        if argument not in known:
            raise InputError(
                f"`{argument}` must be an argument of {name!r}, which takes {sorted(known)}. "
                f"Received: {argument}={value!r}.{nearest(argument, known)}"
            )


def _check_shapes(input_shape: object, num_classes: object) -> None:
    sizes = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    check_number(
        "input_shape",
        input_shape,
        expected="(height, width, channels), three whole numbers of at least 1",
        ok=len(sizes) == 3 and all(is_whole(size, least=1) for size in sizes),
    )
    check_number(
        "num_classes",
        num_classes,
        expected="a whole number of at least 2",
        ok=is_whole(num_classes, least=2),
    )
