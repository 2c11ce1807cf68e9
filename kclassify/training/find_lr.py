"""`find_lr`: the learning-rate range test (Smith 2017, "Cyclical learning rates")."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError, check_number, check_output_file, is_whole
from kclassify.config import resolve
from kclassify.data.sources import default_preset, load_source, prepare
from kclassify.runs import replacing

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.reporting.figures import rate_figure  # noqa: E402
from kclassify.training.session import Session, build_session, train_batches  # noqa: E402

LOWEST, HIGHEST = 1e-6, 10.0
# Of the running mean of the loss, as in fastai's finder.
SMOOTHING = 0.95
# The loss is past hope when it is this many times the least one.
DIVERGED = 4.0
# The mean is unsettled in the first steps, and the steepest descent is not looked for there.
SETTLING_STEPS = 10


@dataclass(frozen=True)
class RateTest:
    """What a learning-rate range test found.

    Attributes:
        table: a row a step: learning_rate, loss, and smoothed, the running mean of the loss.
        proposals: a learning rate for each rule: ``"minimum/10"``, a tenth of the rate at the least
            smoothed loss, and ``"steepest"``, the rate where it falls fastest.
        recommended: the rule to follow.
    """

    table: pd.DataFrame
    proposals: dict[str, float]
    recommended: str = "minimum/10"

    @property
    def learning_rate(self) -> float:
        """The rate that the recommended rule proposes."""
        return self.proposals[self.recommended]

    def __str__(self) -> str:
        marks = {self.recommended: " (recommended)"}
        return "\n".join(
            f"{rule:<11} learning_rate={rate:.2g}{marks.get(rule, '')}"
            for rule, rate in self.proposals.items()
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Draw the curve into the PNG file `path`, and write the table beside it as CSV."""
        with replacing(Path(path)) as beside:
            rate_figure(self.table, self.proposals).savefig(beside, format="png", dpi=150)
        with replacing(Path(path).with_suffix(".csv")) as beside:
            self.table.to_csv(beside)


class _Sweep(keras.optimizers.schedules.LearningRateSchedule):
    """Rise exponentially from `LOWEST` to `HIGHEST` over `steps`."""

    def __init__(self, steps: int):
        self.steps = steps

    def __call__(self, step):
        done = keras.ops.cast(step, "float32") / max(1, self.steps - 1)
        return LOWEST * (HIGHEST / LOWEST) ** done

    def get_config(self):
        """Return the constructor's arguments."""
        return {"steps": self.steps}


def find_lr(
    data: Any,
    *,
    preset: str | None = None,
    steps: int = 300,
    out: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    **config: Any,
) -> RateTest:
    """Train for a few steps at a rate that grows with each, and propose a learning rate.

    Nothing of the training is kept, and neither validation nor test is looked at.

    Args:
        data: as for `fit`.
        preset: as for `fit`: the optimizer, batch size and network are its own.
        steps: how many at most; it ends sooner when the loss is four times its least.
        out: a PNG file for the curve; the table goes beside it, as CSV.
        verbose: show a progress bar.
        **config: as for `fit`.

    Returns:
        A `RateTest`.

    Raises:
        InputError: something about the arguments or the data, or a loss that is no number from
            the start.

    Example:
        >>> import kclassify
        >>> found = kclassify.find_lr("digits", steps=30, verbose=False)
        >>> list(found.proposals)
        ['minimum/10', 'steepest']
    """
    ok = is_whole(steps, least=2 * SETTLING_STEPS)
    check_number("steps", steps, expected=f"at least {2 * SETTLING_STEPS}", ok=ok)
    if out is not None:
        check_output_file("out", os.fspath(out))
    settings = resolve(preset or default_preset(data), config).replace(progressive=None)
    runtime.set_threads(settings.threads)
    source = prepare(load_source(data, settings), settings, verbose=verbose)
    session = build_session(source, settings, schedule=_Sweep(steps))
    epochs = math.ceil(steps / session.steps)
    batches = train_batches(session, source, epochs=epochs).take(steps)
    table = _losses(session, batches, steps=steps, verbose=verbose)
    found = RateTest(table, proposals(table))
    if out is not None:
        found.save(out)
    return found


def proposals(table: pd.DataFrame) -> dict[str, float]:
    """Return the rate that each rule proposes for the curve in `table`."""
    rates, smoothed = table["learning_rate"].to_numpy(), table["smoothed"].to_numpy()
    least = SETTLING_STEPS + int(np.argmin(smoothed[SETTLING_STEPS:]))
    slopes = np.gradient(smoothed, np.log(rates))[SETTLING_STEPS : least + 1]
    steepest = SETTLING_STEPS + int(np.argmin(slopes))
    return {"minimum/10": float(rates[least]) / 10, "steepest": float(rates[steepest])}


def _losses(
    session: Session, batches: tf.data.Dataset, *, steps: int, verbose: bool
) -> pd.DataFrame:
    rows: list[tuple[float, float, float]] = []
    mean, least = 0.0, math.inf
    with tf.device(session.device), tqdm(
        total=steps, unit="step", desc="rising the rate", disable=not verbose
    ) as bar:  # fmt: skip
        for step, (images, labels) in enumerate(batches):
            rate, loss = (
                float(session.model.optimizer.learning_rate),
                _loss(session, images, labels),
            )
            if not math.isfinite(loss):
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smoothed = mean / (1 - SMOOTHING ** (step + 1))
            least = min(least, smoothed)
            rows.append((rate, loss, smoothed))
            bar.update()
            if smoothed > DIVERGED * least:
                break
    _check_began(rows)
    columns = ["learning_rate", "loss", "smoothed"]
    return pd.DataFrame(rows, columns=columns).rename_axis("step")


def _loss(session: Session, images: tf.Tensor, labels: tf.Tensor) -> float:
    # What Keras returns is the mean since the metrics were reset.
    session.model.reset_metrics()
    return float(session.model.train_on_batch(images, labels, return_dict=True)["loss"])


def _check_began(rows: list[tuple[float, float, float]]) -> None:
    if len(rows) < 2 * SETTLING_STEPS:
        raise InputError(
            "`data` and `loss` must give a loss that is a number at small learning rates. "
            f"Received: one that is NaN, infinite or growing after {len(rows)} steps, below the "
            f"rate {LOWEST * 10:.0e}. Look for class weights, labels or pixels that are too large."
        )
