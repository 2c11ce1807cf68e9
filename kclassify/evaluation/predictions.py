"""The one pass over a split that every figure is derived from."""

import zipfile
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.data.spec import Examples
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import eval_dataset, first_images  # noqa: E402
from kclassify.evaluation.metrics import class_ids  # noqa: E402


@dataclass(frozen=True)
class Predictions:
    """What a model said of a split.

    Attributes:
        ids: ``(n,)`` where each image came from.
        labels: ``(n,)`` class indices or ``(n, num_classes)`` soft labels.
        probabilities: ``(n, num_classes)`` float32.
        class_names: in the order of the probabilities.
        tta: the test-time augmentation that the probabilities are of.
    """

    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    tta: str = "none"

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the predictions file holds."""
        return {
            "ids": np.asarray(self.ids, dtype=np.str_),
            "labels": self.labels,
            "probabilities": self.probabilities,
            "class_names": np.asarray(self.class_names, dtype=np.str_),
            "tta": np.asarray(self.tta, dtype=np.str_),
        }

    def table(self) -> pd.DataFrame:
        """Return a row an image: id, given and predicted label, probability, correct."""
        names = np.asarray(self.class_names, dtype=object)
        given, predicted = class_ids(self.labels), self.probabilities.argmax(axis=1)
        return pd.DataFrame(
            {
                "id": self.ids,
                "given": names[given],
                "predicted": names[predicted],
                "probability": self.probabilities.max(axis=1),
                "correct": given == predicted,
            }
        )


def predict(
    model: keras.Model,
    examples: Examples,
    class_names: tuple[str, ...],
    *,
    batch_size: int,
    verbose: bool,
) -> Predictions:
    """Run `model` once over `examples`, in their order."""

    @tf.function(reduce_retracing=True, autograph=False)
    def probabilities(images):
        return tf.nn.softmax(tf.cast(model(images, training=False), tf.float32))

    batches = tqdm(
        eval_dataset(examples, batch_size=batch_size),
        total=-(-len(examples) // batch_size),
        desc="predicting",
        unit="batch",
        disable=not verbose,
        delay=1.5,
    )
    parts = [probabilities(images).numpy() for images, _ in batches]
    return Predictions(examples.ids, examples.labels, np.concatenate(parts), class_names)


def read_predictions(run: Run, split: str) -> Predictions:
    """Return what `evaluate` wrote of a split, or say that it must be evaluated."""
    file = run.predictions_file(split)
    try:
        # Opened here, since np.load leaves a file open that is no whole archive.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            names = tuple(stored["class_names"].tolist())
            # Earlier versions did not note it.
            tta = str(stored["tta"]) if "tta" in stored.files else "none"
            return Predictions(stored["ids"], stored["labels"], stored["probabilities"], names, tta)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        kind = "which is damaged" if file.exists() else "which is not there"
        raise InputError(
            f"`run` must have been evaluated on its {split} split. Received: {str(run)!r}, whose "
            f"{file.name} is needed, {kind}. Run `kclassify evaluate {run} --split {split}`."
        ) from error


def worst_errors(
    predictions: Predictions, examples: Examples, *, most: int = 24
) -> dict[str, np.ndarray]:
    """Return the images that the model got wrong with the highest probability, surest first."""
    table = predictions.table()
    wrong = table[~table["correct"]].sort_values("probability", ascending=False, kind="stable")
    picked = wrong.index[:most].to_numpy()
    shown = table.loc[picked]
    return {
        "images": first_images(examples.take(picked), most),
        "ids": shown["id"].to_numpy(dtype=np.str_),
        "given": shown["given"].to_numpy(dtype=np.str_),
        "predicted": shown["predicted"].to_numpy(dtype=np.str_),
        "probability": shown["probability"].to_numpy(dtype=np.float32),
    }
