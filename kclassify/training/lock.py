"""One process at a time writes to a run folder."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from filelock import FileLock, Timeout

from kclassify.checks import InputError
from kclassify.runs import Run, read_json

# Between taking the lock and saying so, a process needs a moment.
SECONDS_TO_SAY_WHO = 1.0


@contextmanager
def sole_writer(run: Run, *, argument: str = "run_dir") -> Iterator[str | None]:
    """Hold an existing run folder for this process.

    The system releases the lock of a process that dies, however it dies.

    Args:
        run: the folder.
        argument: the one that names it.

    Yields:
        Who held it before and died, or None.

    Raises:
        InputError: another process holds it; the sentence says which.
    """
    lock = FileLock(run.lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise taken(run, argument=argument) from error
    try:
        before = _writer(run)
        run.write(run.writer_file, _this_process())
        yield before
    finally:
        run.writer_file.unlink(missing_ok=True)
        # While it is held, so that nobody can hold a file that is no longer there.
        run.lock_file.unlink(missing_ok=True)
        lock.release()


def taken(run: Run, *, argument: str = "run_dir") -> InputError:
    """Return the error that names the process that writes to a run folder."""
    patience = time.monotonic() + SECONDS_TO_SAY_WHO
    while (writer := _writer(run)) is None and time.monotonic() < patience:
        time.sleep(0.05)
    return InputError(
        f"`{argument}` must be a folder that no other process writes to. Received: {str(run)!r}, "
        f"which {writer or 'another process'} is writing to. Wait until it has ended, or choose "
        f"another {argument}."
    )


def _this_process() -> dict[str, Any]:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def _writer(run: Run) -> str | None:
    try:
        found = read_json(run.writer_file)
        return f"process {found['pid']} on {found['host']} (since {found['started']})"
    except (OSError, InputError, KeyError, TypeError):
        return None
