"""What happens beside the steps of a training, as Keras callbacks."""

import math
import time
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.runs import Run, replacing

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.progressive import stage_of  # noqa: E402
from kclassify.training.schedules import WarmUpThenShape  # noqa: E402

SECONDS_BETWEEN_LOOKS = 0.5


class Progress(keras.callbacks.Callback):
    """One bar over all the steps, with the time that is left, and a line for each epoch.

    Args:
        schedule: it knows the steps of the whole training, which a time budget changes.
    """

    def __init__(self, schedule: WarmUpThenShape):
        super().__init__()
        self.schedule = schedule
        self.bar = tqdm(total=schedule.total_steps, unit="step", desc="training", mininterval=0.5)
        self.seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note where in the epoch the steps are counted from."""
        self.seen = 0
        self.bar.total = self.schedule.total_steps

    def on_train_batch_end(self, batch, logs=None):
        """Advance by the steps that were executed since the last call."""
        self.bar.update(batch + 1 - self.seen)
        self.seen = batch + 1

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
        self.steps = 0
        self.started = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.steps = int(self.model.optimizer.iterations)
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Add a row. The seconds are the epoch's whole wall-clock, validation included."""
        seconds = time.perf_counter() - self.started
        images = (int(self.model.optimizer.iterations) - self.steps) * self.batch_size
        row = {
            "epoch": epoch + 1,
            **{name: float(value) for name, value in (logs or {}).items()},
            "learning_rate": float(self.model.optimizer.learning_rate),
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
        last = int(self.model.optimizer.iterations) - 1
        self.stage.assign(stage_of(last, count=len(self.scales), steps=self.steps))

    def on_epoch_end(self, epoch, logs=None):
        """Note the size."""
        if logs is not None:
            logs["image_scale"] = self.scales[int(self.stage)]


class BestWeights(keras.callbacks.Callback):
    """Keep the weights with the best validation accuracy, and put them back at the end.

    Equal accuracies are told apart by the validation loss. Where images grow, any epoch of larger
    ones is better than those of smaller ones, for whose size the network is not kept. Keras's
    ModelCheckpoint writes in place; here the file on disk is always a whole one.

    Args:
        run: the run whose `best_weights_file` is written.
        patience: epochs without a better one after which training stops, or None.
    """

    def __init__(self, run: Run, *, patience: int | None):
        super().__init__()
        self.run = run
        self.patience = patience
        self.best: tuple[float, float, float] = (0.0, -math.inf, -math.inf)
        self.best_epoch: int | None = None
        self.weights: list[np.ndarray] = []
        self.stopped: str | None = None

    def on_epoch_end(self, epoch, logs=None):
        """Compare with the best so far; an epoch with a loss that is no number is never it."""
        logs = logs or {}
        score = (logs.get("image_scale", 1.0), logs["val_accuracy"], -logs["val_loss"])
        if math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"]) and score > self.best:
            self.best, self.best_epoch = score, epoch + 1
            self.weights = self.model.get_weights()
            with replacing(self.run.best_weights_file) as beside:
                self.model.save_weights(beside)
        elif self.patience and epoch + 1 - (self.best_epoch or 0) >= self.patience:
            self.stopped = "early_stopping"
            self.model.stop_training = True

    @property
    def accuracy(self) -> float:
        """The best validation accuracy."""
        return self.best[1]

    def on_train_end(self, logs=None):
        """Restore the best weights."""
        if self.weights:
            self.model.set_weights(self.weights)


class StopOnNaN(keras.callbacks.Callback):
    """Stop soon after the loss is NaN or infinite.

    The running loss of the epoch, which one bad step makes NaN for good, is looked at twice a
    second: reading it waits for the step to be over, and the next one cannot be queued behind it.
    """

    def __init__(self):
        super().__init__()
        self.step: int | None = None
        self.looked = 0.0

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
            self.step = int(self.model.optimizer.iterations)
            self.model.stop_training = True
