"""Opening a `.keras` file as a classifier, or saying why it is none."""

from pathlib import Path

from kclassify import runtime
from kclassify.checks import InputError

runtime.prepare()

import keras  # noqa: E402


def load_keras_file(path: Path) -> keras.Model:
    """Return the model in a `.keras` file, with safe mode on: no code in the file is run.

    Raises:
        InputError: the file is damaged, or its model does not map uint8 images to logits.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises a dozen kinds, by which part of the file is damaged
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"`path` must be a whole .keras file. Received: {str(path)!r}, which Keras cannot "
            f"load ({type(error).__name__}: {reason}). Copy the file again, or train again."
        ) from error
    if not _classifies_images(model):
        raise InputError(
            "`path` must be a model of uint8 images (batch_size, height, width, channels) with "
            f"logits (batch_size, num_classes), as `kclassify fit` writes it. "
            f"Received: {str(path)!r}, another kind of model. Open it with keras.saving.load_model."
        )
    return model


def _classifies_images(model: keras.Model) -> bool:
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs or len(inputs) != 1 or len(outputs) != 1:
        return False
    known = None not in inputs[0].shape[1:]
    return (
        known
        and inputs[0].dtype == "uint8"
        and len(inputs[0].shape) == 4
        and len(outputs[0].shape) == 2
    )
