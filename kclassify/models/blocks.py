"""The pieces that the networks share."""

import math
from dataclasses import dataclass

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number, is_whole

runtime.prepare()

import keras  # noqa: E402

ACTIVATIONS = (
    "elu", "gelu", "hard_silu", "leaky_relu", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "softplus", "tanh",
)  # fmt: skip
INITIALIZERS = (
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "lecun_uniform",
    "orthogonal", "random_normal", "random_uniform", "truncated_normal",
)  # fmt: skip
NORMALIZATIONS = ("batch", "group", "layer", "none")
# Wu and He 2018 found 16 channels a group as good as any other number.
CHANNELS_PER_GROUP = 16
LOGITS = "logits"


@dataclass(frozen=True)
class Style:
    """What the hidden layers of one network have in common; it checks itself when it is made."""

    activation: str = "relu"
    normalization: str = "batch"
    kernel_initializer: str = "he_normal"

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        check_choice("kernel_initializer", self.kernel_initializer, INITIALIZERS)


def check_whole(argument: str, value: object, *, least: int = 1) -> None:
    """Raise `InputError` unless `value` is an integer of at least `least`."""
    expected = f"a whole number of at least {least}"
    check_number(argument, value, expected=expected, ok=is_whole(value, least=least))


def check_dropout(dropout: object) -> None:
    """Raise `InputError` unless `dropout` is a share of the units, and not all of them."""
    number = isinstance(dropout, int | float) and not isinstance(dropout, bool)
    ok = number and 0 <= dropout < 1  # type: ignore[operator]
    check_number("dropout", dropout, expected="a number of at least 0 and below 1", ok=ok)


def check_depth(argument: str, depth: int, input_shape: tuple[int, int, int]) -> None:
    """Raise `InputError` where `depth` stages halve an image to less than a pixel."""
    height, width, _ = input_shape
    deepest = (min(height, width) - 1).bit_length()
    if depth > deepest:
        raise InputError(
            f"`{argument}` must be at most {deepest} stages for images of {height}x{width}, which "
            f"each stage halves. Received: {depth} stages. Take fewer, or enlarge the images with "
            "`image_size`."
        )


def image_inputs(
    input_shape: tuple[int, int, int],
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the input of uint8 images, and the same images rescaled to [-1, 1]."""
    inputs = keras.Input(input_shape, dtype="uint8", name="images")
    return inputs, keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)


def conv(
    x: keras.KerasTensor, filters: int, style: Style, *, kernel_size: int = 3, strides: int = 1
) -> keras.KerasTensor:
    """Convolve; there is a bias only where no normalization has one of its own."""
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=style.normalization == "none",
        kernel_initializer=style.kernel_initializer,
    )(x)


def norm(x: keras.KerasTensor, style: Style) -> keras.KerasTensor:
    """Normalize as `style` says."""
    if style.normalization == "batch":
        # Keras's own momentum of 0.99 lags behind in trainings of a few hundred steps.
        return keras.layers.BatchNormalization(momentum=0.9)(x)
    if style.normalization == "layer":
        return keras.layers.LayerNormalization()(x)
    if style.normalization == "group":
        channels = x.shape[-1]
        groups = math.gcd(channels, max(1, channels // CHANNELS_PER_GROUP))
        return keras.layers.GroupNormalization(groups)(x)
    return x


def norm_act(x: keras.KerasTensor, style: Style) -> keras.KerasTensor:
    """Normalize, then activate."""
    return keras.layers.Activation(style.activation)(norm(x, style))


def conv_norm_act(
    x: keras.KerasTensor, filters: int, style: Style, *, kernel_size: int = 3, strides: int = 1
) -> keras.KerasTensor:
    """Convolve, normalize, activate."""
    return norm_act(conv(x, filters, style, kernel_size=kernel_size, strides=strides), style)


def logits(x: keras.KerasTensor, num_classes: int, *, dropout: float = 0.0) -> keras.KerasTensor:
    """Return the outputs of a network: one float32 logit a class, under mixed precision too."""
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    return keras.layers.Dense(num_classes, dtype="float32", name=LOGITS)(x)
