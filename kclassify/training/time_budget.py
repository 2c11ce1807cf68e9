"""A training that ends when it was told to: its length follows from the speed that is measured."""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, parse_duration
from kclassify.config import FitConfig, resolve
from kclassify.data.spec import Source
from kclassify.models.registry import build_model
from kclassify.presets import SIZES

runtime.prepare()

import keras  # noqa: E402

from kclassify.models.cost import count_macs  # noqa: E402
from kclassify.scaling import for_few_images, without_auto  # noqa: E402
from kclassify.training.session import Session, build_session, train_batches  # noqa: E402

# What measuring may take, and how many calls into TensorFlow it takes at least.
MEASURING_SHARE, MEASURING_SECONDS, MEASURED_CALLS = 0.03, 5.0, 4
# Writing the model and the summary, after the last epoch.
FINISHING_SECONDS = 1.0
# A step forward alone takes about a third of one that learns.
FORWARD_SHARE = 1 / 3
# Wide layers may use a machine better than those of the smallest preset. What would take more than
# so many times the time that there is, by their arithmetic alone, is not measured.
WIDTH_GAIN = 2.0
# Room for a machine that turns out faster than it was measured; the passes are made as they come.
ROOM = 50
# The plan is made anew this often, at the latest; of passes, the last few count.
REPLAN_SECONDS, LAST_PASSES = 1.0, 5


@dataclass(frozen=True)
class Plan:
    """How long a training is.

    Attributes:
        steps: of the whole training.
        epochs: the most passes that it can take; with a time budget the last one ends early.
        pace: seconds of a step in each of the equal parts of the steps that have images of one
            size; empty where nothing was measured.
        between: seconds between two passes, mostly validation, for images of full size.
    """

    steps: int
    epochs: int
    pace: tuple[float, ...] = ()
    between: float = 0.0

    def seconds(self, first: int, last: int) -> float:
        """Return what the steps from `first` to before `last` take."""
        return sum(
            max(0, min(last, end) - max(first, start)) * step for start, end, step in self._parts()
        )

    def steps_within(self, seconds: float, *, first: int) -> int:
        """Return the step at which `seconds` are over, counted from the step `first`."""
        for start, end, step in self._parts():
            begin = max(first, start)
            if seconds < max(0, end - begin) * step:
                return begin + max(0, math.floor(seconds / step))
            seconds -= max(0, end - begin) * step
        return first

    def pace_at(self, step: int) -> float:
        """Return the seconds of one step."""
        return self.seconds(step, step + 1)

    def _parts(self) -> Iterator[tuple[int, float, float]]:
        for place, step in enumerate(self.pace):
            start = place * self.steps // len(self.pace)
            end = (place + 1) * self.steps // len(self.pace)
            yield start, end if place + 1 < len(self.pace) else math.inf, step


def whole_epochs(session: Session) -> Plan:
    """Return the plan that the configuration's `epochs` say."""
    epochs = session.config.epochs
    return Plan(epochs * session.steps, epochs)


def within_budget(session: Session, source: Source, *, started: float) -> Plan:
    """Return the plan that ends `config.time_budget` after `started`, and set the schedule to it.

    Some real steps are measured; then weights, optimizer and seeds are put back.

    Args:
        session: not trained yet.
        source: its data.
        started: when the time began to count, by `time.perf_counter`.

    Raises:
        InputError: the time is too short for a single step.
    """
    budget = parse_duration("time_budget", session.config.time_budget or "")
    pace = measure_pace(session, source, seconds=_measuring_seconds(budget))
    step = sum(pace) / len(pace)
    batches = len(source.splits["validation"]) / session.config.batch_size
    validation = batches * pace[-1] * FORWARD_SHARE
    gone = time.perf_counter() - started
    # Each pass ends with a validation, and the steps before are what is left for learning.
    left = budget - gone - FINISHING_SECONDS
    passes = math.ceil(left / (session.steps * step + validation))
    steps = math.floor((left - passes * validation) / step)
    if steps < session.steps_per_execution:
        least = gone + FINISHING_SECONDS + validation + session.steps_per_execution * step
        raise InputError(
            f"`time_budget` must be at least {math.ceil(least) + 1}s for this data and model on "
            f"this machine. Received: time_budget={session.config.time_budget!r}; {gone:.0f} s "
            f"had gone by when the first steps were measured, and one takes {step:.3g} s."
        )
    session.schedule.set_total_steps(steps)
    return Plan(steps, math.ceil(ROOM * steps / session.steps) + 1, pace, validation)


def _measuring_seconds(budget: float) -> float:
    return min(MEASURING_SECONDS, MEASURING_SHARE * budget)


def largest_preset(source: Source, options: Mapping[str, Any], *, started: float) -> str:
    """Return the largest preset of `SIZES` whose epochs the time budget has room for.

    The smallest is measured, and what follows from it for the others by their multiply-accumulates;
    those that this does not rule out are measured too, until half of the time would be over, since
    building and tracing networks takes its own. The smallest is the answer where no other has room:
    `within_budget` shortens it.

    Args:
        source: the data.
        options: what was given to `fit`, a `time_budget` among it.
        started: when the time began to count.
    """
    smallest, *larger = SIZES
    options = without_auto(options)
    budget = parse_duration("time_budget", options["time_budget"])
    images = len(source.splits["train"])
    # As many epochs as each wants, whatever the time.
    given = set(options) - {"time_budget"}
    config = for_few_images(resolve(smallest, options), images, given=given)
    seconds, end = _measuring_seconds(budget), started + budget
    begun = time.perf_counter()
    a_mac = _training_seconds(source, config, seconds=seconds) / _macs(source, config)
    measuring = time.perf_counter() - begun
    for name in reversed(larger):
        config = for_few_images(resolve(name, options), images, given=given)
        left = end - time.perf_counter()
        if left - measuring < budget / 2:
            break
        if (
            a_mac * _macs(source, config) <= WIDTH_GAIN * left
            and _training_seconds(source, config, seconds=seconds) <= left
        ):
            return name
    return smallest


def _training_seconds(source: Source, config: FitConfig, *, seconds: float) -> float:
    """Return what the steps of a whole training take, measured for so long on each size."""
    session = build_session(source, config)
    pace = measure_pace(session, source, seconds=seconds)
    return statistics.mean(pace) * session.steps * config.epochs


def _macs(source: Source, config: FitConfig) -> float:
    """Return the multiply-accumulates of a whole training, with images of the sizes that it has."""
    shape, classes = source.input_shape, source.num_classes
    network = build_model(config.model, input_shape=shape, num_classes=classes, **config.model_args)
    area = statistics.mean(scale**2 for scale in config.progressive or (1.0,))
    return count_macs(network) * area * config.epochs * len(source.splits["train"])


def measure_pace(session: Session, source: Source, *, seconds: float) -> tuple[float, ...]:
    """Return the seconds of a step for each size of the images, measured on real steps.

    About `seconds` are spent on each size; then weights, optimizer and seeds are put back.
    """
    model = session.model
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    scales = session.config.progressive or (1.0,)
    pace = tuple(_measure_step(session, source, scale, seconds=seconds) for scale in scales)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return pace


def _measure_step(session: Session, source: Source, scale: float, *, seconds: float) -> float:
    stopwatch = Stopwatch(seconds)
    with session.replicas.scope():
        session.model.fit(
            train_batches(session, source, epochs=1, scales=(scale,)),
            steps_per_epoch=session.steps,
            shuffle=False,
            callbacks=[stopwatch],
            verbose=0,
        )
    return stopwatch.step_seconds


class Stopwatch(keras.callbacks.Callback):
    """Time steps for `seconds` after the first, which traces the graph, and stop."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds
        self.begun = 0.0
        self.ends: list[tuple[int, float]] = []

    def on_train_begin(self, logs=None):
        """Start the clock."""
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Note the time, and stop when there has been enough of it."""
        # Reading a value waits for the step to be over.
        float(logs["loss"])
        self.ends.append((batch + 1, time.perf_counter()))
        enough = self.ends[-1][1] - self.ends[0][1] >= self.seconds
        self.model.stop_training = enough and len(self.ends) > MEASURED_CALLS

    @property
    def step_seconds(self) -> float:
        """Seconds of a step; where there was one call only, its tracing is counted too."""
        steps, end = self.ends[-1]
        first, begun = self.ends[0] if len(self.ends) > 1 else (0, self.begun)
        return (end - begun) / (steps - first)


class Deadline(keras.callbacks.Callback):
    """Stop after the plan's last step, planned anew all along so as to end in time.

    It must be the last callback, so that it sees the time that the others take.

    Args:
        session: what is trained.
        plan: made by `within_budget`.
        end: when all must be over, by `time.perf_counter`.
    """

    def __init__(self, session: Session, plan: Plan, *, end: float):
        super().__init__()
        self.session = session
        self.plan, self.steps = plan, plan.steps
        self.end = end
        # Steps made; before this pass; and before this process went on with it.
        self.done = self.before = self.first = 0
        self.began = self.trained = self.planned = 0.0
        # When the last pass was over.
        self.ended: float | None = None
        # How many times as long as planned the steps of each pass took, and what came after them.
        self.factors: list[float] = []
        self.between: list[float] = [plan.between]

    @property
    def state(self) -> dict[str, Any]:
        """The plan as it is now, the time that is left, and what it was found by."""
        left = self.end - time.perf_counter()
        names = ("steps", "done", "factors", "between")
        return {"left": left, **{name: getattr(self, name) for name in names}}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.end = time.perf_counter() + state["left"]
        self.steps, self.done = state["steps"], state["done"]
        self.factors, self.between = state["factors"], state["between"]
        self.session.schedule.set_total_steps(max(self.steps, self.done + 1))

    def on_epoch_begin(self, epoch, logs=None):
        """Note when the pass begins."""
        self.before, self.first = epoch * self.session.steps, self.done
        self.began = time.perf_counter()
        if self.ended is not None:
            # Saving, and what there is to prepare.
            self.between[-1] += self.began - self.ended
        self.planned = self.began

    def on_train_batch_end(self, batch, logs=None):
        """Plan anew from time to time, and stop after the last step."""
        self.done, self.trained = self.before + batch + 1, time.perf_counter()
        if self.trained - self.planned >= REPLAN_SECONDS:
            self._plan([*self.factors, self._factor()], elapsed=self.trained - self.began)
        if self.done >= self.steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Plan anew, and stop where there is no time for another step."""
        self.factors.append(self._factor())
        # Smaller images are validated on in less time, and the last ones have their full size.
        full_size = self.plan.pace[-1] / self.plan.pace_at(self.done - 1)
        self.between.append((time.perf_counter() - self.trained) * full_size)
        self.ended = time.perf_counter()
        if self.model.stop_training:
            return
        self._plan(self.factors, elapsed=0.0)
        self.model.stop_training = self.steps <= self.done

    def _factor(self) -> float:
        return (self.trained - self.began) / self.plan.seconds(self.first, self.done)

    def _plan(self, factors: Sequence[float], *, elapsed: float) -> None:
        """Set how many steps the time that is left has room for; `elapsed` of this pass is over."""
        self.planned = time.perf_counter()
        factor = statistics.median(factors[-LAST_PASSES:])
        between = statistics.median(self.between[-LAST_PASSES:])
        left = self.end - self.planned - FINISHING_SECONDS
        one_pass = self.plan.seconds(self.done, self.done + self.session.steps) * factor
        passes = math.ceil((left + elapsed) / (one_pass + between))
        rest = (left - passes * between) / factor
        self.steps = self.plan.steps_within(rest, first=self.done)
        self.session.schedule.set_total_steps(max(self.steps, self.done + 1))


def estimate(session: Session, plan: Plan, *, end: float) -> str:
    """Return the line that is printed before a training with a time budget."""
    speed = session.config.batch_size * plan.steps / plan.seconds(0, plan.steps)
    ends = datetime.now() + timedelta(seconds=end - time.perf_counter())
    return (
        f"budget    {session.config.time_budget}: {speed:,.0f} images a second, "
        f"{plan.steps / session.steps:.2f} epochs ({plan.steps:,} steps), ends at {ends:%H:%M:%S}"
    )
