"""The identity of the weights: what is exported can be shown to be what was measured."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def copy_weights(model: "keras.Model", copy: "keras.Model") -> None:
    """Give a copy the weights of a model, and what its layers make of them."""
    copy.set_weights(model.get_weights())
    follow_weights(copy)


def follow_weights(model: "keras.Model") -> None:
    """Have layers that keep numbers made of their weights, as `Normalization`, make them anew.

    Keras does that where it loads a file, and not in `set_weights`.
    """
    for layer in model.layers:
        if hasattr(layer, "layers"):
            follow_weights(layer)
        elif hasattr(layer, "finalize_state"):
            layer.finalize_state()


def weights_hash(model: "keras.Model") -> str:
    """Return the SHA-256 of a model's weights: shapes, dtypes and bytes, in the model's order.

    Names are left out, because Keras numbers layers anew in every process. So is the state of
    random layers, which is not a weight and which no file format keeps.

    Args:
        model: a built Keras model.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> import keras
        >>> layer = keras.layers.Dense(2, kernel_initializer="ones")
        >>> model = keras.Sequential([keras.Input((3,)), layer])
        >>> weights_hash(model) == weights_hash(keras.models.clone_model(model))
        True
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        value = weight.numpy()
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
