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
from kclassify.atomic import replacing
from kclassify.checks import InputError, check_new_file, check_number, is_whole
from kclassify.data.sources import default_preset, load_source, prepare

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.reporting.figures import rate_figure  # noqa: E402
from kclassify.training.batch_size import (  # noqa: E402
    after_loading,
    before_loading,
    check_batch_fits,
)
from kclassify.training.session import Session, build_session, train_batches  # noqa: E402

LOWEST, HIGHEST = 1e-6, 10.0
# Below it no rate makes a loss diverge that is sound.
HARMLESS = 10 * LOWEST
# Of the running mean of the loss, as in fastai's finder.
SMOOTHING = 0.95
# The loss is past hope when it is this many times the least one.
DIVERGED = 4.0
# The mean is unsettled in the first steps, and the steepest descent is not looked for there.
SETTLING_STEPS = 10
FEWEST_STEPS = 2 * SETTLING_STEPS
# By default two passes, in which a network cannot yet know the images by heart, within these.
LEAST_STEPS, MOST_STEPS = 100, 300


@dataclass(frozen=True)
class RateTest:
    """What a learning-rate range test found.

    Attributes:
        table: a row a step: learning_rate, loss, and smoothed, the running mean of the loss.
        proposals: a learning rate for each rule: ``"minimum/10"``, a tenth of the rate at the least
            smoothed loss, and ``"steepest"``, the rate where it falls fastest.
        batch_size: images a step; the rates are for batches of it.
        recommended: the rule to follow.
    """

    table: pd.DataFrame
    proposals: dict[str, float]
    batch_size: int
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
    steps: int | None = None,
    out: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    **config: Any,
) -> RateTest:
    """Train for a few steps at a rate that grows with each, and propose a learning rate.

    The learning-rate range test of Smith (2017). Nothing of the training is kept, and neither
    validation nor test is looked at. All the images have their full size, whatever `progressive`.

    Args:
        data: as for `fit`.
        preset: as for `fit`: the optimizer, batch size and network are its own.
        steps: how many at most; it ends sooner when the loss is four times its least. By default
            two passes over the training images, but 100 to 300 steps.
        out: a new file for the curve, whose name ends in ``.png``; the table goes beside it, as
            CSV.
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
    _check_arguments(steps, out)
    # Several devices learn from a step what one does, and steps are taken one by one here.
    config = {**config, "progressive": None, "devices": None}
    preset = preset or default_preset(data)
    first = before_loading(preset, config)
    runtime.set_threads(first.threads)
    source = prepare(load_source(data, first), first, verbose=verbose)
    settings = after_loading(preset, config, source)
    images = len(source.splits["train"])
    steps = steps or min(MOST_STEPS, max(LEAST_STEPS, 2 * (images // settings.batch_size)))
    session = build_session(source, settings, schedule=_Sweep(steps))
    check_batch_fits(session)
    epochs = math.ceil(steps / session.steps)
    batches = train_batches(session, source, epochs=epochs).take(steps)
    table = _losses(session, batches, steps=steps, verbose=verbose)
    found = RateTest(table, proposals(table), settings.batch_size)
    if out is not None:
        found.save(out)
    return found


def _check_arguments(steps: int | None, out: str | os.PathLike[str] | None) -> None:
    ok = steps is None or is_whole(steps, least=FEWEST_STEPS)
    check_number("steps", steps, expected=f"at least {FEWEST_STEPS}", ok=ok)
    if out is None:
        return
    if Path(out).suffix.lower() != ".png":
        raise InputError(
            f"`out` must be the name of a PNG file. Received: {os.fspath(out)!r}. "
            "Let it end in .png; the table goes beside it, in .csv."
        )
    for path in (Path(out), Path(out).with_suffix(".csv")):
        check_new_file("out", str(path))


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
    """Train on `batches` until they end or the loss is past hope; return a row a step."""
    rows: list[tuple[float, float, float]] = []
    mean, least = 0.0, math.inf
    bar = tqdm(batches, "raising the rate", steps, unit="step", disable=not verbose)
    for step, (images, labels) in enumerate(bar):
        rate, loss = _train_step(session, images, labels)
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING ** (step + 1))
        least = min(least, smoothed)
        rows.append((rate, loss, smoothed))
        if smoothed > DIVERGED * least:
            break
    bar.close()
    _check_enough(rows)
    columns = ["learning_rate", "loss", "smoothed"]
    return pd.DataFrame(rows, columns=columns).rename_axis("step")


def _train_step(session: Session, images: tf.Tensor, labels: tf.Tensor) -> tuple[float, float]:
    """Return the learning rate of the step and its loss."""
    model = session.model
    rate = float(model.optimizer.learning_rate)
    # What Keras returns is the mean since the metrics were reset.
    model.reset_metrics()
    with session.replicas.scope():
        logs = model.train_on_batch(images, labels, return_dict=True)
    return rate, float(logs["loss"])


def _check_enough(rows: list[tuple[float, float, float]]) -> None:
    if len(rows) >= FEWEST_STEPS:
        return
    if not rows or rows[-1][0] < HARMLESS:
        raise InputError(
            "`data` and `loss` must give a loss that is a number at small learning rates. "
            f"Received: one that is NaN, infinite or {DIVERGED:g} times its least after "
            f"{len(rows)} steps, at rates below {HARMLESS:g}. "
            "Look for class weights or soft labels that are too large."
        )
    raise InputError(
        f"`steps` must be enough to see the loss fall before it diverges. Received: a loss that "
        f"did so after {len(rows)} steps, at the rate {rows[-1][0]:.1g}. Raise `steps`."
    )
