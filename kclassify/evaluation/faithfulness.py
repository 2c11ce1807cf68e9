"""Whether a map says what the network looks at: by hiding and showing what it points to.

Two things are asked. Are the maps better than others that cannot know: the same maps moved within
the image, and the maps of networks of the same architecture whose weights were shuffled? And are
they other maps than those of a shuffled network at all (Adebayo et al. 2018, "Sanity Checks for
Saliency Maps")? Maps that are not better explain nothing that was learned.

What this cannot say: whether the network looks at the right thing, nor anything of a single map,
since it is tested over many images. The hidden pixels also make images that no training had.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata, t, wilcoxon

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402

from kclassify.evaluation.saliency import METHODS, Probability, class_probability  # noqa: E402

STEPS = 10
# The blur of an image of which nothing is shown yet, as a share of its side.
BLUR = 0.125
# Shuffled networks: maps must be better than another such network's are likely to be.
SHUFFLED = 8
LEVEL = 0.05


@dataclass(frozen=True)
class Check:
    """What the check of a method on a network found.

    Attributes:
        images: how many.
        gain: insertion less deletion, the mean over the images.
        moved: the same of the maps, moved within the images.
        unlearned: the same of the maps of shuffled networks, their mean.
        p: how likely maps that explain nothing are as good; the larger of the two comparisons.
        correlation: mean rank correlation with the maps of the first shuffled network.
    """

    images: int
    gain: float
    moved: float
    unlearned: float
    p: float
    correlation: float

    @property
    def flagged(self) -> bool:
        """Whether the maps were not shown to explain anything."""
        return not (self.p < LEVEL and self.gain > max(self.moved, self.unlearned, 0.0))


def faithfulness(
    model: keras.Model, images: np.ndarray, class_ids: np.ndarray, maps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas under the curves of deletion and insertion, Petsiuk et al. 2018, "RISE".

    Deletion gives the pixels the image's mean colour, the highest of the map first; insertion
    shows them in a blurred image. A good map has a low deletion and a high insertion.

    Args:
        model: uint8 images to logits.
        images: uint8 ``(n, height, width, channels)``.
        class_ids: ``(n,)``, the class whose probability is followed.
        maps: float ``(n, height, width)``.

    Returns:
        Deletion and insertion, ``(n,)`` each, from 0 to 1.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.faithfulness import faithfulness
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("convnet", input_shape=(8, 8, 3), num_classes=2, depth=2)
        >>> images = np.zeros((3, 8, 8, 3), "uint8")
        >>> deletion, insertion = faithfulness(model, images, np.zeros(3, int), np.ones((3, 8, 8)))
        >>> deletion.shape, insertion.shape
        ((3,), (3,))
    """
    (deletion,), (insertion,) = _areas(class_probability(model), images, class_ids, [maps])
    return deletion, insertion


def _areas(
    probability: Probability, images: np.ndarray, class_ids: np.ndarray, sets: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return deletion and insertion ``(sets, n)`` of several sets of maps of the same images.

    Where nothing and where all is shown they are alike, and asked for once.
    """
    grey = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape).astype(np.uint8)
    blur = [0, *(BLUR * side for side in images.shape[1:3]), 0]
    blurred = gaussian_filter(images.astype(np.float32), blur).astype(np.uint8)
    areas = []
    for under, over in ((images, grey), (blurred, images)):
        first, last = probability(under, class_ids), probability(over, class_ids)
        between = [_between(probability, under, over, class_ids, maps) for maps in sets]
        curves = [np.stack([first, *steps, last]) for steps in between]
        areas.append(np.trapezoid(curves, dx=1 / STEPS, axis=1))
    return areas[0], areas[1]


def _between(
    probability: Probability,
    under: np.ndarray,
    over: np.ndarray,
    class_ids: np.ndarray,
    maps: np.ndarray,
) -> np.ndarray:
    """Return the probabilities ``(steps, n)`` as ever more of `over` is laid on `under`."""
    order, steps = _places(maps), np.arange(1, STEPS) / STEPS
    mixed = np.concatenate([np.where(order < step, over, under) for step in steps])
    return probability(mixed, np.tile(class_ids, len(steps))).reshape(len(steps), -1)


def check_method(
    network: keras.Model,
    images: np.ndarray,
    class_ids: np.ndarray,
    method: str,
    *,
    judged: keras.Model | None = None,
) -> Check:
    """Tell whether a method's maps explain what a network learned.

    They must be better than themselves when moved, image by image (Wilcoxon's one-sided
    signed-rank test), and better than those of one more shuffled network would be: above the
    one-sided 95 % prediction interval of the means of eight. The larger probability counts.

    Args:
        network: uint8 images to logits; its probabilities are what must be explained.
        images: uint8 ``(n, height, width, channels)``; of fewer than six, nothing can be shown.
        class_ids: ``(n,)``, the class that each is asked for.
        method: a name in `METHODS`.
        judged: the network whose maps are judged, by default `network`.
    """
    maps = METHODS[method](judged or network, images, class_ids)
    others = _unlearned(network, images, class_ids, method)
    sets = [maps, _moved(maps), *others]
    deletion, insertion = _areas(class_probability(network), images, class_ids, sets)
    gains, moved, *rest = insertion - deletion
    unlearned = np.mean(rest, axis=1)
    return Check(
        images=len(images),
        gain=float(gains.mean()),
        moved=float(moved.mean()),
        unlearned=float(unlearned.mean()),
        p=max(_p_of_images(gains - moved), _p_of_networks(float(gains.mean()), unlearned)),
        correlation=_correlation(maps, others[0]),
    )


def _unlearned(
    network: keras.Model, images: np.ndarray, class_ids: np.ndarray, method: str
) -> list[np.ndarray]:
    """Return the maps of shuffled networks."""
    twin, maps = keras.models.clone_model(network), []
    for seed in range(SHUFFLED):
        twin.set_weights(shuffled(network, seed))
        maps.append(METHODS[method](twin, images, class_ids))
    return maps


def shuffled(network: keras.Model, seed: int) -> list[np.ndarray]:
    """Return the weights of `network`, each array's values in another order."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(array.ravel()).reshape(array.shape) for array in network.get_weights()]


def _places(maps: np.ndarray) -> np.ndarray:
    """Return the place of each pixel, from 0 up to 1, the highest first; equal ones by lot."""
    flat = maps.reshape(len(maps), -1)
    lots = np.random.default_rng(0).permutation(flat.shape[1])
    order = lots[np.argsort(-flat[:, lots], axis=1, kind="stable")]
    places = np.empty(flat.shape)
    np.put_along_axis(places, order, np.arange(flat.shape[1])[None] / flat.shape[1], axis=1)
    return places.reshape(*maps.shape, 1)


def _moved(maps: np.ndarray) -> np.ndarray:
    """Return the maps half an image further down and right; what leaves comes in again."""
    return np.roll(maps, (maps.shape[1] // 2, maps.shape[2] // 2), axis=(1, 2))


def _p_of_images(differences: np.ndarray) -> float:
    """Return Wilcoxon's probability of differences this far above zero; 1 where all are zero."""
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, alternative="greater", method="approx").pvalue)


def _p_of_networks(gain: float, unlearned: np.ndarray) -> float:
    """Return how likely one more shuffled network has a gain this high, by Student's t."""
    above, count = gain - float(unlearned.mean()), len(unlearned)
    spread = float(unlearned.std(ddof=1)) * np.sqrt(1 + 1 / count)
    # Maps that are all alike have no spread: any gain over them is one.
    return float(t.sf(above / spread, count - 1)) if spread > 0 else float(above <= 0)


def _correlation(maps: np.ndarray, others: np.ndarray) -> float:
    """Return Spearman's rank correlation, the mean over the images; of a flat map it is 0."""
    ranks = [rankdata(one.reshape(len(one), -1), axis=1) for one in (maps, others)]
    a, b = (one - one.mean(axis=1, keepdims=True) for one in ranks)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(np.mean((a * b).sum(axis=1) / np.where(scale > 0, scale, 1.0)))
