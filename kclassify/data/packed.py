"""A packed set: image bytes in files of records, read here as a source. NumPy only."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kclassify.atomic import file_hash
from kclassify.checks import InputError, parse_bytes
from kclassify.config import FitConfig
from kclassify.data.spec import SPLITS, Examples, PackedImages, Source

FORMAT = 1
# Written last: a folder without it is not finished.
MANIFEST = "pack.json"
# Written first: what is packed, and how.
BEGUN = "pack-begun.json"
# What is kept of each image besides its record, in the order of the records.
TABLES = ("labels", "ids", "offsets")
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """A file of records.

    Attributes:
        file: its name.
        images: how many it has.
        bytes: its size.
        sha256: of all of it.
    """

    file: str
    images: int
    bytes: int
    sha256: str


def is_packed(folder: Path) -> bool:
    """Tell a folder that `pack` has begun or finished."""
    return (folder / MANIFEST).is_file() or (folder / BEGUN).is_file()


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """Return a file's name as TFDS has it."""
    return f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def table_file(folder: Path, table: str, split: str) -> Path:
    """Return the file of one of `TABLES`."""
    return folder / f"{table}-{split}.npy"


def load(reference: str, config: FitConfig) -> Source:
    """Open a packed set; every file of it is checked first, its images stay where they are.

    Raises:
        InputError: packing was cut short, or a file is missing or not what was packed.
    """
    folder = Path(reference)
    facts = read_manifest(folder)
    _check_files(folder, facts)
    memory = parse_bytes("memory_budget", config.memory_budget)
    splits = {split: _examples(folder, split, facts, memory) for split in SPLITS}
    skipped = tuple((str(path), str(reason)) for path, reason in facts["skipped"])
    return Source(str(facts["name"]), splits, tuple(facts["class_names"]), skipped)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what `pack.json` holds, its shards as `Shard`.

    Raises:
        InputError: it is not there, or not what `pack` writes.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"`data` must be packed to the end. Received: {str(folder)!r}, where packing was cut "
            "short. Run the `kclassify pack` that began it again: it goes on where it stopped."
        )
    try:
        return _checked(json.loads(path.read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"`data` must have a whole {MANIFEST}, of format {FORMAT}. Received: {str(path)!r}, "
            "which is not what `kclassify pack` writes. Pack the images again, into another folder."
        ) from error


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest, or raise one of several errors: what a file holds is not believed."""
    if found["format"] != FORMAT or not all(isinstance(one, str) for one in found["class_names"]):
        raise ValueError("format")
    height, width, channels = (int(size) for size in found["input_shape"])
    if min(height, width) < 1 or channels not in (1, 3):
        raise ValueError("input_shape")
    splits = {split: found["splits"][split] for split in SPLITS}
    shards = {split: _shards(splits[split]["shards"]) for split in SPLITS}
    tables = {split: {name: splits[split]["tables"][name] for name in TABLES} for split in SPLITS}
    return {**found, "shards": shards, "tables": tables, "input_shape": (height, width, channels)}


def _shards(rows: Sequence[Mapping[str, Any]]) -> list[Shard]:
    shards = [Shard(**row) for row in rows]
    for shard in shards:
        # A name alone: no file outside of the folder is read.
        plain = Path(shard.file).name == shard.file and shard.images > 0
        if not plain or not _HASH.fullmatch(shard.sha256):
            raise ValueError("shard")
    if not shards:
        raise ValueError("no shards")
    return shards


def _check_files(folder: Path, facts: Mapping[str, Any]) -> None:
    """Compare all the files with their hashes, several at once; the first wrong one is named."""
    wanted = [(folder / shard.file, shard.sha256) for s in SPLITS for shard in facts["shards"][s]]
    for split, tables in facts["tables"].items():
        wanted += [(table_file(folder, name, split), sha256) for name, sha256 in tables.items()]
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        found = pool.map(_wrong, wanted)
        bar = tqdm(found, "checking", len(wanted), unit="file", delay=1.5, disable=None)
        wrong = next((reason for reason in bar if reason), None)
        bar.close()
        pool.shutdown(cancel_futures=True)
    if wrong:
        raise InputError(
            f"`data` must have the files that were packed. Received: {wrong}. Copy it again from "
            "where it is whole, or pack the images again into another folder."
        )


def _wrong(wanted: tuple[Path, str]) -> str | None:
    path, sha256 = wanted
    if not path.is_file():
        return f"{str(path)!r}, which is missing"
    if file_hash(path) != sha256:
        return f"{str(path)!r}, whose checksum is not that of {MANIFEST}: it is damaged or another"
    return None


def _examples(folder: Path, split: str, facts: Mapping[str, Any], memory: int) -> Examples:
    shards: list[Shard] = facts["shards"][split]
    labels, ids, offsets = (
        # Mapped, so that millions of them take memory only where they are looked at.
        np.load(table_file(folder, name, split), mmap_mode="r", allow_pickle=False)
        for name in TABLES
    )
    images = PackedImages(
        np.array([str(folder / shard.file) for shard in shards]),
        np.array([shard.images for shard in shards], np.int64),
        np.array([shard.bytes for shard in shards], np.int64),
        tuple(shard.sha256 for shard in shards),
        offsets,
        input_shape=facts["input_shape"],
        memory=memory,
    )
    return Examples(images, labels, ids)
