"""Files of 8- and 16-bit numbers, and which layers lose by it.

A file takes uint8 images and gives float32 logits: probabilities of 8 bits would have steps of
1/256, and the temperature that calibrates them is applied to logits.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_installed

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.models.folding import FOLDABLE, fold_batch_norm  # noqa: E402
from kclassify.serving.formats import FORMATS, write_litert, write_onnx  # noqa: E402

LITERT, ONNX = FORMATS["litert"].packages, (*FORMATS["onnx"].packages, "onnx")


class UnwritableError(InputError):
    """A network that the converter of a scheme does not take."""


@dataclass(frozen=True)
class Scheme:
    """How a file is written.

    Attributes:
        ending: of the file.
        packages: what must be installed.
        extra: what installs them.
        write: writes a network without batch normalization, with images for the ranges.
    """

    ending: str
    packages: tuple[str, ...]
    extra: str
    write: Callable[[keras.Model, Path, np.ndarray], None]


def _litert(**options: Any) -> Callable[[keras.Model, Path, np.ndarray], None]:
    def write(model: keras.Model, path: Path, images: np.ndarray) -> None:
        given = {name: value(images) if callable(value) else value
                 for name, value in options.items()}  # fmt: skip
        write_litert(model, path, **given)

    return write


def _representative(images: np.ndarray) -> Callable[[], Iterator[list[np.ndarray]]]:
    return lambda: ([image[None]] for image in images)


def _onnx_int8(model: keras.Model, path: Path, images: np.ndarray) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """The images, one at a time."""

        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image[None]}

    with TemporaryDirectory(prefix="kclassify-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, shaped = Path(scratch, "float.onnx"), Path(scratch, "shaped.onnx")
        write_onnx(model, plain)
        # Its symbolic inference of shapes wants one package more, for shapes that are plain here.
        quantization.quant_pre_process(plain, shaped, skip_symbolic_shape=True)
        quantization.quantize_static(
            shaped, path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            # With signed activations a relu stays apart, and what stands before it stays in floats.
            activation_type=quantization.QuantType.QUInt8,
            # 7 bits, since without VNNI two products of 8 overflow the 16 bits of their sum.
            reduce_range=True,
        )  # fmt: skip


DEFAULT = [tf.lite.Optimize.DEFAULT]
# ONNX Runtime's dynamic quantization is left out: it has no quick kernel for convolutions.
SCHEMES: dict[str, Scheme] = {
    "litert_int8": Scheme(
        ".tflite", LITERT, "litert", 
        _litert(optimizations=DEFAULT, representative_dataset=_representative),
    ),
    "litert_dynamic": Scheme(
        ".tflite", LITERT, "litert", _litert(optimizations=DEFAULT)
    ),
    "litert_float16": Scheme(
        ".tflite", LITERT, "litert", 
        _litert(optimizations=DEFAULT, target_spec={"supported_types": [tf.float16]}),
    ),
    "litert_float32": Scheme(".tflite", LITERT, "litert", _litert()),
    "onnx_int8": Scheme(".onnx", ONNX, "onnx", _onnx_int8),
    "onnx_float32": Scheme(".onnx", ONNX, "onnx", lambda model, path, _: write_onnx(model, path)),
}  # fmt: skip


def check_scheme(scheme: object) -> None:
    """Raise `InputError` unless it is one of `SCHEMES` whose packages are installed."""
    check_choice("scheme", scheme, SCHEMES)
    found = SCHEMES[str(scheme)]
    check_installed("scheme", scheme, packages=found.packages, extra=found.extra)


def write_quantized(model: keras.Model, path: Path, *, scheme: str, images: np.ndarray) -> None:
    """Write a network as a file of a scheme.

    Args:
        model: from uint8 images to logits; batch normalization is folded away.
        path: of the file, with the scheme's ending.
        scheme: one of `SCHEMES`.
        images: uint8, of the training split, whose activations say the ranges.

    Raises:
        InputError: the scheme is none, or its packages are not installed.
        UnwritableError: its converter does not take the network.
    """
    check_scheme(scheme)
    try:
        SCHEMES[scheme].write(fold_batch_norm(model), path, images)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # converters raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnwritableError(
            f"`scheme` must be one that {model.name!r} can be written in. Received: {scheme!r}, "
            f"whose converter says: {reason}. Choose another, or another technique."
        ) from error


def layer_errors(model: keras.Model, *, images: np.ndarray) -> pd.DataFrame:
    """Return how much of each layer 8 bits lose, by themselves, the worst outputs first.

    A simulation in NumPy: LiteRT's own debugger wants a converter of its own, and knows nothing of
    ONNX. Kernels are rounded evenly around zero for each output channel, outputs between their
    extremes on the images.

    Args:
        model: from uint8 images to logits.
        images: uint8.

    Returns:
        A row a convolution or dense layer: `layer`, `weights`, and the ratios of signal to rounding
        noise in dB of its kernel, `kernel_db`, and its outputs, `outputs_db`.

    Example:
        >>> import numpy as np
        >>> from kclassify.compression.quantization import layer_errors
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("lenet", input_shape=(16, 16, 1), num_classes=2)
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), np.uint8)
        >>> len(layer_errors(model, images=images))
        5
    """
    folded = fold_batch_norm(model)
    layers = [layer for layer in folded.layers if isinstance(layer, FOLDABLE)]
    outputs = keras.Model(folded.input, [layer.output for layer in layers])(images, training=False)
    rows = [
        {
            "layer": layer.name,
            "weights": layer.kernel.shape.num_elements(),
            "kernel_db": _decibels(layer.kernel.numpy(), rounded_kernel(layer)),
            "outputs_db": _decibels(np.asarray(out), _range_rounded(np.asarray(out))),
        }
        for layer, out in zip(layers, keras.tree.flatten(outputs), strict=True)
    ]
    return pd.DataFrame(rows).sort_values("outputs_db", ignore_index=True)


def rounded_kernel(layer: keras.Layer) -> np.ndarray:
    """Return a kernel of 8 bits: 255 steps, evenly around zero, for each output channel."""
    kernel = layer.kernel.numpy()
    # The output channels of a depthwise kernel are its last two axes.
    channels = 2 if isinstance(layer, keras.layers.DepthwiseConv2D) else 1
    axes = tuple(range(kernel.ndim - channels))
    step = np.maximum(np.abs(kernel).max(axis=axes, keepdims=True), 1e-12) / 127
    return np.round(kernel / step) * step


def _range_rounded(values: np.ndarray) -> np.ndarray:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    step = max(high - low, 1e-12) / 255
    return np.round(values / step) * step


def _decibels(values: np.ndarray, rounded: np.ndarray) -> float:
    noise = float(np.mean((values - rounded) ** 2))
    return 10 * float(np.log10(max(np.mean(values**2), 1e-30) / max(noise, 1e-30)))
