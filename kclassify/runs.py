"""`Run`: a run folder. This module alone knows the names of the files in it.

Existence is status: a run is complete when `model.keras` and `summary.json` exist.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from kclassify.atomic import replacing
from kclassify.checks import InputError, check_place
from kclassify.spreadsheet import write_csv

if TYPE_CHECKING:
    import pandas as pd

    from kclassify.data.spec import Source

ROOT = Path("saved_models")
# What the files of a run are read for, by the types that it has there.
_MANIFEST = {
    "data": str, "preset": str, "class_names": list, "input_shape": list, "sizes": dict,
    "config": dict,
}  # fmt: skip
# What only a training or a search writes; everything else follows from it.
_OF_TRAINING = ("config.json", "environment.json", "summary.json", "first-steps.json",
                "search.json", "outcome.json")  # fmt: skip
_NO_KINDS: Mapping[str, type] = {}


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
    def first_steps_file(self) -> Path:
        """The hash of the weights after the first steps, by which a run can be verified."""
        return self.path / "first-steps.json"

    @property
    def checkpoints_dir(self) -> Path:
        """What training goes on from; it is removed when training has ended."""
        return self.path / "checkpoints"

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains."""
        return self.path / ".lock"

    @property
    def writer_file(self) -> Path:
        """Who holds the lock."""
        return self.path / ".writer.json"

    @property
    def model_file(self) -> Path:
        """The best model, for plain Keras 3."""
        return self.path / "model.keras"

    @property
    def quantized_file(self) -> Path | None:
        """What a quantized run serves instead of its model; None for any other run."""
        found = (self.path / f"quantized{ending}" for ending in (".tflite", ".onnx"))
        return next((path for path in found if path.is_file()), None)

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
    def data_check_file(self) -> Path:
        """What `check` found in the data of the run."""
        return self.path / "data-check.json"

    @property
    def export_dir(self) -> Path:
        """The folder of the numbered SavedModels."""
        return self.path / "export"

    @property
    def calibration_file(self) -> Path:
        """The temperatures that were fitted on validation."""
        return self.path / "calibration.json"

    @property
    def card_file(self) -> Path:
        """The model card."""
        return self.path / "model-card.md"

    def validation_file(self, tta: str) -> Path:
        """How sure the calibrated model is of each validation image, to choose thresholds by."""
        return self.path / f"validation-{tta}.npz"

    def analysis_file(self, name: str) -> Path:
        """The facts of an analysis, which say of which weights they are."""
        return self.path / f"{name}.json"

    def arrays_file(self, name: str) -> Path:
        """The arrays and small images of an analysis."""
        return self.path / f"{name}.npz"

    def predictions_file(self, split: str) -> Path:
        """The ids, labels and probabilities of one pass over `split`."""
        return self.path / f"predictions-{split}.npz"

    def table_file(self, name: str) -> Path:
        """A table of the last evaluation, such as per_class, or of an analysis, such as slices."""
        return self.path / f"{name}.csv"

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` holds: data, class_names, input_shape, config."""
        return read_json(self.config_file, _MANIFEST)

    @property
    def parent(self) -> str | None:
        """The folder of the run that this one came of by `compress`, if it did."""
        found = self.config.get("compression")
        parent = found.get("parent") if isinstance(found, dict) else None
        return str(parent.get("run")) if isinstance(parent, dict) else None

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds: best epoch, accuracy, weights hash, times, sizes."""
        return read_json(self.summary_file, {"weights_sha256": str})

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

    def _repr_html_(self) -> str:
        """Show in a notebook what was trained on what, and how well it did."""
        import pandas as pd

        rows = {"run": str(self), "state": "finished" if self.complete else "not finished"}
        if self.config_file.is_file():
            rows |= {"data": self.config["data"], "model": self.config["config"].get("model")}
        if self.complete:
            rows["validation accuracy"] = f"{self.summary['val_accuracy']:.4f}"
        if self.metrics_file.is_file():
            found = read_json(self.metrics_file, {"split": str, "metrics": dict})
            rows |= {f"{found['split']} {name.replace('_', ' ')}": f"{value:.4f}"
                     for name, value in found["metrics"].items()}  # fmt: skip
        return pd.Series(rows, dtype=object).to_frame().to_html(header=False)

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def is_run(cls, path: str | os.PathLike[str]) -> bool:
        """Tell a run folder from other folders."""
        return cls(Path(path)).config_file.is_file()

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
                f"The command that trained it {_goes_on(found)}."
            )
        return found


def run_path(run_dir: str | os.PathLike[str] | None, *, name: str) -> Path:
    """Return the folder of a run, or refuse one that is not kclassify's or cannot be written."""
    if run_dir is None:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        return ROOT / f"{name}-{stamp}-{uuid4().hex[:4]}"
    path = Path(run_dir)
    if path.exists() and not _usable(path):
        kind = "a folder that kclassify did not make" if path.is_dir() else "a file"
        raise InputError(
            f"`run_dir` must be a new folder, an empty one or one that kclassify made. Received: "
            f"{str(path)!r}, {kind}. Choose another name; nothing was written."
        )
    check_place("run_dir", path)
    return path


def _usable(path: Path) -> bool:
    run = Run(path)
    if run.config_file.is_file() or run.checkpoints_dir.is_dir():
        return True
    # A folder that was made for the run, or one that a run had just begun to write.
    return path.is_dir() and all(found.name.startswith(".") for found in path.iterdir())


def _goes_on(run: Run) -> str:
    there = run.checkpoints_dir.is_dir()
    return "goes on where it stopped" if there else "trains it from the beginning"


def _incomplete(run: Run) -> str:
    if run.summary_file.exists():
        return "whose model.keras is missing"
    return "whose training did not end (there is no summary.json)"


def read_json(path: Path, kinds: Mapping[str, type] = _NO_KINDS) -> dict[str, Any]:
    """Return what a JSON file holds, or say that it is damaged.

    Args:
        path: of the file.
        kinds: values that it must have, and of which types.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "JSON") from error
    if not isinstance(found, dict) or any(
        not isinstance(found.get(name), kind) for name, kind in kinds.items()
    ):
        raise _damaged(path, "what kclassify wrote")
    return found


def _damaged(path: Path, kind: str) -> InputError:
    again = (
        "train again into another folder"
        if path.name in _OF_TRAINING
        else "delete it and give the command again that wrote it, such as `kclassify evaluate`"
    )
    return InputError(
        f"`run` must hold whole files. Received: {str(path)!r}, which is not {kind}. Restore it "
        f"from a copy, or {again}."
    )


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    np.savez_compressed(path, **arrays)


_WRITERS: dict[str, Any] = {
    ".json": lambda path, value: path.write_text(json.dumps(value, indent=2) + "\n", "utf-8"),
    ".csv": lambda path, table: write_csv(table, path),
    ".npz": _write_npz,
    ".html": lambda path, text: path.write_text(text, "utf-8"),
    ".txt": lambda path, text: path.write_text(text, "utf-8", "backslashreplace"),
    ".md": lambda path, text: path.write_text(text, "utf-8"),
}
