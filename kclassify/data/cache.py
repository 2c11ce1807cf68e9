"""Copies of data on this machine: where they are, and that one process at a time makes one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kclassify.checks import make_folder
from kclassify.config import FitConfig


def cache_root(config: FitConfig, *, within: str = "") -> Path:
    """Return `config.data_dir`, or else a folder of ``~/.cache/kclassify``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(config.data_dir) if config.data_dir else cache / "kclassify" / within
    # The workers of a data service may have another working directory.
    return root.absolute()


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Wait until no other process writes `folder`, which need not be there.

    Args:
        folder: what is written, or read to be sent.
        doing: what another process does there, for the message.
    """
    make_folder("data_dir", folder.parent, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"kclassify: waiting for another process, which {doing}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
