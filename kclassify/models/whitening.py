"""A first layer that makes neighbouring pixels uncorrelated, so that training starts further on."""

import numpy as np

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402

NAME = "whitening"
PATCH = 2
# Added to the eigenvalues, for pixels in [-1, 1]: directions that hardly vary are not blown up.
EPSILON = 5e-4


def whitening_layer(channels: int) -> keras.layers.Layer:
    """Return a frozen convolution with two filters, one the other's negative, a patch direction."""
    return keras.layers.Conv2D(
        2 * PATCH * PATCH * channels, PATCH, use_bias=False, trainable=False, name=NAME
    )


def has_whitening(model: keras.Model) -> bool:
    """Tell whether a network begins with a whitening layer."""
    return any(layer.name == NAME for layer in model.layers)


def set_whitening(model: keras.Model, images: np.ndarray) -> None:
    """Set the whitening layer of `model` to whiten the patches of `images`.

    The filters are the eigenvectors of the covariance of 2x2 patches, each divided by the root of
    its eigenvalue (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", after Page 2018).

    Args:
        model: a network of `kclassify.models` that has one.
        images: uint8 ``(n, height, width, channels)``, training images; some thousand are enough.

    Example:
        >>> import numpy as np
        >>> from kclassify.models.registry import build_model
        >>> from kclassify.models.whitening import set_whitening
        >>> model = build_model("fastnet", input_shape=(8, 8, 1), num_classes=2)
        >>> images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), "uint8")
        >>> set_whitening(model, images)
        >>> model.get_layer("whitening").kernel.shape
        (2, 2, 1, 8)
    """
    kernel = whitening_kernel(images)
    model.get_layer(NAME).set_weights([np.concatenate([kernel, -kernel], axis=-1)])


def whitening_kernel(images: np.ndarray) -> np.ndarray:
    """Return ``(2, 2, channels, 4 * channels)`` filters whose answers on `images` are white."""
    pixels = images.astype(np.float32) / 127.5 - 1.0
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (PATCH, PATCH), axis=(1, 2))
    # To the order of a convolution's kernel: height, width, channels.
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, PATCH * PATCH * images.shape[-1])
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    filters = eigenvectors / np.sqrt(eigenvalues + EPSILON)
    return filters.reshape(PATCH, PATCH, images.shape[-1], -1).astype(np.float32)
