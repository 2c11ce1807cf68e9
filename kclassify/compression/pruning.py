"""Pruning of single weights: which go, and how they stay away while the others are trained.

Zeros make a file smaller that is packed, not a network faster: for that, whole channels must go,
see `kclassify.compression.narrowing`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import check_choice, check_number
from kclassify.data.spec import Examples

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import eval_dataset  # noqa: E402
from kclassify.training.losses import ClassifierLoss  # noqa: E402
from kclassify.training.schedules import WarmUpThenShape  # noqa: E402

Arrays = list[np.ndarray]
# Of the model as it is: the higher, the longer a weight stays.
Scorer = Callable[[keras.Model], Arrays]

CRITERIA = ("magnitude", "largest", "random", "gradient")
SCOPES = ("global", "layer")
RAMPS = ("cubic", "one_shot")
# Images that gradients are taken on, and how many at a time.
GRADIENT_IMAGES, GRADIENT_BATCH = 2048, 256
# The share of the steps after which a cubic schedule has reached its sparsity, and its steps.
REACHED, UPDATES = 0.6, 30


def kernels(model: keras.Model) -> list[Any]:
    """Return the weights that may be pruned: the trained kernels, not biases or normalization."""
    return [variable for variable in model.trainable_variables if "kernel" in variable.name]


def sparsity_of(model: keras.Model) -> float:
    """Return the share of zeros among the weights of the kernels.

    Example:
        >>> from kclassify.compression.pruning import sparsity_of
        >>> from kclassify.models.registry import build_model
        >>> sparsity_of(build_model("lenet", input_shape=(16, 16, 1), num_classes=2))
        0.0
    """
    values = [kernel.numpy() for kernel in kernels(model)]
    return sum(int(np.sum(v == 0)) for v in values) / max(1, sum(v.size for v in values))


def check_pruning(*, sparsity: object, criterion: object, scope: object, ramp: object) -> None:
    """Raise `InputError` for what none of these arguments takes."""
    number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    ok = number and 0 <= sparsity < 1  # type: ignore[operator]
    check_number("sparsity", sparsity, expected="a share of at least 0 and below 1", ok=ok)
    check_choice("criterion", criterion, CRITERIA)
    check_choice("scope", scope, SCOPES)
    check_choice("ramp", ramp, RAMPS)


def scorer(criterion: str, *, seed: int, train: Examples) -> Scorer:
    """Return what scores the weights of a model's kernels; those of the lowest score go first.

    Args:
        criterion: ``"magnitude"`` keeps the largest absolute values; ``"largest"`` keeps the
            smallest, as a control; ``"random"``; ``"gradient"`` keeps those for which gradient
            times weight is largest in absolute value, summed over batches of training images: to
            the first order, what the loss would change by (Molchanov et al. 2017, for weights).
        seed: of the random scores.
        train: the training images.
    """

    def drawn(model: keras.Model) -> Arrays:
        rng = np.random.default_rng(seed)
        return [rng.random(kernel.shape, np.float32) for kernel in kernels(model)]

    return {
        "magnitude": lambda model: [np.abs(kernel.numpy()) for kernel in kernels(model)],
        "largest": lambda model: [-np.abs(kernel.numpy()) for kernel in kernels(model)],
        "random": drawn,
        "gradient": lambda model: gradient_scores(model, train),
    }[criterion]


def gradient_scores(model: keras.Model, train: Examples) -> Arrays:
    """Return ``|gradient * weight|`` of each kernel, summed over batches of training images."""
    variables, loss_of = kernels(model), ClassifierLoss()

    @tf.function(autograph=False)
    def of_batch(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=False))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        return [tf.abs(g * v) for g, v in zip(gradients, variables, strict=True)]

    some = train.some(GRADIENT_IMAGES, seed=0)
    batches = eval_dataset(some, batch_size=GRADIENT_BATCH)
    found = [[part.numpy() for part in of_batch(*batch)] for batch in batches]
    return [np.sum(parts, axis=0) for parts in zip(*found, strict=True)]


def masks_of(scores: Arrays, *, sparsity: float, scope: str) -> Arrays:
    """Return what is kept: bool arrays like `scores`, in which a share of `sparsity` is False.

    Args:
        scores: an array a kernel.
        sparsity: the share that goes.
        scope: ``"layer"`` takes that share of each kernel, ``"global"`` of all weights together,
            whichever kernels they are in.

    Example:
        >>> import numpy as np
        >>> from kclassify.compression.pruning import masks_of
        >>> [mask.tolist() for mask in masks_of([np.arange(4.0)], sparsity=0.5, scope="layer")]
        [[False, False, True, True]]
    """
    if scope == "layer":
        return [_kept(score, sparsity) for score in scores]
    flat = _kept(np.concatenate([score.ravel() for score in scores]), sparsity)
    ends = np.cumsum([score.size for score in scores])[:-1]
    parts = zip(np.split(flat, ends), scores, strict=True)
    return [part.reshape(score.shape) for part, score in parts]


def _kept(scores: np.ndarray, sparsity: float) -> np.ndarray:
    # By rank, not by a threshold, which equal scores would be all above or all below.
    gone = np.argsort(scores, axis=None, kind="stable")[: round(sparsity * scores.size)]
    kept = np.ones(scores.size, bool)
    kept[gone] = False
    return kept.reshape(scores.shape)


def apply_masks(model: keras.Model, masks: Arrays) -> None:
    """Set to zero what is not kept."""
    for kernel, mask in zip(kernels(model), masks, strict=True):
        kernel.assign(np.where(mask, kernel.numpy(), 0.0))


class Mask(keras.constraints.Constraint):
    """Keep weights at zero after each step; where there is another constraint, after it.

    Args:
        mask: bool, of the weights' shape; it can be changed while a network is trained.
        then: the constraint that was there.
    """

    def __init__(self, mask: np.ndarray, *, then: Callable | None = None):
        self.mask = tf.Variable(mask.astype(np.float32), trainable=False)
        self.then = then

    def __call__(self, w):
        w = w if self.then is None else self.then(w)
        return w * tf.cast(self.mask, w.dtype)


def hold(model: keras.Model, masks: Arrays) -> list[Mask]:
    """Have the kernels of a model keep to `masks` in training, and return what can change them.

    The constraints are on the variables, not on the layers: they do not get into a file.
    """
    held = []
    for kernel, mask in zip(kernels(model), masks, strict=True):
        kernel.constraint = Mask(mask, then=kernel.constraint)
        held.append(kernel.constraint)
    return held


class GradualPruning(keras.callbacks.Callback):
    """Raise the sparsity while a network is trained, quickly at first (Zhu and Gupta 2017).

    After t of n updates it is ``sparsity * (1 - (1 - t / n)**3)``. What is to stay is chosen anew
    each time among what is left, and the sparsity of an epoch is noted for the callbacks that
    come after, since no earlier epoch is what was asked for.

    Args:
        network: the model that is pruned.
        held: its masks, see `hold`.
        score: what scores its weights.
        sparsity: in the end.
        scope: see `masks_of`.
        schedule: it knows the steps of the whole training, which a time budget changes.
    """

    def __init__(
        self,
        network: keras.Model,
        held: Sequence[Mask],
        *,
        score: Scorer,
        sparsity: float,
        scope: str,
        schedule: WarmUpThenShape,
    ):
        super().__init__()
        self.network, self.held, self.score = network, held, score
        self.sparsity, self.scope, self.schedule = sparsity, scope, schedule
        self.updates = 0
        # The steps before the epoch in work: asking the optimizer would wait for each step.
        self.before = 0

    @property
    def state(self) -> dict[str, Any]:
        """The masks, and how often they were changed."""
        return {"updates": self.updates, "masks": [mask.mask.numpy() for mask in self.held]}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for mask, value in zip(self.held, state["masks"], strict=True):
            mask.mask.assign(value)

    def on_epoch_begin(self, epoch, logs=None):
        """Note which step the epoch begins with."""
        self.before = epoch * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        """Prune, where it is time."""
        done = (self.before + batch + 1) / (REACHED * self.schedule.total_steps)
        due = min(UPDATES, int(done * UPDATES))
        if due > self.updates:
            self.updates = due
            self._prune(self.sparsity * (1 - (1 - due / UPDATES) ** 3))

    def on_epoch_end(self, epoch, logs=None):
        """Note the sparsity."""
        if logs is not None:
            logs["sparsity"] = round(sparsity_of(self.network), 4)

    def _prune(self, sparsity: float) -> None:
        scores = self.score(self.network)
        # What went before does not come back: it has had no chance to be worth anything.
        left = [
            np.where(held.mask.numpy() > 0, score, -np.inf)
            for held, score in zip(self.held, scores, strict=True)
        ]
        masks = masks_of(left, sparsity=sparsity, scope=self.scope)
        for held, mask in zip(self.held, masks, strict=True):
            held.mask.assign(mask.astype(np.float32))
        apply_masks(self.network, masks)
