"""The other side of the verification: a fresh process that knows an export only by its files.

Run as ``python -P child.py FORMAT FOLDER INPUTS OUTPUTS``. It imports what a consumer of the
format would, and fails if kclassify was needed for it.
"""

import sys
from pathlib import Path

import numpy as np

BATCH_SIZE = 64


def _saved_model(folder):
    import tensorflow as tf

    # A consumer has no reason to hold the model's Python code, so nothing else is loaded.
    model = tf.saved_model.load(folder)

    def call(signature, argument):
        function = model.signatures[signature]

        def answer(batch):
            outputs = function(**{argument: tf.constant(batch)})
            return {name: value.numpy() for name, value in outputs.items()}

        return answer

    images = call("serving_default", "images")
    return {
        "images": images,
        "other_size": images,
        "encoded": call("serve_bytes", "image_bytes"),
        "own_size": call("probabilities", "images"),
    }


def _onnx(folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"))
    return {"images": lambda batch: {"probabilities": session.run(None, {"images": batch})[0]}}


def _litert(folder):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(Path(folder) / "model.tflite"))
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def images(batch):
        interpreter.resize_tensor_input(source, batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source, batch)
        interpreter.invoke()
        return {"probabilities": interpreter.get_tensor(target)}

    return {"images": images}


LOADERS = {"saved_model": _saved_model, "onnx": _onnx, "litert": _litert}


def _in_batches(function, inputs):
    batches = [
        function(inputs[start : start + BATCH_SIZE]) for start in range(0, len(inputs), BATCH_SIZE)
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _answer(function, inputs):
    """Ask twice; return the first answer and whether the second was the same to the last bit."""
    first, second = _in_batches(function, inputs), _in_batches(function, inputs)
    same = all(np.array_equal(first[name], second[name]) for name in first)
    # NumPy's bytes need pickle as objects; as fixed-width strings they do not.
    labels = {"label": first["label"].astype("S")} if "label" in first else {}
    return {**first, **labels, "repeatable": np.array(same)}


def main(name, folder, inputs_file, outputs_file):
    """Write ``<input>/<output>`` arrays for every input that the format takes."""
    functions = LOADERS[name](folder)
    with np.load(inputs_file) as inputs:
        answers = {ask: _answer(function, inputs[ask]) for ask, function in functions.items()}
    if "kclassify" in sys.modules:
        sys.exit("kclassify was imported to load the export")
    np.savez(
        outputs_file,
        **{f"{ask}/{key}": value for ask, out in answers.items() for key, value in out.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
