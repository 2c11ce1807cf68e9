"""Images that were changed on purpose, by so little that nobody sees it, to be taken for others.

Both attacks know the network and may change every value by up to epsilon, in units of pixel values
(L-infinity). What is measured are uint8 images again, as anybody could send them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import check_number, is_whole
from kclassify.evaluation.intervals import wilson

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.evaluation import saliency  # noqa: E402
from kclassify.evaluation.answers import answers_of  # noqa: E402

# Steps of PGD, and how far they go together, in epsilons: to the other end and further.
STEPS, REACH = 10, 2.5
BATCH = 128

# From float32 images and their labels to the slope of the loss, of the images' shape.
Slope = Callable[[np.ndarray, np.ndarray], np.ndarray]
Attack = Callable[[Slope, np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


def fgsm(
    slope: Slope, images: np.ndarray, labels: np.ndarray, epsilon: int, rng: np.random.Generator
) -> np.ndarray:
    """Go one step of epsilon uphill (Goodfellow et al. 2015). Nothing of it is random."""
    pixels = images.astype(np.float32)
    return _as_images(pixels + epsilon * np.sign(slope(pixels, labels)))


def pgd(
    slope: Slope, images: np.ndarray, labels: np.ndarray, epsilon: int, rng: np.random.Generator
) -> np.ndarray:
    """Begin anywhere within epsilon, and go uphill in small steps (Madry et al. 2018)."""
    pixels = images.astype(np.float32)
    lowest, highest = np.maximum(pixels - epsilon, 0), np.minimum(pixels + epsilon, 255)
    step = np.float32(REACH * epsilon / STEPS)
    start = rng.uniform(-epsilon, epsilon, images.shape).astype(np.float32)
    moved = np.clip(pixels + start, lowest, highest)
    for _ in range(STEPS):
        moved = np.clip(moved + step * np.sign(slope(moved, labels)), lowest, highest)
    return _as_images(moved)


ATTACKS: dict[str, Attack] = {"fgsm": fgsm, "pgd": pgd}


def attacked_accuracy(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilons: Sequence[int],
    seed: int = 0,
    verbose: bool = False,
) -> pd.DataFrame:
    """Return how many images a model still has right under each attack.

    Args:
        model: functional, from uint8 images to logits.
        images: uint8 ``(n, height, width, channels)``.
        labels: ``(n,)`` class indices.
        epsilons: by how much each value may be changed, of 255; 0, no change, is added. Where
            there are none, nothing is done.
        seed: of where PGD begins.
        verbose: show a progress bar when it takes longer than a second or two.

    Returns:
        A row for each `attack` and `epsilon`: `images`, `right` and `accuracy`, with the ends
        `low` and `high` of its 95 % interval.

    Raises:
        InputError: an epsilon that is no whole number from 1 to 255.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.adversarial import attacked_accuracy
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("convnet", input_shape=(8, 8, 3), num_classes=2, depth=2)
        >>> images, labels = np.full((4, 8, 8, 3), 99, np.uint8), np.zeros(4, int)
        >>> len(attacked_accuracy(model, images, labels, epsilons=(2, 8)))
        6
    """
    check_epsilons("epsilons", epsilons)
    slope, answers = slope_of(model), answers_of(model)
    distances = (0, *sorted(set(epsilons))) if epsilons else ()
    cells = [(name, epsilon) for name in ATTACKS for epsilon in distances]
    right = dict.fromkeys(cells, 0)
    work = [(start, cell) for start in range(0, len(images), BATCH) for cell in cells]
    for start, (name, epsilon) in tqdm(work, "attacking", delay=1.5, disable=not verbose):
        batch, given = images[start : start + BATCH], labels[start : start + BATCH]
        rng = np.random.default_rng((seed, start))
        attacked = ATTACKS[name](slope, batch, given, epsilon, rng) if epsilon else batch
        right[name, epsilon] += int(np.sum(answers(attacked) == given))
    return _table(right, len(images))


def _table(right: dict[tuple[str, int], int], images: int) -> pd.DataFrame:
    rows = pd.DataFrame(list(right), columns=["attack", "epsilon"])
    counts = np.array(list(right.values()))
    low, high = wilson(counts, images)
    return rows.assign(images=images, right=counts, accuracy=counts / images, low=low, high=high)


def check_epsilons(argument: str, epsilons: object) -> None:
    """Raise `InputError` unless every epsilon is a distance between pixel values."""
    ok = isinstance(epsilons, list | tuple | range) and all(
        is_whole(epsilon, least=1) and epsilon <= 255 for epsilon in epsilons
    )
    expected = "a list of whole numbers from 1 to 255, in units of pixel values"
    check_number(argument, epsilons, expected=expected, ok=ok)


def slope_of(model: keras.Model) -> Slope:
    """Return the slope of the cross-entropy of a model of uint8 images, by their values."""
    network = on_floats(model)

    @tf.function(reduce_retracing=True, autograph=False)
    def slope(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = network(images, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tape.gradient(losses, images)

    return lambda images, labels: slope(tf.constant(images), tf.constant(labels)).numpy()


def on_floats(model: keras.Model) -> keras.Model:
    """Return the same network on float32 images of values from 0 to 255; the weights are shared.

    A network of uint8 images has no slope: its input, and that of a network within it such as
    test-time views have, would round.

    Args:
        model: functional, from uint8 images to logits.

    Example:
        >>> from kclassify.evaluation.adversarial import on_floats
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("convnet", input_shape=(8, 8, 3), num_classes=2, depth=2)
        >>> on_floats(model).input.dtype
        'float32'
    """

    both = saliency.on_floats(model)
    return keras.Model(both.inputs[0], both.outputs[1], name=model.name)


def _as_images(pixels: np.ndarray) -> np.ndarray:
    """Return float images as uint8: no further away, since epsilons are whole numbers."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
