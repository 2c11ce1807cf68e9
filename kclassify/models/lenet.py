"""The network of PyTorch's CIFAR-10 tutorial, after LeNet-5 (LeCun et al. 1998)."""

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.blocks import Style, image_inputs, logits

runtime.prepare()

import keras  # noqa: E402

SMALLEST = 16


def lenet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    activation: str = "relu",
    kernel_initializer: str = "glorot_uniform",
) -> keras.Model:
    """Build the tutorial's network: 62,006 parameters at 32x32x3 and 10 classes.

    The initial weights are Keras's, not PyTorch's, and the flattened features are in another
    order, which changes nothing that is learned.

    Args:
        input_shape: ``(height, width, channels)``, at least 16x16.
        num_classes: how many logits.
        activation: of every hidden layer.
        kernel_initializer: of every kernel but the last layer's.

    Returns:
        A model from uint8 images to logits.

    Raises:
        InputError: the image is too small, or a name is not known.

    Example:
        >>> from kclassify.models.lenet import lenet
        >>> lenet((32, 32, 3), 10).count_params()
        62006
    """
    Style(activation=activation, kernel_initializer=kernel_initializer)
    if min(input_shape[:2]) < SMALLEST:
        raise InputError(
            f"`input_shape` must be at least {SMALLEST}x{SMALLEST} for 'lenet', whose "
            f"convolutions are not padded. Received: input_shape={input_shape}. "
            "Enlarge the images with `image_size`, or choose 'convnet'."
        )
    options = {"activation": activation, "kernel_initializer": kernel_initializer}
    inputs, x = image_inputs(input_shape)
    for filters in (6, 16):
        x = keras.layers.Conv2D(filters, 5, **options)(x)
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    for units in (120, 84):
        x = keras.layers.Dense(units, **options)(x)
    return keras.Model(inputs, logits(x, num_classes), name="lenet")
