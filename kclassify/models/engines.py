"""What computes the probabilities: TensorFlow, ONNX Runtime or LiteRT, each with the least ado.

An engine is a function from uint8 images ``(batch_size, height, width, channels)`` of the model's
size to float32 probabilities ``(batch_size, num_classes)``, or to logits where a file was made of
those (`of_logits`). It may be called by several threads.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from scipy.special import softmax

from kclassify import runtime
from kclassify.checks import check_installed

runtime.prepare()

import tensorflow as tf  # noqa: E402

# TensorFlow's guides import it from here; it has no public name.
from tensorflow.python.framework.convert_to_constants import (  # noqa: E402
    convert_variables_to_constants_v2,
)

Engine = Callable[[np.ndarray], np.ndarray]


def tensorflow_engine(function: Any) -> Engine:
    """Return the engine of a concrete function that has the variables of a model.

    The variables become constants, so that TensorFlow prepares the kernels once instead of at
    every call.
    """
    return direct(convert_variables_to_constants_v2(function), tf.float32)


def direct(function: Any, dtype: tf.DType) -> Callable[[Any], np.ndarray]:
    """Return a caller of a concrete function of one input, no variables and one output.

    It leaves out what `function.__call__` does in Python, which takes a small network's time.
    """

    def call(value: Any) -> np.ndarray:
        (answer,) = tf.raw_ops.StatefulPartitionedCall(args=[value], Tout=[dtype], f=function)
        return answer.numpy()

    return call


def of_logits(engine: Engine, temperature: float) -> Engine:
    """Return the engine of probabilities that one of logits makes, divided by a temperature."""

    def call(images: np.ndarray) -> np.ndarray:
        return softmax(engine(images).astype(np.float32) / np.float32(temperature), axis=-1)

    return call


def onnx_engine(path: Path) -> Engine:
    """Return the engine of a `model.onnx`, on the CPU."""
    check_installed("path", str(path), packages=("onnxruntime",), extra="onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = session.get_inputs()[0].name
    answers = [session.get_outputs()[0].name]
    return lambda batch: session.run(answers, {images: batch})[0]


def litert_engine(path: Path) -> Engine:
    """Return the engine of a `model.tflite`, on all cores of the CPU."""
    check_installed("path", str(path), packages=("ai_edge_litert",), extra="litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=runtime.physical_cores())
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    lock, shape = Lock(), None

    def call(batch: np.ndarray) -> np.ndarray:
        nonlocal shape
        # An interpreter has one set of buffers.
        with lock:
            if batch.shape != shape:
                interpreter.resize_tensor_input(source, batch.shape, strict=True)
                interpreter.allocate_tensors()
                shape = batch.shape
            interpreter.set_tensor(source, batch)
            interpreter.invoke()
            return interpreter.get_tensor(target)

    return call


# By the ending of the file that they read.
ENGINES: dict[str, Callable[[Path], Engine]] = {".onnx": onnx_engine, ".tflite": litert_engine}
