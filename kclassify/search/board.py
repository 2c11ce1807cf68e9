"""The live table of a search: trials, what they are, how far, how good, and when it will end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
from rich.console import Console
from rich.live import Live
from rich.table import Table

from kclassify.checks import printable
from kclassify.runs import Run
from kclassify.search.folder import SearchFolder

# Of a screen's height; the table never scrolls.
MOST_ROWS = 20
REFRESHES_A_SECOND = 1


class Board:
    """What is shown while a search runs: a table on a terminal, a line a trial anywhere else.

    Args:
        folder: of the search.
        rows: returns a row a trial, as `trial_rows` does.
        objective: the column that says how good a trial is.
        left: returns the seconds that the search will still take.
    """

    def __init__(
        self,
        folder: SearchFolder,
        rows: Callable[[], Sequence[Mapping[str, Any]]],
        *,
        objective: Any,
        left: Callable[[], float],
    ):
        self.folder, self.rows, self.objective, self.left = folder, rows, objective, left
        self.console = Console()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table while the search runs, where there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self.table,
            console=self.console,
            refresh_per_second=REFRESHES_A_SECOND,
        ):
            yield

    def ended(self, trial_id: str) -> None:
        """Print the line of a trial that has ended, where there is no terminal."""
        if self.console.is_terminal:
            return
        row = next(row for row in self.rows() if row["trial"] == trial_id)
        values = ", ".join(f"{name} {_text(value)}" for name, value in _values(row).items())
        score = _text(row.get(self.objective.name))
        print(
            printable(
                f"trial {trial_id}: {row['state']}, {self.objective.name} {score}, "
                f"{_text(row['epochs'])} epochs, {_text(row['seconds'])} s; {values}; "
                f"{_clock(self.left())} left"
            ),
            flush=True,
        )

    def table(self) -> Table:
        """Return the table as it is now: the best trials, and those in work."""
        rows = list(self.rows())
        names = list(dict.fromkeys(name for row in rows for name in _values(row)))
        found = Table(title=f"{self.folder.path.name}: {_clock(self.left())} left", expand=False)
        for column in ("trial", "state", "epoch", self.objective.name, *names):
            found.add_column(column, justify="right" if column != "state" else "left")
        for row in self._chosen(rows):
            epochs, score = self._progress(row)
            cells = [row["trial"], row["state"], epochs, score]
            cells += [_text(_values(row).get(name)) for name in names]
            found.add_row(*(printable(cell) for cell in cells))
        return found

    def _chosen(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        sign = -1 if self.objective.direction == "max" else 1
        known = [row for row in rows if row.get(self.objective.name) is not None]
        known.sort(key=lambda row: sign * row[self.objective.name])
        working = [row for row in rows if row["state"] == "unfinished"]
        others = [row for row in rows if row not in known and row not in working]
        return [*working, *known, *others][:MOST_ROWS]

    def _progress(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return epochs and score, of a trial in work from its history."""
        if row["state"] != "unfinished":
            return _text(row["epochs"]), _text(row.get(self.objective.name))
        history = self._history(row["trial"])
        if history is None or self.objective.name not in history:
            return "0", ""
        return str(len(history)), _text(float(history[self.objective.name].iloc[-1]))

    def _history(self, trial_id: str) -> pd.DataFrame | None:
        try:
            return Run(self.folder.trial_dir(trial_id) / "run").history
        except (OSError, ValueError):
            return None


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a row: what comes after what every trial has."""
    names = list(row)
    return {name: row[name] for name in names[names.index("run") + 1 :]}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(max(0.0, seconds)))
