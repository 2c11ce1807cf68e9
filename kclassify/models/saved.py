"""Opening a saved model as a classifier, or saying why it is none."""

import zipfile
from pathlib import Path

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.weights import weights_hash
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402

from kclassify.models.quantized import load_quantized  # noqa: E402


def load_run_model(run: Run) -> keras.Model:
    """Return the model of a run, and make sure that it is the one that its training saved.

    Of a quantized run it is what the file says that it serves, see `load_quantized`.

    Raises:
        InputError: the file is damaged, or has other weights than the run's summary names.
    """
    if run.quantized_file is not None:
        return load_quantized(run, run.quantized_file)
    model = load_keras_file(run.model_file)
    if weights_hash(model) != run.summary["weights_sha256"]:
        raise InputError(
            f"`run` must hold the model that its training saved. Received: {str(run)!r}, where "
            "the weights in model.keras are others than summary.json names. Train again."
        )
    return model


def check_layers(run: Run, *, purpose: str) -> None:
    """Raise `InputError` for a quantized run, whose file has neither layers nor gradients.

    Args:
        run: the run.
        purpose: what they are needed for, in words.
    """
    if run.quantized_file is not None:
        raise InputError(
            f"`run` must have a Keras model for {purpose}. Received: {str(run)!r}, which serves "
            f"{run.quantized_file.name}, a file without gradients. Take the run that it came of, "
            f"{run.parent!r}."
        )


def load_network(run: Run) -> keras.Model:
    """Return the Keras network of a run, of a quantized one too: what its file was made of.

    Raises:
        InputError: as `load_run_model`.
    """
    model = load_run_model(run)
    return load_keras_file(run.model_file) if run.quantized_file is not None else model


def load_keras_file(path: Path) -> keras.Model:
    """Return the model in a `.keras` file, with safe mode on: no code in the file is run.

    Raises:
        InputError: the file is damaged, or its model does not map uint8 images to logits.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"`path` must be a whole .keras file. Received: {str(path)!r}, which is cut "
            "off or of another kind. Copy it again, or delete it and give the command again that "
            "trained it."
        )
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
    # A model of a list of one input answers with a list of one output; this one never does.
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


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
