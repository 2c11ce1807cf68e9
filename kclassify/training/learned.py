"""Leaving out what no longer teaches: the images whose loss was the smallest when last seen.

The losses are those of the training steps themselves, so that it costs nothing to know them. They
are old by up to an epoch or, of what is left out, older; what was left out comes back when the
losses of enough others have become smaller than its own was. Selective backpropagation (Jiang et
al. 2019) chooses within a batch, after a pass forward through all of it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.config import MIXING, FitConfig
from kclassify.data.selection import Selection, select
from kclassify.data.spec import PackedImages, Source

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.pipeline import epoch_order  # noqa: E402
from kclassify.training.replicas import Replicas  # noqa: E402

# The losses of the first epoch are those of a network that knows nothing.
FULL_EPOCHS = 2


def why_not(config: FitConfig, source: Source | None = None) -> str | None:
    """Return why nothing can be left out, in words, or None where it can, as far as is known."""
    if config.augmentation in MIXING:
        return f"augmentation={config.augmentation!r} mixes images, and their losses"
    if config.data_service is not None:
        return "the workers of a data service give batches in an order of their own"
    if source is not None and isinstance(source.splits["train"].images, PackedImages):
        return "packed images are read in the order of their files"
    return None


def skipping_where_it_can(
    config: FitConfig, source: Source | None = None, *, given: Mapping[str, Any]
) -> FitConfig:
    """Return `config` without a preset's `skip_learned` where nothing can be left out.

    Args:
        config: a preset's, with what the user changed of it.
        source: the data, where it is loaded already.
        given: what the user chose.

    Raises:
        InputError: it was given.
    """
    reason = None if config.skip_learned is None else why_not(config, source)
    if reason is None:
        return config
    if given.get("skip_learned") is not None:
        raise InputError(
            f"`skip_learned` must be None where the loss of each image is not known in time: "
            f"{reason}. Received: skip_learned={config.skip_learned}. Leave one of the two out."
        )
    return config.replace(skip_learned=None)


class SeenLosses:
    """The loss of each image of an epoch, by its position in the epoch's order.

    Each replica writes those of its share of a batch. They are not Keras's variables, which it
    would count among the network's.

    Args:
        replicas: what makes the steps.
        steps: of an epoch.
        batch_size: images a step.
    """

    def __init__(self, replicas: Replicas, *, steps: int, batch_size: int):
        self.replicas, self.steps, self.batch_size = replicas, steps, batch_size
        on_read = tf.VariableSynchronization.ON_READ
        with replicas.scope():
            self._losses = tf.Variable(
                tf.zeros(steps * batch_size), trainable=False, synchronization=on_read,
                aggregation=tf.VariableAggregation.SUM,
            )  # fmt: skip
            self._step = tf.Variable(
                tf.constant(0, tf.int64), trainable=False, synchronization=on_read,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )  # fmt: skip

    def note(self, losses: tf.Tensor) -> None:
        """Write down those of a step, within a replica."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        part = self.batch_size // self.replicas.count
        first = self._step % self.steps * self.batch_size + tf.cast(replica, tf.int64) * part
        tf.raw_ops.ResourceScatterUpdate(
            # Distributed variables have no such method; this is the replica's own.
            resource=self._losses.handle, indices=first + tf.range(part, dtype=tf.int64),
            updates=losses,
        )  # fmt: skip
        self._step.assign_add(1)

    def begin(self, *, step: int = 0, losses: np.ndarray | None = None) -> None:
        """Begin with a step of an epoch, and the losses of the steps before it.

        Of an epoch's losses the first replica has all that were noted before, so that their sum
        over the replicas is what it was, to the bit.
        """
        nothing = np.zeros(self.steps * self.batch_size, np.float32)
        with self.replicas.scope():
            self._step.assign(step)
            own = tf.distribute.get_strategy().experimental_local_results(self._losses)
        for place, variable in enumerate(own):
            first = self.replicas.chief and place == 0 and losses is not None
            variable.assign(losses if first else nothing)

    def read(self) -> tuple[int, np.ndarray]:
        """Return how many steps of the epoch were made, and its losses; all workers call it."""
        with self.replicas.scope():
            return int(self._step.numpy()), self._losses.numpy()


def watch(model: keras.Model, seen: SeenLosses) -> None:
    """Have a model note the loss of each image that it is trained on.

    A class of its own would be in the files that a user's callbacks save, and could not be read.
    """
    keras_own = model.compute_loss

    def compute_loss(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if training:
            seen.note(model.loss.call(y, y_pred))
        return keras_own(x, y, y_pred, sample_weight, training)

    model.compute_loss = compute_loss


class SkipLearned(keras.callbacks.Callback):
    """Choose the images of each epoch by the losses that they last had.

    Args:
        config: of the training.
        images: how many there are.
        seen: where a step's losses are noted.
    """

    def __init__(self, config: FitConfig, *, images: int, seen: SeenLosses):
        super().__init__()
        self.config, self.seen = config, seen
        self.last = np.full(images, np.inf, np.float32)

    @property
    def state(self) -> dict[str, Any]:
        """The losses before this epoch, and those of its steps so far."""
        step, losses = self.seen.read()
        return {"last": self.last, "step": step, "losses": losses}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.last = state["last"]
        self.seen.begin(step=state["step"], losses=state["losses"])

    def selection(self, epoch: int) -> Selection | None:
        """Return what an epoch shows; None for all images, in their usual order."""
        if epoch < FULL_EPOCHS:
            return None
        positions, share = self.seen.steps * self.seen.batch_size, self.config.skip_learned or 0.0
        return select(
            self.last, share=share, positions=positions, seed=self.config.seed, epoch=epoch
        )

    def on_train_begin(self, logs=None):
        """Forget what was noted while the speed was measured."""
        self.seen.begin()

    def on_epoch_end(self, epoch, logs=None):
        """Remember the losses of the epoch, of what came twice the later; note what was left out.

        Keras's loss and accuracy are those of the images that were shown.
        """
        found = self.selection(epoch)
        order = found.indices if found else epoch_order(
            len(self.last), batch_size=self.seen.batch_size, seed=self.config.seed, epoch=epoch
        )  # fmt: skip
        step, losses = self.seen.read()
        # The latest first, for NumPy to find.
        shown = order[: step * self.seen.batch_size][::-1]
        images, places = np.unique(shown, return_index=True)
        self.last = self.last.copy()
        self.last[images] = losses[: len(shown)][::-1][places]
        self.seen.begin()
        if logs is not None:
            logs["left_out"] = self.config.skip_learned if found else 0.0
