"""A quantized file as a Keras model, so that it is measured by whatever measures a network."""

from pathlib import Path

from kclassify import runtime
from kclassify.atomic import file_hash
from kclassify.checks import InputError
from kclassify.models.engines import ENGINES, Engine
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402


class FromFile(keras.layers.Layer):
    """Ask an engine for the logits of uint8 images; there is neither gradient nor weight.

    Args:
        engine: from images to float32 logits ``(batch_size, num_classes)``.
        num_classes: how many logits.
    """

    def __init__(self, engine: Engine, num_classes: int):
        super().__init__(name="quantized", dtype="float32", autocast=False)
        self.engine, self.num_classes = engine, num_classes

    def call(self, images):
        """Leave the graph for the file's own runtime."""
        logits = tf.numpy_function(self.engine, [images], tf.float32)
        logits.set_shape((None, self.num_classes))
        return logits

    def compute_output_spec(self, images):
        """Return what Keras plans with."""
        return keras.KerasTensor((images.shape[0], self.num_classes), "float32")


def load_quantized(run: Run, file: Path) -> keras.Model:
    """Return the model of a quantized run, from uint8 images to logits.

    Raises:
        InputError: the file is not the one that was written, or what runs it is not installed.
    """
    if file_hash(file) != run.summary["weights_sha256"]:
        raise InputError(
            f"`run` must hold the file that it was quantized to. Received: {str(file)!r}, which is "
            "another than summary.json names. Quantize again."
        )
    return file_model(file, tuple(run.config["input_shape"]), len(run.config["class_names"]))


def file_model(file: Path, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a Keras model that asks a file for its logits.

    Raises:
        InputError: what runs it is not installed.
    """
    images = keras.Input(input_shape, dtype="uint8", name="images")
    layer = FromFile(ENGINES[file.suffix](file), num_classes)
    return keras.Model(images, layer(images), name="quantized")
