"""Trials in processes of their own: what they take they give back, and what kills one kills one.

    python -m kclassify.search.child DATA JOB OUTCOME THREADS SECONDS PARENT

trains the job of a file on data that another process has laid down, within so many seconds, and
writes what it came to. When its parent dies, it finishes the step and saves it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from kclassify import runtime
from kclassify.atomic import replacing
from kclassify.checks import OutOfMemoryError, StorageError

runtime.prepare()

from kclassify.search.job import Job, run_job  # noqa: E402
from kclassify.search.sessions import Sessions  # noqa: E402
from kclassify.search.shared_data import pick_up  # noqa: E402
from kclassify.search.trial import NoTimeLeft  # noqa: E402
from kclassify.training.interruption import Interrupted, stop_with  # noqa: E402

# Exit codes: the time was over; the disk was full; the memory was.
NO_TIME_LEFT, DISK_FULL, MEMORY_FULL = 75, 74, 71
# What memory that runs out, or native code that breaks, ends a process by.
DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
SECONDS_TO_SAVE = 60.0


class ProcessDiedError(RuntimeError):
    """A trial's process was ended from outside, or by its own native code."""


class Children:
    """The processes of trials that are in work.

    Args:
        data: the folder of the data that was laid down.
        threads: of each.
    """

    def __init__(self, data: Path, *, threads: int):
        self.data, self.threads = data, threads
        self.stopping = False
        self._working: set[subprocess.Popen] = set()
        self._lock = threading.Lock()

    def run(self, job: Job, _: Any = None, *, end: float) -> dict[str, Any]:
        """Make the trainings of a job in a process of its own; see `run_job`.

        Raises:
            NoTimeLeft: it was time to stop, or the search is being stopped.
            ProcessDiedError: it was killed; the sentence says by which signal.
            OutOfMemoryError: a step needs more memory than there is.
            StorageError: the disk is full.
            RuntimeError: it failed; the message is its traceback.
        """
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder) / "job.json", Path(folder) / "outcome.json"
            files[0].write_text(job.to_text(), "utf-8")
            code, errors = self._wait(files, seconds=end - time.perf_counter())
            if code == 0:
                return json.loads(files[1].read_text("utf-8"))
        raise self._error(code, errors)

    def stop(self) -> None:
        """Have all of them finish their step and save; wait for that."""
        with self._lock:
            self.stopping = True
            working = list(self._working)
        for process in working:
            process.send_signal(signal.SIGTERM)
        for process in working:
            process.wait(timeout=SECONDS_TO_SAVE)

    def _wait(self, files: tuple[Path, Path], *, seconds: float) -> tuple[int, str]:
        command = [sys.executable, "-m", "kclassify.search.child", self.data, *files]
        command += [self.threads, seconds, os.getpid()]
        with self._lock:
            if self.stopping:
                return NO_TIME_LEFT, ""
            # Ctrl-C on a terminal reaches this process alone, which tells the others.
            process = subprocess.Popen(
                [str(word) for word in command], stderr=subprocess.PIPE, text=True,
                stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            self._working.add(process)
        _, errors = process.communicate()
        with self._lock:
            self._working.discard(process)
        return process.returncode, errors

    def _error(self, code: int, errors: str) -> Exception:
        if code in (NO_TIME_LEFT, 128 + signal.SIGTERM, -signal.SIGTERM) or self.stopping:
            return NoTimeLeft()
        if -code in DEADLY:
            name = signal.Signals(-code).name
            return ProcessDiedError(
                f"its process was ended by {name}, as when memory runs out or native code breaks"
            )
        last = errors.strip().splitlines()[-1:] or [f"exit code {code}"]
        kinds = {DISK_FULL: StorageError, MEMORY_FULL: OutOfMemoryError}
        return kinds[code](last[0]) if code in kinds else RuntimeError(errors.strip())


def main(arguments: list[str]) -> int:
    """Train the job that the arguments name; see the module's first lines."""
    data, job, outcome, threads, seconds, parent = arguments
    end = time.perf_counter() + float(seconds)
    stop_with(int(parent))
    asked = Job.from_text(Path(job).read_text("utf-8"))
    runtime.set_threads(int(threads))
    try:
        found = run_job(asked, Sessions(pick_up(Path(data))), end=end)
    except (NoTimeLeft, Interrupted):
        return NO_TIME_LEFT
    except (StorageError, OutOfMemoryError) as error:
        print(error, file=sys.stderr)
        return DISK_FULL if isinstance(error, StorageError) else MEMORY_FULL
    with replacing(Path(outcome)) as beside:
        beside.write_text(json.dumps(found), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
