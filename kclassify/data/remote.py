"""Packed sets in object stores: each has a local copy, which is read as any packed folder.

A set is sent file by file, its manifest last: without that there is no set. Meanwhile the object
`pack-begun.json` has what the manifest will say: by it the same set goes on, and no other.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kclassify.atomic import file_hash, replacing
from kclassify.checks import InputError, check_place
from kclassify.config import FitConfig
from kclassify.data.cache import alone, cache_root
from kclassify.data.packed import (
    BEGUN,
    MANIFEST,
    files_of,
    opened,
    parse_manifest,
    read_manifest,
    wrong_files,
)
from kclassify.data.spec import Source
from kclassify.data.store import CHECK, Store, named, reason

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Files that are on their way at the same time.
AT_ONCE = 8
# Bytes; that of a million shards has fewer.
LARGEST_MANIFEST = 2**28


def is_remote(text: str) -> bool:
    """Tell a URL from the name of a dataset and the path of a file."""
    return bool(_SCHEME.match(text))


def plain_url(argument: str, text: str) -> str:
    """Return a URL without the slashes that it may end with.

    Raises:
        InputError: it is a protocol alone, or has what must not be kept.
    """
    plain = text.rstrip("/")
    # It would be printed and kept; a query also cannot have a file's name after it.
    if re.match("[^/]*//[^/]*:[^/]*@", plain) or re.match(r"https?://[^?]*\?", plain):
        raise InputError(
            f"`{argument}` must be a URL without a password and without a query. Received: one "
            "with it. Give credentials in the environment, as the package of its protocol says."
        )
    if not is_remote(plain):
        raise InputError(
            f"`{argument}` must be a URL with a place in it, such as 's3://bucket/name'. Received: "
            f"{text!r}. Name the bucket."
        )
    return plain


def url_name(url: str) -> str:
    """Return the last part of a URL, fit for a file's name."""
    last = url.split("://", 1)[1].split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return re.sub("[^A-Za-z0-9._-]+", "_", last).strip("._")[:64] or "packed"


def copy_folder(url: str, config: FitConfig) -> Path:
    """Return where the copy of a packed set is, or will be."""
    name = f"{url_name(url)}-{_short_hash(os.fsencode(url))}"
    return cache_root(config, within="packed") / name


def load(reference: str | os.PathLike[str], config: FitConfig) -> Source:
    """Open the packed set at a URL by its copy, which is made or made whole first.

    Raises:
        InputError: there is none, it cannot be reached, or a file is not what was packed.
        StorageError: the disk is full; the same call goes on when there is room.
    """
    folder = copied(plain_url("data", os.fspath(reference)), config)
    return opened(folder, read_manifest(folder), config)


def copied(url: str, config: FitConfig) -> Path:
    """Return the copy of the packed set at `url`; what is missing or damaged in it is fetched.

    Several processes may call it at once: one fetches, the others wait and find everything there.
    Where the set is no longer what was copied, the new one gets a folder of its own, since a
    training may be reading the old one.

    Raises:
        InputError: there is no set, it cannot be reached, or a file is not what was packed.
        StorageError: the disk is full; the same call goes on when there is room.
    """
    store = Store.of("data", url)
    content = _read_manifest(store)
    files = files_of(parse_manifest(content, f"{url}/{MANIFEST}"))
    folder = _folder_of(content, copy_folder(url, config))
    missing = _missing(folder, files)
    if missing or not _holds(folder, content):
        check_place("data_dir", folder)
        with alone(folder, f"copies {url!r}"):
            if _folder_of(content, copy_folder(url, config)) != folder:
                # Another process has fetched what was there before.
                return copied(url, config)
            # Or some of the same files.
            left = _missing(folder, {name: files[name] for name in missing})
            _each(lambda name: _fetch(store, folder / name, files[name]), left, "fetching")
            with replacing(folder / MANIFEST) as beside:
                beside.write_bytes(content)
    return folder


def check_free(url: str, folder: Path) -> None:
    """See, before work is spent on it, that what is packed in `folder` can be sent to `url`.

    Raises:
        InputError: the store cannot be written to, or something else is there.
    """
    store = Store.of("out", url)
    with named("`out` must be a URL that can be written to.", url, CHECK):
        _check_own(store, store.sizes(), folder)
        store.try_writing()


def uploaded(folder: Path, url: str, *, verbose: bool = True) -> None:
    """Send a packed set to `url`, its manifest last; what was sent before is not sent again.

    Raises:
        InputError: the store cannot be reached any more, or something else is there.
    """
    store = Store.of("out", url)
    again = "Run the same command again: what was packed and sent is kept."
    with (
        alone(folder, f"copies {url!r}"),
        named("`out` must be a URL that can be written to until all is there.", url, again),
    ):
        there = store.sizes()
        _check_own(store, there, folder)
        if MANIFEST not in there:
            _send(store, folder, there, verbose=verbose)
        if MANIFEST not in there or BEGUN in there:
            store.delete(BEGUN)


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _read_manifest(store: Store) -> bytes:
    with named("`data` must be a URL that can be read.", store.url, CHECK):
        try:
            # A larger one is none; its end is missed when it is parsed.
            return store.read(MANIFEST, most=LARGEST_MANIFEST)
        except FileNotFoundError as error:
            raise InputError(
                f"`data` must be the URL of a packed set. Received: {store.url!r}, where no "
                f"{MANIFEST} is found ({_why(error)}). Check the URL, or run the `kclassify pack` "
                "that writes there to its end."
            ) from error


def _why(error: FileNotFoundError) -> str:
    # Of a server that does not answer, some stores say no more than that the file is not found.
    behind = error.__cause__
    return reason(behind if isinstance(behind, Exception) else error)


def _folder_of(content: bytes, folder: Path) -> Path:
    if not (folder / MANIFEST).is_file() or _holds(folder, content):
        return folder
    return folder.with_name(f"{folder.name}-{_short_hash(content)}")


def _holds(folder: Path, content: bytes) -> bool:
    known = folder / MANIFEST
    return known.is_file() and known.read_bytes() == content


def _missing(folder: Path, files: Mapping[str, str]) -> list[str]:
    return [name for name, _ in wrong_files(folder, files)]


def _each(
    job: Callable[[str], Any], names: Sequence[str], doing: str, *, quiet: bool | None = None
) -> None:
    """Do a job with each name, several at once; after an error none is begun."""
    pool = ThreadPoolExecutor(AT_ONCE)
    bar = tqdm(total=len(names), desc=doing, unit="file", delay=1.5, disable=quiet)
    try:
        for _ in pool.map(job, names):
            bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()


def _fetch(store: Store, path: Path, sha256: str) -> None:
    place = f"{store.url}/{path.name}"
    again = "Run the same command again: what was fetched is kept."
    with (
        replacing(path) as beside,
        named("`data` must be a URL that can be read until all is here.", place, again),
    ):
        store.fetch(beside, name=path.name)
        if file_hash(beside) != sha256:
            raise InputError(
                f"`data` must have the files that were packed. Received: {place!r}, whose checksum "
                f"is not that of {MANIFEST}: it is damaged or another. Run the same command again, "
                "or pack the images again, to another URL."
            )


def _check_own(store: Store, there: Mapping[str, int | None], folder: Path) -> None:
    """Refuse a place with anything but the set that is packed in `folder`, or a part of it."""
    own = folder / MANIFEST
    name = next((name for name in (MANIFEST, BEGUN) if name in there), None)
    expected = own.read_bytes() if own.is_file() else None
    same = expected and name and store.read(name, most=len(expected) + 1) == expected
    if there and not same:
        what = "a packed set is, or was begun" if name else f"something else is: {min(there)!r}"
        raise InputError(
            f"`out` must be a URL where nothing is, or where the same was begun from here. "
            f"Received: {store.url!r}, where {what}. Choose another URL, or delete what is there."
        )


def _send(store: Store, folder: Path, there: Mapping[str, int | None], *, verbose: bool) -> None:
    def is_left(path: Path) -> bool:
        # Of the same set and length it is the same: the set's files have their hashes in BEGUN.
        return path.is_file() and there.get(path.name) != path.stat().st_size

    damaged = _missing(folder, files_of(read_manifest(folder)))
    if damaged:
        raise InputError(
            "`out` must be sent from a copy that is whole. Received: "
            f"{str(folder / damaged[0])!r}, which is not what was packed. Delete that "
            "folder, then run the same command again."
        )
    if BEGUN not in there:
        store.send(folder / MANIFEST, name=BEGUN)
    names = {path.name for path in folder.iterdir() if path.name[0] != "." and is_left(path)}
    _each(
        lambda name: store.send(folder / name, name=name),
        sorted(names - {MANIFEST, BEGUN}), "sending", quiet=not verbose,
    )  # fmt: skip
    store.send(folder / MANIFEST, name=MANIFEST)
