"""The files that an export can hold besides the SavedModel: name -> packages, writer."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kclassify import runtime
from kclassify.checks import check_choice, check_installed

runtime.prepare()

import keras  # noqa: E402


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        file: its name in the version folder.
        packages: what must be installed; all of it comes with the extra of the format's name.
        write: writes a model of probabilities to a path.
    """

    file: str
    packages: tuple[str, ...]
    write: Callable[[keras.Model, Path], None]


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write a model of images as an ONNX file, for any number of them."""
    with warnings.catch_warnings():
        # Keras and tf2onnx touch names that NumPy 2 has dropped; a user can do nothing about it.
        warnings.simplefilter("ignore")
        # Without a signature Keras refuses a model that was never called on data.
        model.export(path, format="onnx", verbose=False, input_signature=_signature(model))


def write_litert(model: keras.Model, path: Path, **converter: Any) -> None:
    """Write a model of images as a LiteRT file; `converter` are attributes of TFLiteConverter."""
    signature = _signature(model)
    model.export(path, format="litert", verbose=False, input_signature=signature, **converter)


def _signature(model: keras.Model) -> list[keras.InputSpec]:
    return [keras.InputSpec(shape=model.input_shape, dtype="uint8", name="images")]


FORMATS = {
    "onnx": Format("model.onnx", ("tf2onnx", "onnxruntime"), write_onnx),
    "litert": Format("model.tflite", ("ai_edge_litert",), write_litert),
}


def format_of(file: Path) -> str:
    """Return the name of the format that a file is of, by its ending."""
    return next(name for name, one in FORMATS.items() if Path(one.file).suffix == file.suffix)


def check_formats(formats: str | Sequence[str]) -> list[str]:
    """Return the names in `formats` other than ``"saved_model"``, which is always written.

    Raises:
        InputError: a name is unknown, or its packages are not installed.
    """
    names = [formats] if isinstance(formats, str) else list(formats)
    for name in names:
        check_choice("formats", name, ["saved_model", *FORMATS])
    extra = [name for name in FORMATS if name in names]
    for name in extra:
        check_installed("formats", name, packages=FORMATS[name].packages, extra=name)
    return extra


def probability_model(model: keras.Model) -> keras.Model:
    """Return `model` with a softmax behind it and its random layers switched off for good.

    ``training=False`` is recorded in the graph, because Keras's exporters call a model without it,
    which leaves augmentation layers on.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    logits = model(images, training=False)
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    return keras.Model(images, {"probabilities": softmax(logits)})
