"""`pack`: from data of any kind to files of records that are read as a stream."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from kclassify.atomic import file_hash, remove_leftovers, replacing
from kclassify.checks import InputError, check_choice, check_place, make_folder, printable
from kclassify.config import DATA_FIELDS, FitConfig
from kclassify.data.fingerprint import fingerprint
from kclassify.data.packed import BEGUN, FORMAT, MANIFEST, is_packed, read_manifest, table_file
from kclassify.data.packed_card import card
from kclassify.data.preparation import bring_to, check_known, choose_shape
from kclassify.data.remote import check_free, copy_folder, is_remote, plain_url, uploaded
from kclassify.data.shards import Written, shards_of, write_metadata, write_shards
from kclassify.data.sources import load_source, reference
from kclassify.data.spec import SPLITS, Examples, Source
from kclassify.data.splitting import split_source

OPTIONS = ("seed", *DATA_FIELDS)
# What makes no other images, or shows in the fingerprint.
NOT_KEPT = ("data_dir", "memory_budget", "on_error")
CARD = "data-card.md"
LOCK = ".lock"


@dataclass(frozen=True)
class Packed:
    """A packed set. It is data for `fit`, as its path is.

    Attributes:
        path: the folder; of a set in an object store, its URL.
        images: from split names to how many there are.
        bytes: of all the records.
    """

    path: Path | str
    images: Mapping[str, int]
    bytes: int

    def __str__(self) -> str:
        sizes = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        return f"{self.path}: {sizes}; {self.bytes / 1e6:,.1f} MB"

    def __fspath__(self) -> str:
        return str(self.path)


def pack(data: Any, out: str | os.PathLike[str], *, verbose: bool = True, **config: Any) -> Packed:
    """Write data of any kind as files of records, which `fit` reads as a stream.

    The images are split as `fit` would split them, brought to the shape that it would choose, and
    put in random order into TFRecord files of 16 MB, each a `tf.train.Example` with `image` (its
    uint8 pixels), `label` and `id`. So that memory is bounded, images in files are decoded one
    shard after another; arrays are in memory as they come.

    Packing that was cut short, by whatever, goes on when it is called again with the same
    arguments: the shards that are whole are kept.

    What goes to a URL is packed into a folder below `data_dir`, or else ``~/.cache/kclassify``,
    and sent from there; `fit` on this machine then reads that folder.

    Args:
        data: as `fit` takes it.
        out: a new or empty folder, or one where the same was begun; or such a place in an object
            store, ``"s3://bucket/name"``, with credentials in the environment. `fit`, `evaluate`,
            `check` and the others take it as data, and a folder, `tfds.builder_from_directory`.
        verbose: show what is done, and a progress bar.
        **config: fields of `FitConfig` that concern the data, such as ``image_size=64``, and
            `seed`, of the split and the order.

    Returns:
        A `Packed`.

    Raises:
        InputError: the data, an option, the folder or the store; the sentence says what would be
            right.
        StorageError: the disk is full; the same call goes on when there is room.

    Example:
        >>> import kclassify
        >>> packed = kclassify.pack("digits", "packed-digits", verbose=False)
        >>> packed.images
        {'train': 1458, 'validation': 160, 'test': 179}
    """
    for name in config:
        check_choice("config", name, OPTIONS)
    settings = FitConfig(batch_size=1, **config)
    if not is_remote(os.fspath(out)):
        return _pack(data, _folder(out), settings, verbose=verbose)
    url = plain_url("out", os.fspath(out))
    folder = copy_folder(url, settings)
    check_place("data_dir", folder)
    check_free(url, folder)
    packed = _pack(data, folder, settings, verbose=verbose)
    uploaded(folder, url, verbose=verbose)
    return replace(packed, path=url)


def _folder(out: str | os.PathLike[str]) -> Path:
    """Return the folder, unless it was a URL before it was made a path."""
    if re.match("[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(out)):
        raise InputError(
            f"`out` must be a folder, or a URL as a text. Received: {os.fspath(out)!r}. Write two "
            "slashes after the protocol, and do not make a path of it."
        )
    return Path(out)


def _pack(data: Any, folder: Path, settings: FitConfig, *, verbose: bool) -> Packed:
    _check_place(folder)
    with _held(folder):
        source = _shaped(load_source(data, settings), settings)
        facts = _facts(source, settings)
        if (folder / MANIFEST).is_file():
            _check_same(folder / MANIFEST, facts)
            _tell(f"packed before: {folder} is as it was", verbose=verbose)
        else:
            _write(folder, source, facts, origin=reference(data), verbose=verbose)
        return _packed(folder)


def _check_place(folder: Path) -> None:
    if folder.is_dir() and not _usable(folder):
        raise InputError(
            f"`out` must be a new folder, an empty one or one where packing was begun. Received: "
            f"{str(folder)!r}, which holds something else. Choose another name."
        )
    check_place("out", folder)


def _usable(folder: Path) -> bool:
    return is_packed(folder) or all(path.name.startswith(".") for path in folder.iterdir())


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes from packing into `folder`, which is made if it is not there."""
    new = not folder.exists()
    make_folder("out", folder, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"`out` must be a folder that no other process packs into. Received: {str(folder)!r}, "
            "where one is at work. Wait until it has ended, or choose another folder."
        ) from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _shaped(source: Source, config: FitConfig) -> Source:
    splits = split_source(source, config)
    check_known(splits, source.class_names)
    shape = choose_shape(list(splits.values()), config)
    shaped = {split: bring_to(examples, shape) for split, examples in splits.items()}
    return Source(source.name, shaped, source.class_names, source.skipped)


def _facts(source: Source, config: FitConfig) -> dict[str, Any]:
    """Return what makes the packed set what it is, as JSON types."""
    kept = {name: getattr(config, name) for name in OPTIONS if name not in NOT_KEPT}
    facts = {
        "format": FORMAT,
        "name": source.name,
        "class_names": source.class_names,
        "input_shape": source.input_shape,
        "soft": source.splits["train"].soft,
        "config": kept,
        "sizes": {split: len(examples) for split, examples in source.splits.items()},
        "fingerprint": fingerprint(source),
        "skipped": source.skipped,
    }
    return json.loads(json.dumps(facts))


def _check_same(path: Path, facts: Mapping[str, Any]) -> None:
    try:
        there = json.loads(path.read_text("utf-8"))
        differs = [name for name in facts if there.get(name) != facts[name]]
        # The other differences follow from it.
        differs = ["config"] if "config" in differs else differs
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"`out` must have a whole {path.name}. Received: {str(path)!r}, which is damaged. "
            "Delete the folder, or choose another one."
        ) from error
    if differs:
        changes = ", ".join(_change(name, there.get(name), facts[name]) for name in differs)
        raise InputError(
            f"`out` must be a folder where the same was begun. Received: {str(path.parent)!r}, "
            f"where it was other data or another configuration ({changes}). Choose another folder."
        )


def _change(name: str, before: Any, now: Any) -> str:
    if name == "config" and isinstance(before, dict):
        pairs = [(key, before.get(key), now[key]) for key in now if before.get(key) != now[key]]
        return ", ".join(f"{key} {was!r} before, {is_!r} now" for key, was, is_ in pairs)
    plain = isinstance(before, str | int | bool) and name != "fingerprint"
    return f"{name} {before!r} before, {now!r} now" if plain else f"another {name}"


def _write(
    folder: Path, source: Source, facts: dict[str, Any], *, origin: str | None, verbose: bool
) -> None:
    if (folder / BEGUN).is_file():
        _check_same(folder / BEGUN, facts)
    else:
        _write_json(folder / BEGUN, facts)
    remove_leftovers(folder)
    orders = _orders(source, facts["config"]["seed"])
    plan = {split: shards_of(folder, source, split, orders[split]) for split in SPLITS}
    kept = sum(part.facts_file.is_file() for parts in plan.values() for part in parts)
    if kept:
        total = sum(map(len, plan.values()))
        _tell(f"going on: {kept} of {total} shards were there", verbose=verbose)
    written = write_shards(plan, verbose=verbose)
    tables = {
        split: _write_tables(folder, split, source.splits[split], orders[split], written[split])
        for split in SPLITS
    }
    _finish(folder, source, {**facts, "origin": origin}, written, tables)
    for parts in plan.values():
        for part in parts:
            part.facts_file.unlink()
    (folder / BEGUN).unlink()


def _orders(source: Source, seed: int) -> dict[str, np.ndarray]:
    """Return the random order of each split's images: any part of one is a random sample."""
    return {
        split: np.random.default_rng((seed, len(SPLITS) + place)).permutation(
            len(source.splits[split])
        )
        for place, split in enumerate(SPLITS)
    }


def _write_tables(
    folder: Path, split: str, examples: Examples, order: np.ndarray, written: list[Written]
) -> dict[str, str]:
    """Write labels, ids and offsets in the order of the records; return the files' hashes."""
    arrays = {
        "labels": examples.labels[order],
        "ids": np.asarray(examples.ids[order], np.str_),
        "offsets": np.concatenate([np.asarray(shard.offsets, np.int64) for shard in written]),
    }
    hashes = {}
    for name, values in arrays.items():
        path = table_file(folder, name, split)
        with replacing(path) as beside:
            np.save(beside, np.asarray(values), allow_pickle=False)
        hashes[name] = file_hash(path)
    return hashes


def _finish(
    folder: Path,
    source: Source,
    facts: dict[str, Any],
    written: dict[str, list[Written]],
    tables: dict[str, dict[str, str]],
) -> None:
    """Write what says that the set is whole; the manifest comes last."""
    rows = {split: [asdict(one.shard) for one in written[split]] for split in SPLITS}
    splits = {split: {"shards": rows[split], "tables": tables[split]} for split in SPLITS}
    write_metadata(
        folder, source, {split: [one.shard for one in written[split]] for split in SPLITS}
    )
    with replacing(folder / CARD) as beside:
        beside.write_text(card(source, facts, rows), "utf-8")
    _write_json(folder / MANIFEST, {**facts, "splits": splits})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _packed(folder: Path) -> Packed:
    shards = read_manifest(folder)["shards"]
    images = {split: sum(shard.images for shard in shards[split]) for split in SPLITS}
    return Packed(folder, images, sum(shard.bytes for split in SPLITS for shard in shards[split]))


def _tell(text: str, *, verbose: bool) -> None:
    if verbose:
        print(printable(text))
