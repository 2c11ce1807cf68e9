"""What `fit` takes as data, and which loader reads what; each is imported when it is used."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from kclassify.checks import InputError, nearest
from kclassify.config import FitConfig
from kclassify.data.arrays import is_tf_dataset
from kclassify.data.packed import is_packed
from kclassify.data.preparation import prepare
from kclassify.data.remote import is_remote, plain_url, url_name
from kclassify.data.spec import Source

__all__ = [
    "DATASETS",
    "Dataset",
    "default_preset",
    "load_source",
    "prepare",
    "reference",
    "source_name",
]


@dataclass(frozen=True)
class Dataset:
    """A dataset that has a name.

    Attributes:
        load: ``"module:function"``, called with the name and a `FitConfig`; returns a `Source`.
        description: one line.
        preset: the recipe that `fit` uses unless told otherwise.
    """

    load: str
    description: str
    preset: str = "fast"


DATASETS: dict[str, Dataset] = {
    "cifar10": Dataset(
        "kclassify.data.cifar10:load", "60,000 colour photographs of 32x32 pixels, 10 classes"
    ),
    "digits": Dataset(
        "kclassify.data.digits:load",
        "1,797 handwritten digits of 8x8 pixels, built in",
        preset="digits",
    ),
}


@dataclass(frozen=True)
class _Origin:
    load: str
    name: str
    reference: str | None = None
    preset: str = "fast"


def load_source(data: Any, config: FitConfig) -> Source:
    """Load data of any kind that `fit` takes, as it is: neither split nor resized.

    A `Source` is one of them, with splits that were made of another one.

    Raises:
        InputError: the data is of no known kind, or its loader refuses it.

    Example:
        >>> from kclassify import FitConfig
        >>> from kclassify.data.sources import load_source
        >>> load_source("digits", FitConfig()).num_classes
        10
    """
    origin = _origin(data)
    return replace(_function(origin.load)(data, config), name=origin.name)


def default_preset(data: Any) -> str:
    """Return the preset that is meant for `data`."""
    return _origin(data).preset


def source_name(data: Any) -> str:
    """Return what a run on `data` is called, without loading it; fit for a file's name."""
    return _origin(data).name


def reference(data: Any) -> str | None:
    """Return the text that `load_source` loads `data` again by; None for data in memory."""
    return _origin(data).reference


def _function(path: str) -> Callable[[Any, FitConfig], Source]:
    module, name = path.split(":")
    return getattr(import_module(module), name)


def _as_it_is(source: Source, _: FitConfig) -> Source:
    return source


def _origin(data: Any) -> _Origin:
    if isinstance(data, Source):
        return _Origin("kclassify.data.sources:_as_it_is", data.name)
    if isinstance(data, str | os.PathLike):
        return _origin_of_text(os.fspath(data))
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _Origin("kclassify.data.table:load", "table")
    if is_tf_dataset(data):
        return _Origin("kclassify.data.arrays:load", "dataset")
    if isinstance(data, Mapping) or (isinstance(data, tuple | list) and len(data) == 2):
        return _Origin("kclassify.data.arrays:load", "arrays")
    raise InputError(
        f"`data` must be a dataset's name, {sorted(DATASETS)} or 'tfds:<name>', a folder, a CSV "
        "file, the URL of a packed set, a DataFrame, a pair (images, labels), a mapping of splits "
        f"to pairs, or a tf.data.Dataset. Received: {type(data).__name__}."
    )


def _origin_of_text(text: str) -> _Origin:
    if text in DATASETS:
        return _Origin(DATASETS[text].load, text, text, DATASETS[text].preset)
    if text.startswith("tfds:"):
        name = text.removeprefix("tfds:").replace("/", "-").replace(":", "-")
        return _Origin("kclassify.data.tfds:load", name, text)
    if is_remote(text):
        url = plain_url("data", text)
        return _Origin("kclassify.data.remote:load", url_name(url), url)
    path = Path(text)
    if path.exists():
        return _origin_of_path(path.resolve())
    if os.sep in text or "." in text:
        raise InputError(
            f"`data` must be a folder or file that exists. Received: {text!r}, which does not. "
            "Check the path."
        )
    raise InputError(
        f"`data` must be one of {sorted(DATASETS)}, 'tfds:<name>', the path of a folder or CSV "
        f"file, or the URL of a packed set. Received: {text!r}, which is none of these and does "
        "not exist."
        f"{nearest(text, DATASETS)}"
    )


def _origin_of_path(path: Path) -> _Origin:
    from kclassify.data.cifar10 import is_archive

    if path.suffix.lower() == ".csv":
        return _Origin("kclassify.data.table:load", path.stem, str(path))
    if is_archive(path):
        return _Origin("kclassify.data.cifar10:load", "cifar10", str(path))
    if is_packed(path):
        return _Origin("kclassify.data.packed:load", path.name, str(path))
    if path.is_dir():
        return _Origin("kclassify.data.folder:load", path.name, str(path))
    raise InputError(
        "`data` must be a folder, a CSV file (.csv) or the official CIFAR-10 archive. "
        f"Received: the file {str(path)!r}. Pass the folder that it is in."
    )
