"""What a report shows, read from the files of a run and from nothing else."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kclassify.checks import InputError
from kclassify.runs import Run, read_json

MOST_PAIRS = 12


@dataclass(frozen=True)
class Pair:
    """A given class and what it was taken for: how often, and in what share of the class."""

    given: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Mistake:
    """One image, uint8 `(height, width, channels)`, that was confidently taken for another."""

    image: np.ndarray
    id: str
    given: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class RunTables:
    """The files of an evaluated run, read and checked against one another.

    Attributes:
        run: the run folder.
        manifest: `config.json`.
        environment: `environment.json`.
        summary: `summary.json`.
        evaluation: `metrics.json`.
        history: one row an epoch.
        per_class: precision, recall, f1 and support; one row a class, in the order of the classes.
        confusion: counts `(given, predicted)`.
        mistakes: the worst errors, most confident first.
        data_check: `data-check.json`, where the data was checked.
    """

    run: Run
    manifest: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    history: pd.DataFrame
    per_class: pd.DataFrame
    confusion: np.ndarray
    mistakes: tuple[Mistake, ...]
    data_check: dict[str, Any] | None

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of their indices.

        They are read from `config.json`: a reader of tables takes "1" or "NA" for a value.
        """
        return self.manifest["class_names"]

    @property
    def split(self) -> str:
        """The split that was evaluated."""
        return self.evaluation["split"]

    @property
    def other_data(self) -> str | None:
        """The name of the data that was evaluated instead of the run's own, where there was any."""
        return self.evaluation.get("data")

    @property
    def data(self) -> str:
        """The name of the data that was evaluated."""
        return self.other_data or self.manifest["data"]

    @property
    def measured_on(self) -> str:
        """What was evaluated, as a sentence says it: a split of the run's own data, or other."""
        return self.images_of(self.split)

    def images_of(self, split: str) -> str:
        """Return what a sentence calls the images of a split that were looked at."""
        other = self.other_data is not None and split == self.split
        return f"other data ({self.other_data})" if other else f"the {split} split"

    @property
    def tta(self) -> str:
        """The test-time augmentation that it was evaluated with; earlier versions had none."""
        return self.evaluation.get("tta", "none")

    @property
    def intervals(self) -> dict[str, list[float]]:
        """The 95 % intervals of the metrics; earlier versions noted none."""
        return self.evaluation.get("intervals", {})

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs of classes that were confused most often, most often first."""
        wrong = self.confusion * (1 - np.eye(len(self.confusion), dtype=int))
        support = self.confusion.sum(axis=1)
        order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
        cells = [divmod(int(cell), len(wrong)) for cell in order]
        return [
            Pair(
                self.class_names[given],
                self.class_names[predicted],
                int(wrong[given, predicted]),
                float(wrong[given, predicted] / support[given]),
            )
            for given, predicted in cells
            if wrong[given, predicted]
        ]


def read_tables(run: Run) -> RunTables:
    """Return what the files of `run` hold.

    Raises:
        InputError: the run was not evaluated, or its files are damaged or of two evaluations.
    """
    _check_evaluated(run)
    tables = RunTables(
        run=run,
        manifest=run.config,
        environment=read_json(run.environment_file),
        summary=run.summary,
        evaluation=read_json(run.metrics_file, {"split": str, "metrics": dict}),
        history=read_csv(run.history_file).reset_index(),
        per_class=read_csv(run.table_file("per_class")),
        confusion=read_csv(run.table_file("confusion")).to_numpy(),
        mistakes=_read_mistakes(run.errors_file),
        data_check=_read_check(run.data_check_file),
    )
    _check_together(tables)
    return tables


def _check_evaluated(run: Run) -> None:
    needed = [
        run.metrics_file,
        run.table_file("per_class"),
        run.table_file("confusion"),
        run.errors_file,
    ]
    for file in needed:
        if not file.is_file():
            raise InputError(
                f"`run` must be an evaluated run. Received: {str(run)!r}, without {file.name}. "
                f"Run `kclassify evaluate {run}` first."
            )


def _check_together(tables: RunTables) -> None:
    classes = len(tables.class_names)
    same_model = tables.evaluation["weights_sha256"] == tables.summary["weights_sha256"]
    whole = (
        len(tables.per_class) == classes
        and tables.confusion.shape == (classes, classes)
        and tables.confusion.sum() == tables.evaluation["images"]
    )
    if not (same_model and whole):
        reason = "other classes or images" if same_model else "other weights"
        raise InputError(
            f"`run` must hold the evaluation of its own model. Received: {str(tables.run)!r}, "
            f"whose metrics are of {reason}. Run `kclassify evaluate {tables.run}` again."
        )


def _read_check(path: Path) -> dict[str, Any] | None:
    return read_json(path, {"findings": list}) if path.is_file() else None


def read_analysis(run: Run, name: str, *, of_last: bool = True) -> dict[str, Any] | None:
    """Return the facts of an analysis; None where it was not made, or of something else.

    That is other weights, or of what is evaluated, other images or views than the last ones.

    Args:
        run: the run.
        name: of the analysis, such as ``"slices"``.
        of_last: whether one of an earlier evaluation counts as not made.
    """
    file = run.analysis_file(name)
    if not file.is_file():
        return None
    found = read_json(file, {"weights_sha256": str})
    same = found["weights_sha256"] == run.summary["weights_sha256"]
    # Parts of their own, and files of earlier versions, do not say what was evaluated.
    if of_last and "evaluated" in found and run.metrics_file.is_file():
        last = read_json(run.metrics_file).get("evaluated", found["evaluated"])
        same = same and found["evaluated"] == last
    return found if same else None


# Columns of names, which may look like numbers or like nothing: "007", "NA".
TEXTS = (
    "id",
    "given",
    "predicted",
    "label",
    "neighbour",
    "said_by_a",
    "said_by_b",
    "a",
    "b",
)


def read_csv(path: Path, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of the run, by its first column; or say that it is damaged.

    Args:
        path: of the table.
        texts: the names of columns that hold names, where they are not those of classes.
    """
    try:
        if not texts:
            return pd.read_csv(path, index_col=0)
        kinds = dict.fromkeys(texts, str)
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])
        return table.set_index(table.columns[0])
    except (OSError, ValueError, IndexError) as error:
        raise _damaged(path, "a table") from error


def _read_mistakes(path: Path) -> tuple[Mistake, ...]:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = [
                file["images"],
                file["ids"].tolist(),
                file["given"].tolist(),
                file["predicted"].tolist(),
                file["probability"].tolist(),
            ]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, "a file of arrays") from error
    return tuple(Mistake(*row) for row in zip(*columns, strict=True))


def _damaged(path: Path, kind: str) -> InputError:
    what = f"which cannot be read as {kind}" if path.exists() else "which is not there"
    # A training writes its history; nothing else can.
    mend = (
        "Restore it, or train again into another folder"
        if path.name == Run(path.parent).history_file.name
        else f"Run `kclassify evaluate {path.parent}` again"
    )
    return InputError(f"`run` must hold whole files. Received: {str(path)!r}, {what}. {mend}.")
