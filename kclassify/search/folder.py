"""`SearchFolder`: a search's folder. This module alone knows the names of the files in it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kclassify.checks import InputError
from kclassify.runs import ROOT, Run, read_json, run_path

# What a finished trial's file is read for.
_OUTCOME = {"state": str, "epochs": int, "seconds": float, "metrics": dict,
            "own_model": bool}  # fmt: skip


@dataclass(frozen=True)
class SearchFolder:
    """A search's folder. `str()` of it is its path.

    Attributes:
        path: of the folder.
    """

    path: Path

    @property
    def facts_file(self) -> Path:
        """What is searched, on which data and how."""
        return self.path / "search.json"

    @property
    def state_file(self) -> Path:
        """What the oracle has tried and found."""
        return self.path / "state.json"

    @property
    def trials_file(self) -> Path:
        """A row a trial."""
        return self.path / "trials.csv"

    @property
    def best_file(self) -> Path:
        """The best configuration, as `FitConfig.from_json` reads it."""
        return self.path / "best.json"

    @property
    def report_file(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def data_dir(self) -> Path:
        """The data, while processes of trials use it."""
        return self.path / ".data"

    @property
    def as_run(self) -> Run:
        """The folder as a run's, for its lock."""
        return Run(self.path)

    def trial_dir(self, trial_id: str) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / trial_id

    def outcome_file(self, trial_id: str) -> Path:
        """How a trial ended."""
        return self.trial_dir(trial_id) / "outcome.json"

    def error_file(self, trial_id: str) -> Path:
        """Why a trial failed, its traceback included."""
        return self.trial_dir(trial_id) / "error.txt"

    def outcome(self, trial_id: str) -> dict[str, Any] | None:
        """Return what the file of a trial's outcome holds, where it has one that is whole."""
        try:
            return read_json(self.outcome_file(trial_id), _OUTCOME)
        except (OSError, InputError):
            return None

    def write(self, path: Path, value: Any) -> None:
        """Write `value` as a run's files are written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.as_run.write(path, value)

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, search: "SearchFolder | str | os.PathLike[str]") -> "SearchFolder":
        """Return the search in a folder, or say that there is none."""
        found = cls(Path(os.fspath(search)))
        if not found.facts_file.is_file():
            raise InputError(
                "`search` must be the folder of a search, as `kclassify tune` writes it. "
                f"Received: {str(found)!r}. Searches are kept in '{ROOT}/'."
            )
        return found


def search_path(
    directory: str | os.PathLike[str] | None, project_name: str | None, *, name: str
) -> Path:
    """Return the folder of a search, or refuse one that holds something else."""
    if project_name is None:
        return run_path(None, name=name) if directory is None else Path(directory) / name
    path = Path(directory or ROOT) / project_name
    if path.exists() and not SearchFolder(path).facts_file.is_file() and not _new(path):
        raise InputError(
            f"`project_name` must be that of a new folder or of a search. Received: {str(path)!r}, "
            "which holds something else. Choose another name; nothing was written."
        )
    return path


def _new(path: Path) -> bool:
    return path.is_dir() and all(found.name.startswith(".") for found in path.iterdir())
