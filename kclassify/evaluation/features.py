"""`learned`: what a network's features say: which classes are close, and which images."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import check_number, is_whole
from kclassify.data.spec import Examples
from kclassify.evaluation.metrics import class_ids
from kclassify.evaluation.sampling import stratified
from kclassify.evaluation.subject import Subject, open_subject
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import eval_dataset, first_images  # noqa: E402
from kclassify.evaluation.predictions import worst_errors  # noqa: E402
from kclassify.models.whitening import NAME as WHITENING  # noqa: E402

TRAINING_IMAGES, EMBEDDED = 5_000, 1_000
NEIGHBOURS = 3
# Fewer images than this have no neighbourhoods that t-SNE could keep.
LEAST_EMBEDDED = 10
PRINCIPAL, MOST_FILTERS, BATCH, MOST_SIDE = 50, 64, 256, 128


@dataclass(frozen=True)
class Learned:
    """What a network's features say.

    Attributes:
        split: the evaluated split.
        images: how many of it.
        training_images: how many training images were looked at.
        distances: ``(num_classes, num_classes)`` by name: how far the classes' mean features are
            apart, 1 less the cosine; NaN where a class has no image.
        neighbours: a row for each of the nearest training images of a worst error.
        embedding: a row an image: `x`, `y`, `given`, `id`.
        drawn_by: ``"t-SNE"`` or ``"PCA"``.
        filters: uint8 ``(n, height, width, channels)``, the first layer's; None where it has
            other than 1 or 3 channels.
        whitening: whether the first layer is a fixed whitening, which was not learned.
    """

    split: str
    images: int
    training_images: int
    distances: pd.DataFrame
    neighbours: pd.DataFrame
    embedding: pd.DataFrame
    drawn_by: str
    filters: np.ndarray | None
    whitening: bool

    @property
    def closest(self) -> pd.DataFrame:
        """The pairs of classes, `a` and `b`, from the closest on."""
        rows, columns = np.triu_indices(len(self.distances), 1)
        names = self.distances.columns.to_numpy()
        values = self.distances.to_numpy()[rows, columns]
        pairs = pd.DataFrame({"a": names[rows], "b": names[columns], "distance": values})
        return pairs.dropna().sort_values("distance", kind="stable", ignore_index=True)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not len(self.closest):
            return "fewer than two classes have images"
        first = self.closest.iloc[0]
        return f"{first['a']} and {first['b']} are the closest classes in the network's features"

    def __str__(self) -> str:
        table = self.closest.head(10).to_string(index=False, float_format="{:.3f}".format)
        return f"{table}\n{self.verdict}"

    def _repr_html_(self) -> str:
        return self.closest.head(10).to_html(index=False)


def learned(
    run: Run | str | os.PathLike[str],
    *,
    most: int = 24,
    data: Any = None,
    seed: int = 0,
    verbose: bool = True,
) -> Learned:
    """Show what a run's network learned, by the features that its last layer decides on.

    Of the training images, at most 5,000 are looked at, each class by its share; of the
    evaluated ones, at most 1,000 are drawn (van der Maaten and Hinton 2008, "t-SNE").

    Args:
        run: a run that was evaluated, or its folder.
        most: worst errors, at most, whose nearest training images are looked for.
        data: as for `evaluate`; training images are then taken from it where it has them.
        seed: of the choice of images, and of the drawing.
        verbose: show progress bars.

    Returns:
        A `Learned`. The run has it as ``class_distances.csv``, ``neighbours.csv``,
        ``embedding.csv``, ``features.npz`` and ``learned.json``, and its report shows it.

    Raises:
        InputError: an argument is not what it should be, or the run was not evaluated.

    Example:
        >>> import kclassify
        >>> from kclassify.evaluation.features import learned
        >>> run = kclassify.fit("digits", epochs=1, run_dir="learned", verbose=False)
        >>> _ = kclassify.evaluate(run, verbose=False)
        >>> learned(run, verbose=False).distances.shape
        (10, 10)
    """
    whole = "a whole number of at least "
    check_number("most", most, expected=f"{whole}1", ok=is_whole(most, least=1))
    check_number("seed", seed, expected=f"{whole}0", ok=is_whole(seed, least=0))
    subject = open_subject(run, data=data, verbose=verbose)
    shown, train = subject.examples(), subject.others("train")
    train = train.take(stratified(train.class_ids, most=TRAINING_IMAGES, seed=seed))
    features_of = compiled(feature_model(subject.network))
    ours = features(features_of, shown, verbose=verbose)
    theirs = features(features_of, train, verbose=verbose)
    errors = worst_errors(subject.predictions, shown, most=most)
    nearest = _nearest(errors["ids"], shown.ids, ours, theirs)
    neighbours = _neighbours(subject, errors, train, nearest)
    embedding, drawn_by = _embedding(subject, ours, seed)
    filters, whitening = first_filters(subject.network)
    distances = class_distances(ours, shown.class_ids, subject.class_names)
    found = Learned(subject.split, len(shown), len(train), distances, neighbours, embedding,
                    drawn_by, filters, whitening)  # fmt: skip
    _write(subject, found, {"errors": errors["images"], "nearest": _pictures(train, nearest[0])})
    return found


def feature_model(network: keras.Model) -> keras.Model:
    """Return the model of what the last dense layer of `network` decides on, flat: ``(n, d)``."""
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)][-1]
    return keras.Model(network.inputs[0], keras.layers.Flatten()(dense.input))


def compiled(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return `model` as a function of images to float32, traced once for all sizes of batch."""

    @tf.function(reduce_retracing=True)
    def call(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(images, training=False), tf.float32)

    return call


def features(
    call: Callable[[tf.Tensor], tf.Tensor], examples: Examples, *, verbose: bool
) -> np.ndarray:
    """Return what `call` says of a split, float32 ``(n, d)``, in its order."""
    batches = tqdm(
        eval_dataset(examples, batch_size=BATCH),
        total=-(-len(examples) // BATCH),
        desc="features",
        unit="batch",
        delay=1.5,
        disable=not verbose,
    )
    return np.concatenate([call(images).numpy() for images, _ in batches])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors ``(n, d)`` with a length of 1; those of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def class_distances(
    vectors: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> pd.DataFrame:
    """Return 1 less the cosine of every two classes' mean features, by name."""
    total = np.zeros((len(class_names), vectors.shape[1]))
    np.add.at(total, labels, vectors)
    means = unit(total)
    distances = np.maximum(1 - means @ means.T, 0)
    np.fill_diagonal(distances, 0)
    absent = np.bincount(labels, minlength=len(class_names)) == 0
    distances[absent], distances[:, absent] = np.nan, np.nan
    return pd.DataFrame(distances, pd.Index(class_names, name="class"), list(class_names))


def first_filters(network: keras.Model) -> tuple[np.ndarray | None, bool]:
    """Return the first convolution's filters as images, and whether it is a fixed whitening.

    Each filter is stretched to the range from 0 to 255 by itself; zero is in the middle.
    """
    layer = _first_convolution(network)
    if layer is None or layer.kernel.shape[2] not in (1, 3):
        return None, False
    filters = np.moveaxis(np.asarray(layer.kernel, np.float32), -1, 0)[:MOST_FILTERS]
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    scaled = filters / np.where(largest > 0, largest, 1)
    return np.rint(127.5 * (scaled + 1)).astype(np.uint8), layer.name == WHITENING


def _first_convolution(model: keras.Model) -> Any:
    for layer in model.layers:
        inside = _first_convolution(layer) if isinstance(layer, keras.Model) else layer
        if isinstance(inside, keras.layers.Conv2D):
            return inside
    return None


def _nearest(
    wanted: np.ndarray, ids: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which training images are nearest, and how far, ``(wanted, nearest)`` each."""
    place = {name: number for number, name in enumerate(ids)}
    picked = np.array([place[name] for name in wanted], int)
    distances = np.maximum(1 - unit(ours[picked]) @ unit(theirs).T, 0)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
    return nearest, np.take_along_axis(distances, nearest, axis=1)


def _neighbours(
    subject: Subject,
    errors: dict[str, np.ndarray],
    train: Examples,
    nearest: tuple[np.ndarray, np.ndarray],
) -> pd.DataFrame:
    places, distances = nearest
    names = np.asarray(subject.class_names, dtype=object)
    columns = {"id": errors["ids"], "given": errors["given"], "predicted": errors["predicted"]}
    repeated = {name: values.repeat(places.shape[1]) for name, values in columns.items()}
    return pd.DataFrame(
        {
            **repeated,
            "neighbour": train.ids[places.ravel()],
            "label": names[train.class_ids[places.ravel()]],
            "distance": distances.ravel(),
        }
    )


def _embedding(subject: Subject, vectors: np.ndarray, seed: int) -> tuple[pd.DataFrame, str]:
    """Return two coordinates an image, and the method that they are of."""
    labels = class_ids(subject.predictions.labels)
    picked = stratified(labels, most=EMBEDDED, seed=seed)
    some = vectors[picked].astype(np.float64)
    drawn_by = "PCA" if len(some) < LEAST_EMBEDDED or not np.ptp(some) else "t-SNE"
    points = _principal(some, 2) if drawn_by == "PCA" else _neighbourhoods(some, seed)
    names = np.asarray(subject.class_names, dtype=object)
    columns = {"id": subject.predictions.ids[picked], "given": names[labels[picked]]}
    return pd.DataFrame({**columns, "x": points[:, 0], "y": points[:, 1]}), drawn_by


def _principal(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """Return the principal components ``(n, dimensions)``; zeros for those that there are not."""
    found = np.zeros((len(vectors), dimensions))
    held = min(dimensions, *vectors.shape)
    if np.ptp(vectors):
        found[:, :held] = PCA(held, svd_solver="full").fit_transform(vectors)
    return found


def _neighbourhoods(vectors: np.ndarray, seed: int) -> np.ndarray:
    reduced = _principal(vectors, min(PRINCIPAL, *vectors.shape))
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    start = _principal(vectors, 2)
    # As scikit-learn scales its own start by principal components.
    start = (start / max(start[:, 0].std(), 1e-12) * 1e-4).astype(np.float32)
    return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)


def _pictures(train: Examples, places: np.ndarray) -> np.ndarray:
    """Return the nearest training images ``(errors, nearest, height, width, channels)``."""
    found = first_images(train.take(places.ravel()), places.size)
    return found.reshape(*places.shape, *found.shape[1:])


def _write(subject: Subject, found: Learned, pictures: dict[str, np.ndarray]) -> None:
    run = subject.run
    step = -(-max(pictures["errors"].shape[1:3]) // MOST_SIDE)
    small = {name: images[..., ::step, ::step, :] for name, images in pictures.items()}
    filters = {} if found.filters is None else {"filters": found.filters}
    run.write(run.table_file("class_distances"), found.distances)
    run.write(run.table_file("neighbours"), found.neighbours.set_index("id"))
    run.write(run.table_file("embedding"), found.embedding.set_index("id"))
    run.write(run.arrays_file("features"), {**small, **filters})
    facts = {
        "split": found.split, "images": found.images, "training_images": found.training_images,
        "embedded": len(found.embedding), "drawn_by": found.drawn_by, "verdict": found.verdict,
        "whitening": found.whitening, "filters": 0 if found.filters is None else len(found.filters),
        "closest": found.closest.head(10).to_dict("records"), "weights_sha256": subject.weights,
    }  # fmt: skip
    run.write(run.analysis_file("learned"), facts)
