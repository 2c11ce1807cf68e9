"""A CSV file or DataFrame with the columns `path` and `label`, and perhaps `split`."""

import os
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from kclassify.checks import InputError, listing, nearest
from kclassify.config import FitConfig
from kclassify.data.listed import ListedFile, source_of_files
from kclassify.data.spec import SPLIT_NAMES, Source

_UNREADABLE = (
    OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError,
    pd.errors.ParserWarning,
)  # fmt: skip


def load(reference: Any, config: FitConfig) -> Source:
    """Load the images that a table lists, in its order.

    Relative paths start at the CSV file's folder; a DataFrame's at the working folder. Labels are
    names, or whole numbers that `config.class_names` names.

    Raises:
        InputError: a column or value is missing, a split is unknown, files are missing or
            cannot be read.
    """
    root = Path() if isinstance(reference, pd.DataFrame) else Path(reference).parent
    table = _table(reference)
    _check_values(table)
    splits = _splits(table)
    paths = [os.path.join(root, path) for path in table["path"]]
    _check_files(paths)
    labels = table["label"].tolist()
    if not pd.api.types.is_integer_dtype(table["label"]):
        labels = [str(label) for label in labels]
    rows = zip(paths, table["path"], splits, labels, strict=True)
    files = [ListedFile(path, Path(id).as_posix(), split, label) for path, id, split, label in rows]
    return source_of_files(files, config)


def column(reference: Any, name: str) -> pd.Series:
    """Return a column of a table, by the ids that `load` gives the images.

    Raises:
        InputError: there is no such column, or it says two things of one image.
    """
    table = _table(reference)
    if name not in table.columns:
        names = [str(known) for known in table.columns]
        raise InputError(
            f"`by` must be a column of the table, one of {names}. "
            f"Received: by={name!r}.{nearest(name, names)}"
        )
    ids = [Path(path).as_posix() for path in table["path"].astype(str)]
    values = pd.Series(table[name].to_numpy(), index=pd.Index(ids, name="id"), name=name)
    values = values[~pd.DataFrame({"id": ids, "value": values.to_numpy()}).duplicated().to_numpy()]
    if values.index.has_duplicates:
        path = values.index[values.index.duplicated()][0]
        raise InputError(
            f"`data` must say one thing of each image in the column {name!r}. Received: several "
            f"values for {path!r}. List it once."
        )
    return values


def _table(reference: Any) -> pd.DataFrame:
    table = reference if isinstance(reference, pd.DataFrame) else _read(reference)
    _check_columns(table)
    return table


def _read(path: str | os.PathLike[str]) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # Rows may have more cells than the header. By default pandas takes the first of them
            # for an index, so that the labels become the paths.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Only an empty cell is a missing value: a class may well be called "None" or "NA".
            return pd.read_csv(
                path, dtype={"path": str}, keep_default_na=False, na_values=[""], index_col=False
            )
    except _UNREADABLE as error:
        # pandas speaks of its own arguments then.
        wide = isinstance(error, pd.errors.ParserWarning)
        reason = "its rows have more cells than its header" if wide else error
        raise InputError(
            f"`data` must be a CSV file with a header and the columns path and label. "
            f"Received: {str(path)!r} ({reason}). Check the file."
        ) from error


def _check_columns(table: pd.DataFrame) -> None:
    for column in ("path", "label"):
        if column not in table.columns:
            names = [str(name) for name in table.columns]
            raise InputError(
                f"`data` must have the columns path and label. Received: {names}, without "
                f"{column!r}.{nearest(column, names)} Rename or add the column."
            )


def _check_values(table: pd.DataFrame) -> None:
    if table.empty:
        raise InputError("`data` must list images. Received: a table of no rows. Add some.")
    for column in ("path", "label"):
        missing = int(table[column].isna().sum())
        if missing:
            raise InputError(
                f"`data` must have a {column} in every row. Received: {missing} rows without. "
                "Fill or remove them."
            )


def _splits(table: pd.DataFrame) -> list[str]:
    if "split" not in table.columns:
        return ["train"] * len(table)
    for name in table["split"].unique():
        if name not in SPLIT_NAMES:
            raise InputError(
                f"`data` must have only 'train', 'validation' or 'test' in the column split. "
                f"Received: {name!r}.{nearest(str(name), SPLIT_NAMES)} Mend the column."
            )
    return [SPLIT_NAMES[name] for name in table["split"]]


def _check_files(paths: list[str]) -> None:
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise InputError(
            f"`data` must list files that exist. Received: {len(missing)} of {len(paths)} that do "
            f"not. Relative paths start at the CSV file's folder.\n{listing(missing)}"
        )
