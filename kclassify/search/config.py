"""`SearchConfig`: how a search goes about it, in one frozen, checked place."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from kclassify.checks import check_choice, check_number, is_whole, parse_duration

TUNERS = ("hyperband", "bayesian", "random", "grid")
# What a trial can be judged by, and what is better.
OBJECTIVES = {"val_accuracy": "max", "val_loss": "min", "accuracy": "max", "loss": "min"}


@dataclass(frozen=True)
class SearchConfig:
    """The arguments of `tune` that say how it searches.

    Raises:
        InputError: a value is not what its field takes.
    """

    tuner: str = "hyperband"
    max_trials: int = 14
    objective: str = "val_accuracy"
    executions_per_trial: int = 1
    time_budget: str | float | None = None
    trial_time: str | float | None = None
    train_fraction: float = 1.0

    def __post_init__(self) -> None:
        check_choice("tuner", self.tuner, TUNERS)
        check_choice("objective", self.objective, OBJECTIVES)
        for name in ("max_trials", "executions_per_trial"):
            value = getattr(self, name)
            expected = "a whole number of at least 1"
            check_number(name, value, expected=expected, ok=is_whole(value, least=1))
        share = self.train_fraction
        ok = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
        check_number("train_fraction", share, expected="a number above 0, up to 1", ok=ok)
        for name in ("time_budget", "trial_time"):
            if getattr(self, name) is not None:
                parse_duration(name, getattr(self, name))

    @property
    def seconds(self) -> float:
        """How long the search may take."""
        budget = self.time_budget
        return math.inf if budget is None else parse_duration("time_budget", budget)

    def facts(self) -> dict[str, Any]:
        """Return what must be the same where a search goes on: all but how long it may take."""
        values = asdict(self)
        del values["time_budget"]
        return values
