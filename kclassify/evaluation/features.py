"""`learned`: what a network's features say: which classes are close, and which images."""

import os
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
from kclassify.evaluation.sampling import stratified
from kclassify.evaluation.subject import Subject, open_subject
from kclassify.models.saved import check_layers
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import eval_dataset, first_images  # noqa: E402
from kclassify.evaluation.predictions import worst_errors  # noqa: E402
from kclassify.models.whitening import NAME as WHITENING  # noqa: E402

TRAINING_IMAGES, EVALUATED_IMAGES, EMBEDDED = 5_000, 2_000, 1_000
NEIGHBOURS = 3
# Fewer images than this have no neighbourhoods that t-SNE could keep.
LEAST_EMBEDDED = 10
PRINCIPAL, MOST_FILTERS, BATCH, MOST_SIDE = 50, 64, 256, 128


@dataclass(frozen=True)
class Learned:
    """What a network's features say.

    Attributes:
        split: the evaluated split.
        images: how many of it were looked at.
        training_images: how many training images were.
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

    Of the training images, at most 5,000 are looked at, and of the evaluated ones, besides the
    worst errors, at most 2,000, each class by its share; 1,000 of these are drawn (van der Maaten
    and Hinton 2008, "t-SNE").

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
    check_layers(subject.run, purpose="a look at its features")
    ours = sampled(subject, "evaluated", EVALUATED_IMAGES, seed=seed)
    theirs = sampled(subject, "train", TRAINING_IMAGES, seed=seed)
    errors = worst_errors(subject.predictions, subject.examples(), most=most)
    nearest = _nearest(_of_errors(subject, errors["ids"]), theirs.features)
    neighbours = _neighbours(subject, errors, theirs.examples, nearest)
    embedding, drawn_by = _embedding(ours, subject.class_names, seed)
    filters, whitening = first_filters(subject.network)
    distances = class_distances(ours.features, ours.examples.class_ids, subject.class_names)
    found = Learned(subject.split, len(ours.examples), len(theirs.examples), distances, neighbours,
                    embedding, drawn_by, filters, whitening)  # fmt: skip
    pictures = {"errors": errors["images"], "nearest": _pictures(theirs.examples, nearest[0])}
    _write(subject, found, pictures)
    return found


def feature_model(network: keras.Model) -> keras.Model:
    """Return the model of what the last dense layer of `network` decides on, flat: ``(n, d)``."""
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)][-1]
    return keras.Model(network.inputs[0], keras.layers.Flatten()(dense.input))


@dataclass(frozen=True)
class Outputs:
    """What a network says of some images: their features ``(n, d)`` and logits, both float32."""

    examples: Examples
    features: np.ndarray
    logits: np.ndarray


def sampled(subject: Subject, part: str, most: int, *, seed: int) -> Outputs:
    """Return what the network says of a part of the data, computed once for a subject.

    Args:
        subject: the run.
        part: ``"evaluated"``, or a split to compare it with.
        most: images at most, of every class its share.
        seed: which.
    """
    key = ("outputs", part, most, seed)
    if key not in subject.seen:
        examples = subject.examples() if part == "evaluated" else subject.others(part)
        some = examples.take(stratified(examples.class_ids, most, seed=seed))
        subject.seen[key] = outputs_of(subject, some)
    return subject.seen[key]


def outputs_of(subject: Subject, examples: Examples) -> Outputs:
    """Return what the network says of `examples`, in their order."""
    if "both" not in subject.seen:
        subject.seen["both"] = _both(subject.network)
    call = subject.seen["both"]
    batches = tqdm(
        eval_dataset(examples, batch_size=BATCH),
        total=-(-len(examples) // BATCH),
        desc="features",
        unit="batch",
        delay=1.5,
        disable=not subject.verbose,
    )
    parts = [[one.numpy() for one in call(images)] for images, _ in batches]
    features, logits = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Outputs(examples, features, logits)


def _both(network: keras.Model) -> Any:
    """Return the function of images to features and logits, traced once for all sizes of batch."""
    inner = feature_model(network)
    model = keras.Model(network.inputs[0], [inner.outputs[0], network.outputs[0]])

    @tf.function(reduce_retracing=True, autograph=False)
    def call(images: tf.Tensor) -> list[tf.Tensor]:
        return [tf.cast(one, tf.float32) for one in model(images, training=False)]

    return call


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


def _of_errors(subject: Subject, wanted: np.ndarray) -> np.ndarray:
    """Return the features of the evaluated images of these ids."""
    place = {name: number for number, name in enumerate(subject.predictions.ids)}
    picked = np.array([place[name] for name in wanted], int)
    if not len(picked):
        return np.zeros((0, feature_model(subject.network).output_shape[1]), np.float32)
    return outputs_of(subject, subject.examples().take(picked)).features


def _nearest(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `theirs` are nearest to `ours`, and how far, ``(ours, nearest)`` each."""
    distances = np.maximum(1 - unit(ours) @ unit(theirs).T, 0)
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


def _embedding(ours: Outputs, class_names: tuple[str, ...], seed: int) -> tuple[pd.DataFrame, str]:
    """Return two coordinates an image, and the method that they are of."""
    labels = ours.examples.class_ids
    picked = stratified(labels, most=EMBEDDED, seed=seed)
    some = ours.features[picked].astype(np.float64)
    drawn_by = "PCA" if len(some) < LEAST_EMBEDDED or not np.ptp(some) else "t-SNE"
    points = _principal(some, 2) if drawn_by == "PCA" else _neighbourhoods(some, seed)
    names = np.asarray(class_names, dtype=object)
    columns = {"id": ours.examples.ids[picked], "given": names[labels[picked]]}
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
        "closest": found.closest.head(10).to_dict("records"), **subject.whose,
    }  # fmt: skip
    run.write(run.analysis_file("learned"), facts)
