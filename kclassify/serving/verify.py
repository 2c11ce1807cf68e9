"""Proof that an export serves what was evaluated: a fresh process against the Keras model."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import VerificationError
from kclassify.models.deciding import UNKNOWN, WITHHELD, Deciding, Threshold

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.images import resize_images  # noqa: E402
from kclassify.serving.signatures import NOTHING_WITHHELD  # noqa: E402

TOLERANCE = 1e-4
MOST_IMAGES = 256
OTHER_SIZE_IMAGES = 8
BATCH_SIZE = 64
CHILD = Path(__file__).with_name("child.py")
# What the inputs of a SavedModel are called in verification.json.
SIGNATURES = {
    "images": "serving_default",
    "other_size": "serving_default at another size",
    "encoded": "serve_bytes",
    "own_size": "probabilities",
}


def verify(
    folder: Path,
    model: keras.Model,
    class_names: Sequence[str],
    *,
    samples: np.ndarray,
    formats: Sequence[str],
    deciding: Deciding = NOTHING_WITHHELD,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Compare what is in `folder`, loaded by a fresh process, with what `model` says.

    Probabilities may differ by `TOLERANCE`, for folding and another order of sums round otherwise;
    the class that is named may not, nor whether an answer is withheld, unless its probability is
    as near as that to the threshold.

    Args:
        folder: the SavedModel, with the files of the other formats beside it.
        model: the Keras model that was evaluated.
        class_names: one name an output, in order.
        samples: uint8 images `(batch_size, height, width, channels)` of the model's size.
        formats: the names of what to check.
        deciding: when an answer is withheld, and sets of labels.
        temperature: what to divide the answers by, where they are logits.

    Returns:
        What ``verification.json`` holds.

    Raises:
        VerificationError: an answer differs, is not repeatable, or could not be had.
    """
    started = time.perf_counter()
    inputs = _inputs(samples[:MOST_IMAGES])
    expected = _reference(model, inputs)
    checks = {}
    for name in formats:
        answers = _ask(name, folder, inputs)
        if temperature is not None:
            logits = answers["images/probabilities"] / np.float32(temperature)
            answers["images/probabilities"] = tf.nn.softmax(logits).numpy()
        checks[name] = _compare(name, answers, expected, class_names, deciding)
    return {
        "images": len(inputs["images"]),
        "tolerance": TOLERANCE,
        "formats": checks,
        "seconds": round(time.perf_counter() - started, 3),
        "versions": runtime.environment()["packages"],
    }


def _inputs(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images, some of them in another size, and both as encoded PNG, without loss."""
    height, width = images.shape[1:3]
    other = np.asarray(resize_images(images[:OTHER_SIZE_IMAGES], (height + 5, 2 * width + 1)))
    # Fixed-width bytes lose zeros at the end, but the last byte of a PNG is never one.
    encoded = [tf.io.encode_png(image).numpy() for image in (*images, *other)]
    return {
        "images": images, "other_size": other, "encoded": np.array(encoded), "own_size": images
    }  # fmt: skip


def _reference(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    images = _probabilities(model, inputs["images"])
    image_size = model.input_shape[1:3]
    other = _probabilities(model, np.asarray(resize_images(inputs["other_size"], image_size)))
    both = np.concatenate([images, other])
    return {"images": images, "other_size": other, "encoded": both, "own_size": images}


def _probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), BATCH_SIZE)
    # On the processor, as in the child: this process may hold all of an accelerator's memory,
    # and two devices do not round alike.
    with tf.device("CPU:0"):
        logits = [
            model(images[start : start + BATCH_SIZE], training=False).numpy() for start in starts
        ]
        return tf.nn.softmax(np.concatenate(logits).astype("float32")).numpy()


def _ask(name: str, folder: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="kclassify-") as scratch:
        given, answered = Path(scratch, "inputs.npz"), Path(scratch, "outputs.npz")
        np.savez(given, **inputs)  # type: ignore[arg-type]  # the stubs lack keyword arrays
        # -P: this folder's own modules must not shadow installed ones.
        command = [sys.executable, "-P", str(CHILD), name, str(folder), str(given), str(answered)]
        child = subprocess.run(command, env=_environment(), capture_output=True, text=True)
        if child.returncode:
            raise VerificationError(
                f"The exported {name} could not be loaded and called in a fresh process:\n"
                f"{child.stderr.strip()[-2000:]}"
            )
        with np.load(answered) as answers:
            return dict(answers)


def _environment() -> dict[str, str]:
    """Return the environment of a process that cannot find kclassify by PYTHONPATH."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("PYTHONPATH", None)
    return environment


def _compare(
    name: str,
    answers: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    deciding: Deciding,
) -> dict[str, Any]:
    checks = {}
    for asked in dict.fromkeys(key.partition("/")[0] for key in answers):
        start = f"{asked}/"
        answer = {key[len(start) :]: answers[key] for key in answers if key.startswith(start)}
        check = _check(answer, expected[asked], class_names, deciding)
        title = SIGNATURES[asked] if name == "saved_model" else asked
        if not _passes(check):
            raise VerificationError(
                f"The exported {name} does not serve what was evaluated: {title} gave {check}, "
                f"where probabilities may differ by {TOLERANCE}. Nothing was left in place."
            )
        checks[title] = check
    return checks


def _check(
    answer: Mapping[str, np.ndarray],
    expected: np.ndarray,
    class_names: Sequence[str],
    deciding: Deciding,
) -> dict[str, Any]:
    probabilities = answer["probabilities"]
    withheld = _below(expected.max(axis=-1), deciding.threshold, probabilities.max(axis=-1))
    class_ids = np.where(withheld, WITHHELD, expected.argmax(axis=-1))
    names = np.array([*(name.encode() for name in class_names), UNKNOWN.encode()])
    labels = names[class_ids]
    if "class_id" not in answer:
        # The probabilities alone, by which nothing is withheld.
        class_ids = expected.argmax(axis=-1)
    return {
        "images": len(expected),
        "max_difference": float(np.max(np.abs(probabilities - expected))),
        "class_ids_equal": np.array_equal(
            answer.get("class_id", probabilities.argmax(axis=-1)), class_ids
        ),
        "labels_equal": np.array_equal(answer.get("label", labels), labels),
        "label_sets_equal": _same_sets(answer, deciding),
        "repeatable": bool(answer["repeatable"]),
    }


def _below(expected: np.ndarray, threshold: Threshold | None, found: np.ndarray) -> np.ndarray:
    """Say of each image whether its answer is withheld; at the threshold itself, as it was."""
    if threshold is None:
        return np.zeros(len(expected), bool)
    near = np.abs(expected - threshold.probability) <= TOLERANCE
    return np.where(near, found, expected) < threshold.probability


def _same_sets(answer: Mapping[str, np.ndarray], deciding: Deciding) -> bool:
    if deciding.label_sets is None or "class_id" not in answer:
        return "label_set" not in answer
    members = answer["probabilities"] >= deciding.label_sets.least_probability
    return np.array_equal(answer["label_set"], members)


def _passes(check: Mapping[str, Any]) -> bool:
    # NaN is within no tolerance, which `>` would not notice.
    return check["max_difference"] <= TOLERANCE and all(
        check[key] for key in ("class_ids_equal", "labels_equal", "label_sets_equal", "repeatable")
    )
