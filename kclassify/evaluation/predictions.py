"""The one pass over a split that every figure is derived from."""

import hashlib
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.data.spec import WHOLE, Examples, Images, Share
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import eval_dataset, first_images, piece_edges  # noqa: E402
from kclassify.evaluation.metrics import class_ids  # noqa: E402

if TYPE_CHECKING:
    from kclassify.training.replicas import Replicas


def hash_of_ids(ids: np.ndarray) -> str:
    """Return what tells images in their order from others, by their names."""
    return hashlib.sha256("\n".join(ids.tolist()).encode("utf-8", "surrogateescape")).hexdigest()


def hash_of_images(images: Images) -> str:
    """Return what tells images in memory from others; nothing for those that are read as used."""
    if not isinstance(images, np.ndarray):
        return ""
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


@dataclass(frozen=True)
class Predictions:
    """What a model said of a split.

    Attributes:
        ids: ``(n,)`` where each image came from.
        labels: ``(n,)`` class indices or ``(n, num_classes)`` soft labels.
        probabilities: ``(n, num_classes)`` float32.
        class_names: in the order of the probabilities.
        tta: the test-time augmentation that the probabilities are of.
        pixels: what `hash_of_images` says of the images; arrays of one length have the same ids.
    """

    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    tta: str = "none"
    pixels: str = ""

    def key(self, split: str) -> str:
        """Return what tells this evaluation of a run from another, of other images or views."""
        found = hashlib.sha256((hash_of_ids(self.ids) + self.pixels).encode())
        # Not the probabilities themselves: their last bits follow from the batch size.
        for classes in (class_ids(self.labels), self.probabilities.argmax(axis=1)):
            found.update(classes.astype(np.int64).tobytes())
        return f"{split}, {self.tta}, {found.hexdigest()[:16]}"

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the predictions file holds."""
        return {
            "ids": np.asarray(self.ids, dtype=np.str_),
            "labels": self.labels,
            "probabilities": self.probabilities,
            "class_names": np.asarray(self.class_names, dtype=np.str_),
            "tta": np.asarray(self.tta, dtype=np.str_),
            "pixels": np.asarray(self.pixels, dtype=np.str_),
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
    replicas: "Replicas | None" = None,
) -> Predictions:
    """Run `model` once over `examples`, in their order; of several workers, each over its share."""
    share = Share(replicas.worker, replicas.workers) if replicas else WHOLE

    @tf.function(reduce_retracing=True, autograph=False)
    def probabilities(images):
        return tf.nn.softmax(tf.cast(model(images, training=False), tf.float32))

    of_all = batch_size * share.count
    batches = tqdm(
        eval_dataset(examples, batch_size=of_all, share=share),
        total=-(-len(examples) // of_all),
        desc="predicting",
        unit="batch",
        disable=not verbose,
        delay=1.5,
    )
    found = np.concatenate([probabilities(images).numpy() for images, _ in batches])
    if replicas and share != WHOLE:
        found = _put_together(replicas.gather_rows(found), len(examples), batch_size=of_all)
    return Predictions(examples.ids, examples.labels, found, class_names)


def _put_together(shares: list[np.ndarray], count: int, *, batch_size: int) -> np.ndarray:
    """Return the rows of all shares in the order of the examples."""
    whole = np.empty((count, *shares[0].shape[1:]), shares[0].dtype)
    for index, rows in enumerate(shares):
        firsts, ends = piece_edges(count, batch_size=batch_size, share=Share(index, len(shares)))
        pieces = [np.arange(first, end) for first, end in zip(firsts, ends, strict=True)]
        whole[np.concatenate(pieces)] = rows
    return whole


def read_predictions(run: Run, split: str) -> Predictions:
    """Return what `evaluate` wrote of a split, or say that it must be evaluated."""
    file = run.predictions_file(split)
    try:
        # Opened here, since np.load leaves a file open that is no whole archive.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            names = tuple(stored["class_names"].tolist())
            arrays = (stored["ids"], stored["labels"], stored["probabilities"])
            # What earlier versions did not note.
            tta, pixels = (str(stored[name]) if name in stored.files else missing
                           for name, missing in (("tta", "none"), ("pixels", "")))  # fmt: skip
            return Predictions(*arrays, names, tta, pixels)
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
