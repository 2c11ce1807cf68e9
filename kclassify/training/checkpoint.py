"""Checkpoints: all that a training needs to go on, in folders that are whole or not there at all.

Each folder says the SHA-256 of its files, so a damaged one is known, and the one before it serves.
TensorFlow is not needed.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from kclassify.atomic import appearing, file_hash

# One more than is needed, for when the newest is damaged.
KEPT = 2
ARRAYS, FACTS, MANIFEST = "arrays.npz", "facts.json", "manifest.json"
_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps.

    Attributes:
        step: how many steps have been made.
        facts: what is not an array: position, history, the state of callbacks; JSON types.
        arrays: by name: the state of network, optimizer, metrics, random numbers and callbacks.
    """

    step: int
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


class DamagedError(ValueError):
    """A checkpoint is not as it was written."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into `folder`, and remove all but the last `KEPT`.

    Raises:
        StorageError: the disk is full; the checkpoints before are as they were.
    """
    target = folder / f"step-{checkpoint.step:09d}"
    with appearing(target) as beside:
        np.savez(beside / ARRAYS, allow_pickle=False, **checkpoint.arrays)
        (beside / FACTS).write_text(json.dumps(checkpoint.facts), "utf-8")
        manifest = {name: file_hash(beside / name) for name in (ARRAYS, FACTS)}
        (beside / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    for old in _found(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint, or None, and what is wrong with those after it.

    Damaged ones are renamed, so that they can be looked at and are not in the way.
    """
    damaged: list[str] = []
    for path in _found(folder):
        try:
            return read_checkpoint(path), damaged
        except DamagedError as error:
            damaged.append(f"{_set_aside(path)} ({error})")
    return None, damaged


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a folder.

    Raises:
        DamagedError: it is not as it was written; the message says how.
    """
    manifest = _json(path / MANIFEST)
    for name in (ARRAYS, FACTS):
        if not (path / name).is_file() or file_hash(path / name) != manifest.get(name):
            raise DamagedError(f"{name} is not what {MANIFEST} says")
    try:
        with np.load(path / ARRAYS, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        raise DamagedError(f"{ARRAYS} cannot be read: {error}") from error
    return Checkpoint(_step(path), _json(path / FACTS), found)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path.name} cannot be read") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{path.name} is no mapping")
    return value


def _found(folder: Path) -> list[Path]:
    """Return the checkpoints' folders, the newest first."""
    return sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)),
                  reverse=True)  # fmt: skip


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _set_aside(path: Path) -> Path:
    names = (path.with_name(f"damaged-{count}-{path.name}") for count in range(1, 1000))
    return path.rename(next(name for name in names if not name.exists()))
