"""What happens beside the steps of a training, as Keras callbacks."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.models.weights import weights_hash
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.progressive import stage_of  # noqa: E402
from kclassify.training.schedules import WarmUpThenShape  # noqa: E402

SECONDS_BETWEEN_LOOKS = 0.5
FIRST_STEPS = 5
# Keras refuses them where the rate follows a schedule, some only after many epochs.
SETTING_THE_RATE = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


def check_callbacks(callbacks: object) -> None:
    """Raise `InputError` unless they are callbacks of Keras that go with a schedule."""
    if not isinstance(callbacks, Sequence) or not all(
        isinstance(one, keras.callbacks.Callback) for one in callbacks
    ):
        raise InputError(
            "`callbacks` must be a list of instances of keras.callbacks.Callback. "
            f"Received: callbacks={callbacks!r}."
        )
    for one in callbacks:
        if isinstance(one, SETTING_THE_RATE):
            raise InputError(
                "`callbacks` must leave the learning rate to `schedule`. "
                f"Received: {type(one).__name__}. Leave it out, and choose a schedule such as "
                "'step' or 'cosine'."
            )


class Progress(keras.callbacks.Callback):
    """One bar over all the steps, with the time that is left, and a line for each epoch.

    Args:
        schedule: it knows the steps of the whole training, which a time budget changes.
        done: how many of them were made before.
    """

    def __init__(self, schedule: WarmUpThenShape, *, done: int):
        super().__init__()
        self.schedule = schedule
        self.bar = tqdm(
            total=schedule.total_steps, initial=done, unit="step", desc="training", mininterval=0.5
        )
        self.before = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note which step the epoch begins with."""
        self.before = epoch * self.params["steps"]
        self.bar.total = self.schedule.total_steps

    def on_train_batch_end(self, batch, logs=None):
        """Advance by the steps that were executed since the last call."""
        self.bar.update(self.before + batch + 1 - self.bar.n)

    def on_epoch_end(self, epoch, logs=None):
        """Print the epoch's figures above the bar."""
        logs = logs or {}
        shown = ("loss", "accuracy", "val_loss", "val_accuracy")
        figures = ", ".join(f"{name} {logs[name]:.4f}" for name in shown if name in logs)
        self.bar.write(f"epoch {epoch + 1}: {figures}")

    def on_train_end(self, logs=None):
        """Close the bar."""
        self.bar.close()


class HistoryFile(keras.callbacks.Callback):
    """Write `history.csv` anew after each epoch, with the learning rate and the speed.

    Args:
        run: the run to write into.
        batch_size: images a step.
    """

    def __init__(self, run: Run, *, batch_size: int):
        super().__init__()
        self.run = run
        self.batch_size = batch_size
        self.rows: list[dict[str, Any]] = []
        # Of the epoch in work: how many steps were made before it, and when it began.
        self.steps = 0
        self.started: float | None = None

    @property
    def state(self) -> dict[str, Any]:
        """The rows, and how far the epoch in work is."""
        elapsed = 0.0 if self.started is None else time.perf_counter() - self.started
        return {"rows": self.rows, "elapsed": elapsed, "steps": self.steps}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.rows, self.steps = state["rows"], state["steps"]
        self.started = time.perf_counter() - state["elapsed"] if state["elapsed"] else None

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock, unless the epoch is gone on with."""
        if self.started is None:
            self.steps = int(self.model.optimizer.iterations.numpy())
            self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Add a row. The seconds are the epoch's whole wall-clock, validation included."""
        seconds = time.perf_counter() - (self.started or 0.0)
        self.started = None
        images = (int(self.model.optimizer.iterations.numpy()) - self.steps) * self.batch_size
        row = {
            "epoch": epoch + 1,
            **{name: float(value) for name, value in (logs or {}).items()},
            "learning_rate": float(self.model.optimizer.learning_rate.numpy()),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
        }
        self.rows.append(row)
        self.run.write(self.run.history_file, pd.DataFrame(self.rows).set_index("epoch"))


class ValidationSize(keras.callbacks.Callback):
    """Have images validated on at the size that images are being trained on.

    At any other size the network's normalization is off, and what it has learned does not show.
    The size is noted for the callbacks that come after, as `image_scale`.

    Args:
        scales: the sizes, see `kclassify.data.progressive.growing`.
        steps: of the whole training.
    """

    def __init__(self, scales: tuple[float, ...], *, steps: int):
        super().__init__()
        self.scales, self.steps = scales, steps
        with tf.device("CPU:0"):
            self.stage = tf.Variable(0, trainable=False)

    def on_test_begin(self, logs=None):
        """Set the size to that of the last step."""
        last = int(self.model.optimizer.iterations.numpy()) - 1
        self.stage.assign(stage_of(last, count=len(self.scales), steps=self.steps))

    def on_epoch_end(self, epoch, logs=None):
        """Note the size."""
        if logs is not None:
            logs["image_scale"] = self.scales[int(self.stage)]


class BestWeights(keras.callbacks.Callback):
    """Keep the weights with the best validation accuracy.

    Equal accuracies are told apart by the validation loss. Where images grow, any epoch of larger
    ones is better than those of smaller ones, for whose size the network is not kept; and where
    the weights become sparser, any epoch of sparser ones.

    Args:
        network: the model whose weights are kept: the one that is trained, or a part of it.
        patience: epochs without a better one after which training stops, or None; it does not
            before images have their full size.
    """

    def __init__(self, network: keras.Model, *, patience: int | None):
        super().__init__()
        self.network = network
        self.patience = patience
        self.best: tuple[float, ...] = (0.0, 0.0, -math.inf, -math.inf)
        self.best_epoch: int | None = None
        self.weights: list[np.ndarray] = []
        self.stopped: str | None = None

    def on_epoch_end(self, epoch, logs=None):
        """Compare with the best so far; an epoch with a loss that is no number is never it."""
        logs = logs or {}
        aim = (logs.get("image_scale", 1.0), logs.get("sparsity", 1.0))
        score = (*aim, logs["val_accuracy"], -logs["val_loss"])
        if math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"]) and score > self.best:
            self.best, self.best_epoch = score, epoch + 1
            self.weights = self.network.get_weights()
        elif self.patience and aim[0] == 1 and epoch + 1 - (self.best_epoch or 0) >= self.patience:
            self.stopped = "early_stopping"
            self.model.stop_training = True

    @property
    def accuracy(self) -> float:
        """The best validation accuracy."""
        return self.best[-2]

    @property
    def state(self) -> dict[str, Any]:
        """The best so far."""
        names = ("best", "best_epoch", "weights", "stopped")
        return {name: getattr(self, name) for name in names}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.best = tuple(state["best"])
        self.best_epoch, self.weights = state["best_epoch"], state["weights"]
        self.stopped = state["stopped"]


class AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Show the averaged weights at an epoch's end, within the constraints of the variables.

    Keras averages before it constrains: what is pruned would not stay so, nor what is clipped.
    """

    def on_epoch_end(self, epoch, logs=None):
        """Swap them in, and constrain them."""
        super().on_epoch_end(epoch, logs)
        for variable in self.model.trainable_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))


class FirstSteps(keras.callbacks.Callback):
    """Write down the hash of the weights after the first steps, for `verify_run`.

    Args:
        run: the run whose `first_steps_file` is written; None writes nothing, and stops there.
        count: how many steps, or as many as the first epoch has.
    """

    def __init__(self, run: Run | None, *, count: int = FIRST_STEPS):
        super().__init__()
        self.run, self.count = run, count
        self.found: dict[str, Any] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What was found."""
        return {"found": self.found}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.found = state["found"]

    def on_train_batch_end(self, batch, logs=None):
        """Look whether that was enough steps."""
        if self.found is None and batch + 1 >= min(self.count, self.params["steps"]):
            self.found = {"steps": batch + 1, "weights_sha256": weights_hash(self.model)}
            if self.run is None:
                self.model.stop_training = True
            else:
                self.run.write(self.run.first_steps_file, self.found)


class StopOnNaN(keras.callbacks.Callback):
    """Stop soon after the loss is NaN or infinite.

    The running loss of the epoch, which one bad step makes NaN for good, is looked at twice a
    second: reading it waits for the step to be over, and the next one cannot be queued behind it.
    """

    def __init__(self):
        super().__init__()
        self.step: int | None = None
        self.looked = 0.0

    @property
    def state(self) -> dict[str, Any]:
        """The step by which the loss was no number, if it was."""
        return {"step": self.step}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]

    def on_train_batch_end(self, batch, logs=None):
        """Look at the loss, if it is time."""
        if time.perf_counter() - self.looked >= SECONDS_BETWEEN_LOOKS:
            self.looked = time.perf_counter()
            self._look(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        """Look at the loss of the whole epoch."""
        self._look(logs or {})

    def _look(self, logs) -> None:
        if self.step is None and not math.isfinite(logs.get("loss", 0.0)):
            self.step = int(self.model.optimizer.iterations.numpy())
            self.model.stop_training = True
