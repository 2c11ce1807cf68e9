"""A packed set: image bytes in files of records, read here as a source. NumPy only."""

import json
import os
import re
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kclassify import runtime
from kclassify.atomic import file_hash
from kclassify.checks import InputError, is_whole, parse_bytes
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
# As `shard_name` makes them: such a name leads to no other folder.
_SHARD = re.compile(
    f"[0-9a-z_]{{1,220}}-({'|'.join(SPLITS)})\\.tfrecord-[0-9]{{5,9}}-of-[0-9]{{5,9}}"
)


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
    _check_files(folder, files_of(facts))
    return opened(folder, facts, config)


def opened(folder: Path, facts: Mapping[str, Any], config: FitConfig) -> Source:
    """Open a packed set whose files are known to be those of its manifest."""
    memory = parse_bytes("memory_budget", config.memory_budget)
    splits = {split: _examples(folder, split, facts, memory) for split in SPLITS}
    return Source(facts["name"], splits, tuple(facts["class_names"]), facts["skipped"])


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
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(content: bytes, place: str) -> dict[str, Any]:
    """Return what the `pack.json` of that place holds, its shards as `Shard`.

    Raises:
        InputError: it is not what `pack` writes.
    """
    try:
        return _checked(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"`data` must have a whole {MANIFEST}, of format {FORMAT}. Received: {place!r}, "
            "which is not what `kclassify pack` writes. Pack the images again, into another folder."
        ) from error


def files_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the files that a manifest lists, with their SHA-256."""
    files = {shard.file: shard.sha256 for split in SPLITS for shard in facts["shards"][split]}
    for split, tables in facts["tables"].items():
        files |= {table_file(Path(), name, split).name: one for name, one in tables.items()}
    return files


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
    return {
        **found,
        "name": str(found["name"]),
        "skipped": tuple((str(path), str(why)) for path, why in found["skipped"]),
        "shards": shards,
        "tables": tables,
        "input_shape": (height, width, channels),
    }


def _shards(rows: Sequence[Mapping[str, Any]]) -> list[Shard]:
    shards = [Shard(**row) for row in rows]
    for shard in shards:
        named = _SHARD.fullmatch(shard.file) and _HASH.fullmatch(shard.sha256)
        if not named or not is_whole(shard.images, least=1):
            raise ValueError("shard")
    if not shards:
        raise ValueError("no shards")
    return shards


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise `InputError` with the first file that is not what the manifest lists."""
    with closing(wrong_files(folder, files)) as found:
        _, reason = next(found, (None, None))
    if reason:
        raise InputError(
            f"`data` must have the files that were packed. Received: {reason}. Copy it again from "
            "where it is whole, or pack the images again into another folder."
        )


def wrong_files(folder: Path, files: Mapping[str, str]) -> Generator[tuple[str, str], None, None]:
    """Yield the names of the files whose hash is another, and what is wrong with each."""
    pool = ThreadPoolExecutor(runtime.concurrency())
    found = pool.map(_wrong, [folder / name for name in files], files.values())
    bar = tqdm(found, "checking", len(files), unit="file", delay=1.5, disable=None)
    try:
        yield from ((name, reason) for name, reason in zip(files, bar, strict=True) if reason)
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)


def _wrong(path: Path, sha256: str) -> str | None:
    if not path.is_file():
        return f"{str(path)!r}, which is missing"
    try:
        found = file_hash(path)
    except OSError as error:
        return f"{str(path)!r}, which cannot be read ({error.strerror})"
    if found != sha256:
        return f"{str(path)!r}, whose checksum is not that of {MANIFEST}: it is damaged or another"
    return None


def _examples(folder: Path, split: str, facts: Mapping[str, Any], memory: int) -> Examples:
    shards: list[Shard] = facts["shards"][split]
    paths = [str(folder / shard.file) for shard in shards]
    labels, ids, offsets = (
        # Mapped, so that millions of them take memory only where they are looked at.
        np.load(table_file(folder, name, split), mmap_mode="r", allow_pickle=False)
        for name in TABLES
    )
    counts = {len(labels), len(ids), len(offsets), sum(shard.images for shard in shards)}
    if len(counts) > 1:
        raise InputError(
            f"`data` must have as many records as labels. Received: {str(folder)!r}, whose {split} "
            f"split has {' and '.join(map(str, sorted(counts)))}. Pack the images again, into "
            "another folder."
        )
    images = PackedImages(
        np.array(paths),
        np.array([shard.images for shard in shards], np.int64),
        np.array([os.path.getsize(path) for path in paths], np.int64),
        tuple(shard.sha256 for shard in shards),
        offsets,
        input_shape=facts["input_shape"],
        memory=memory,
    )
    return Examples(images, labels, ids)
