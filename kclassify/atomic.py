"""Files and folders that are whole or not there: written beside, flushed to the disk, renamed.

Whatever stops the process or the machine in between, a reader finds what was there before.
"""

import errno
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from kclassify.checks import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Not every library passes the number on.
_FULL_IN_WORDS = ("No space left on device", "Disk quota exceeded")
_LEFTOVER = re.compile(r"\.(\d+)\..+")
# In a container each process may have the number of the one before.
_PROCESS = uuid4().hex[:8]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, else it is removed.

    Raises:
        StorageError: the disk is full; `path` is as it was.
    """
    beside = _beside(path)
    with _full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        try:
            yield beside
            flush(beside)
            os.replace(beside, path)
            flush(path.parent)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; on success it is renamed to it, else it is removed.

    Raises:
        StorageError: the disk is full; nothing is left of the new folder.
    """
    beside = _beside(folder)
    with _full_disk_named(folder):
        _remove_abandoned(folder)
        try:
            beside.mkdir(parents=True)
            yield beside
            for path in (*beside.rglob("*"), beside):
                flush(path)
            os.rename(beside, folder)
            flush(folder.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed had begun to write below `folder`.

    Nobody else may be writing there.
    """
    for path in [path for path in folder.rglob(".*") if _LEFTOVER.fullmatch(path.name)]:
        _remove(path)


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that are no more had begun to write in the place of `path`."""
    for beside in path.parent.glob(f".*.{glob.escape(path.name)}"):
        found = _LEFTOVER.fullmatch(beside.name)
        if found and not beside.name.startswith(_own()) and not _alive(int(found[1])):
            _remove(beside)


def _own() -> str:
    """Return how the names begin of what this process is writing."""
    return f".{os.getpid()}.{_PROCESS}"


def _alive(process: int) -> bool:
    """Tell whether another process has this number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, by which it is known to be what was written."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Have the disk hold a file or folder before going on: a rename must not outlive it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    # The whole name stays last: Keras and NumPy choose the format by how it ends.
    return path.with_name(f"{_own()}{uuid4().hex[:8]}.{path.name}")


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageError) or not _says_full(error):
            raise
        raise StorageError(
            f"no space is left on the disk for {str(path)!r}. What was there before is as it was. "
            "Make room, then run the same command again."
        ) from error


def _says_full(error: BaseException | None) -> bool:
    """Tell whether a full disk is behind an error, or behind one that it came from."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL or any(
            words in str(error) for words in _FULL_IN_WORDS
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
