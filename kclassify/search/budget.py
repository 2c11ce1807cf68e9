"""How long a trial is trained, in epochs or in time, and what that makes of the whole search."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from kclassify import runtime
from kclassify.config import FitConfig

runtime.prepare()

from kclassify.training.time_budget import FORWARD_SHARE  # noqa: E402

# Hyperband's whole training has so many parts where it is measured in time.
UNITS_OF_TIME = 9
# What a search spends on anything but steps and validation: tracing, mostly.
OVERHEAD_SHARE = 0.1


@dataclass(frozen=True)
class Budget:
    """How long the whole training of a trial is.

    Attributes:
        epochs: as many for every trial; or None.
        seconds: as much time for every trial, which is fewer epochs for a slower one; or None.
    """

    epochs: int | None = None
    seconds: float | None = None

    @property
    def units(self) -> int:
        """The parts that Hyperband divides it into."""
        return self.epochs or UNITS_OF_TIME

    @property
    def begins_whole(self) -> bool:
        """Whether Hyperband trains the defaults to their end before it begins.

        In a given time there are few trainings, and their first parts, on images that still grow
        and with a high learning rate, tell little: the defaults would be lost by chance, and the
        search end with less than it began with.
        """
        return self.seconds is not None

    def epochs_of(self, epoch_seconds: float) -> int:
        """Return the epochs of a trial one of which takes `epoch_seconds`: at least one."""
        if self.epochs is not None:
            return self.epochs
        return max(1, round((self.seconds or 0.0) / epoch_seconds))

    def until(self, unit: int, epochs: int) -> int:
        """Return the epoch, of all `epochs`, that the end of a unit is: at least the first."""
        return max(1, round(epochs * unit / self.units))


@dataclass(frozen=True)
class Rung:
    """Trials of a search that are trained from one unit of their budget to another."""

    trials: int
    first: int
    last: int


def rungs(tuner: str, *, max_trials: int, budget: Budget) -> list[Rung]:
    """Return what a search of `max_trials` consists of.

    Hyperband begins its sweeps again until there are as many.

    Example:
        >>> rungs("random", max_trials=5, budget=Budget(epochs=9))
        [Rung(trials=5, first=0, last=9)]
        >>> sum(rung.trials for rung in rungs("hyperband", max_trials=20, budget=Budget(epochs=9)))
        20
    """
    if tuner != "hyperband":
        return [Rung(max_trials, 0, budget.units)]
    whole = [Rung(1, 0, budget.units)] if budget.begins_whole else []
    return list(_cut(itertools.chain(whole, _sweeps(budget.units)), max_trials))


def cost(found: list[Rung], *, units: int) -> float:
    """Return what rungs cost, in whole trainings: a trial goes on where its rung before ended."""
    return sum(rung.trials * (rung.last - rung.first) for rung in found) / units


def _sweeps(units: int) -> Iterator[Rung]:
    from kclassify.search.oracles import sweep

    return itertools.cycle(Rung(*rung) for rung in sweep(units))


def _cut(found: Iterator[Rung], most: int) -> Iterator[Rung]:
    while most > 0:
        rung = next(found)
        trials = min(most, rung.trials)
        yield Rung(trials, rung.first, rung.last)
        most -= trials


def epoch_seconds(
    pace: tuple[float, ...], config: FitConfig, *, images: int, validation: int
) -> float:
    """Return the seconds of an epoch, its validation included.

    Args:
        pace: seconds of a step at each size of the images.
        config: whose batch size it is.
        images: in the training split.
        validation: images that are validated on.
    """
    step = sum(pace) / len(pace)
    steps = max(1, images // config.batch_size)
    return steps * step + math.ceil(validation / config.batch_size) * pace[-1] * FORWARD_SHARE
