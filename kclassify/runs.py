"""`Run`: a run folder. This module alone knows the names of the files in it.

Existence is status: a run is complete when `model.keras` and `summary.json` exist. Every file is
written under a temporary name beside its own and renamed, so no reader ever sees half of one.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from kclassify.checks import InputError

if TYPE_CHECKING:
    import pandas as pd

    from kclassify.config import FitConfig
    from kclassify.data.spec import Source

ROOT = Path("saved_models")


@dataclass(frozen=True)
class Run:
    """A run folder, opened. `str(run)` is its path.

    Attributes:
        path: the folder.
        source: the data that the run was trained on, where this process has it loaded.
    """

    path: Path
    source: "Source | None" = field(default=None, compare=False, repr=False)

    @property
    def config_file(self) -> Path:
        """The resolved configuration and what it was applied to."""
        return self.path / "config.json"

    @property
    def environment_file(self) -> Path:
        """Versions and machine."""
        return self.path / "environment.json"

    @property
    def history_file(self) -> Path:
        """One row an epoch."""
        return self.path / "history.csv"

    @property
    def samples_file(self) -> Path:
        """The images that an export is verified with."""
        return self.path / "samples.npz"

    @property
    def best_weights_file(self) -> Path:
        """The best weights so far, while training runs."""
        return self.path / "checkpoints" / "best.weights.h5"

    @property
    def model_file(self) -> Path:
        """The best model, for plain Keras 3."""
        return self.path / "model.keras"

    @property
    def summary_file(self) -> Path:
        """How the training ended."""
        return self.path / "summary.json"

    @property
    def metrics_file(self) -> Path:
        """The last evaluation's numbers."""
        return self.path / "metrics.json"

    @property
    def errors_file(self) -> Path:
        """The images that the last evaluation found most confidently wrong."""
        return self.path / "errors.npz"

    @property
    def report_file(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def export_dir(self) -> Path:
        """The folder of the numbered SavedModels."""
        return self.path / "export"

    def predictions_file(self, split: str) -> Path:
        """The ids, labels and probabilities of one pass over `split`."""
        return self.path / f"predictions-{split}.npz"

    def table_file(self, name: str) -> Path:
        """A table of the last evaluation: metrics, per_class or confusion."""
        return self.path / f"{name}.csv"

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds: data, class_names, input_shape, config."""
        return read_json(self.config_file)

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds: best epoch, accuracy, weights hash, times, sizes."""
        return read_json(self.summary_file)

    @property
    def history(self) -> "pd.DataFrame":
        """The epochs: losses, accuracies, learning rate, seconds, images a second."""
        import pandas as pd

        return pd.read_csv(self.history_file)

    @property
    def complete(self) -> bool:
        """Whether the training ended and its model was saved."""
        return self.model_file.exists() and self.summary_file.exists()

    def write(self, path: Path, value: Any) -> None:
        """Write `value` as JSON, text, a table or arrays, by the ending of `path`."""
        with replacing(path) as beside:
            _WRITERS[path.suffix](beside, value)

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, run: "Run | str | os.PathLike[str]") -> Self:
        """Return the complete run in a folder, or say what is wrong with the folder."""
        if isinstance(run, cls):
            return run
        path = Path(os.fspath(run))
        found = cls(path)
        if not found.config_file.is_file():
            kind = "a folder without config.json" if path.is_dir() else "no folder"
            raise InputError(
                f"`run` must be a run folder, as `kclassify fit` writes it. "
                f"Received: {str(path)!r}, {kind}. Runs are kept in '{ROOT}/'."
            )
        if not found.complete:
            raise InputError(
                f"`run` must be a finished run. Received: {str(path)!r}, {_incomplete(found)}. "
                "Train again into another `run_dir`; a run cannot be continued."
            )
        return found


def new_run_path(run_dir: str | os.PathLike[str] | None, *, name: str, config: "FitConfig") -> Path:
    """Return the folder for a new run, or refuse one that is taken or cannot be written."""
    if run_dir is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        return ROOT / f"{name}-{stamp}-{uuid4().hex[:4]}"
    path = Path(run_dir)
    if path.exists():
        raise InputError(
            f"`run_dir` must not exist yet. Received: {str(path)!r}, which "
            f"{_taken_by(path, config)}. Choose another name; nothing was written."
        )
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise InputError(
            f"`run_dir` must be in a folder that you may write to. Received: {str(path)!r}, "
            f"and {str(parent)!r} is not writable. Choose another place."
        )
    return path


def _incomplete(run: Run) -> str:
    if run.summary_file.exists():
        return "whose model.keras is missing"
    return "whose training did not end (there is no summary.json)"


def _taken_by(path: Path, config: "FitConfig") -> str:
    if not path.is_dir():
        return "is a file"
    run = Run(path)
    if run.config_file.exists():
        state = "finished" if run.complete else "half-written"
        return f"holds a {state} run of {_difference(run, config)}"
    return "is a folder that kclassify did not make" if any(path.iterdir()) else "is a folder"


def _difference(run: Run, config: "FitConfig") -> str:
    there, here = run.config["config"], config.to_json()
    differing = ", ".join(
        f"{name} {there.get(name)!r} instead of {here[name]!r}"
        for name in here
        if here[name] != there.get(name)
    )
    return f"another configuration ({differing})" if differing else "the same configuration"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The whole name stays last: Keras and NumPy choose the format by how it ends.
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, or say that it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"`run` holds a damaged file: {str(path)!r} is not JSON.") from error


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    np.savez_compressed(path, **arrays)


_WRITERS: dict[str, Any] = {
    ".json": lambda path, value: path.write_text(json.dumps(value, indent=2) + "\n", "utf-8"),
    ".csv": lambda path, table: table.to_csv(path),
    ".npz": _write_npz,
    ".html": lambda path, text: path.write_text(text, "utf-8"),
    ".md": lambda path, text: path.write_text(text, "utf-8"),
}
