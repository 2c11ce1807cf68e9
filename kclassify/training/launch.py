"""`launch`: several workers of one training on this machine, to try out what a cluster would do."""

import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import takewhile

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number, is_whole
from kclassify.runtime import THREADS
from kclassify.training.cluster import LAUNCHER, VARIABLE, Cluster

# After one has ended with an error, the others get this long to notice and to say so.
SECONDS_TO_END, _BETWEEN = 60.0, 0.2


GPUS = "CUDA_VISIBLE_DEVICES"
# What several processes can do together.
VERBS = ("fit", "evaluate")


def launch(command: Sequence[str], *, workers: int) -> int:
    """Run `kclassify fit` or `evaluate` in several processes of this machine, which work together.

    The first shows what it does; the others speak on errors only. Each gets its part of the
    physical cores, unless `TF_NUM_INTRAOP_THREADS` says how many threads, and of the GPUs that
    `CUDA_VISIBLE_DEVICES` names; where it names none, all work on the CPU.

    Args:
        command: the words after `kclassify`; those of `fit` have a ``--run-dir`` among them.
        workers: how many, at least two.

    Returns:
        0 where all have ended well, else the first bad exit code.

    Raises:
        InputError: another command, too few workers, no folder for them to share, or GPUs of
            which they cannot have as many each.
    """
    check_choice("launch", command[0] if command else "", VERBS)
    check_number("workers", workers, expected="a whole number of at least 2",
                 ok=is_whole(workers, least=2))  # fmt: skip
    _check_gpus(workers)
    shared = any(word == "--run-dir" or word.startswith("--run-dir=") for word in command)
    if command[0] == "fit" and not shared:
        raise InputError(
            f"`launch` must get a --run-dir, which the workers share. Received: "
            f"{shlex.join(command)!r}. Name a folder."
        )
    addresses = _free_addresses(workers)
    print(_on_a_cluster(command, workers), flush=True)
    started: list[subprocess.Popen] = []
    try:
        for index in range(workers):
            started.append(_start(command, Cluster(addresses, index)))
        return _first_bad(started)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Once: a second signal would not let them finish the step.
        number = signal.SIGTERM if isinstance(stop, SystemExit) else signal.SIGINT
        for process in started:
            process.send_signal(number)
        _first_bad(started)
        raise
    finally:
        for process in started:
            process.kill()
            process.wait()


def _free_addresses(count: int) -> tuple[str, ...]:
    """Return loopback addresses whose ports were free just now, each another."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return tuple(f"127.0.0.1:{port}" for port in ports)


def _on_a_cluster(command: Sequence[str], workers: int) -> str:
    machines = ",".join(f"machine{index}:4000" for index in range(workers))
    words, last = shlex.join(["kclassify", *command]), workers - 1
    return (
        f"on a cluster, with a file system that all see, machine i of 0 to {last} would run\n"
        f"  {words} --cluster {machines} --worker i\n"
        f"and SLURM\n"
        f"  srun --ntasks {workers} {words} --cluster slurm"
    )


def _start(command: Sequence[str], cluster: Cluster) -> subprocess.Popen:
    own = max(1, runtime.physical_cores() // len(cluster.workers))
    variables = {THREADS: str(own), **os.environ, VARIABLE: cluster.config, GPUS: _gpus(cluster),
                 LAUNCHER: str(os.getpid())}  # fmt: skip
    shown = None if cluster.index == 0 else subprocess.DEVNULL
    # In a group of its own, so that Ctrl-C in a terminal comes to it by `launch` alone. It would
    # hear nothing of a terminal that is closed, so it looks whether `launch` is still there.
    return subprocess.Popen(
        [sys.executable, "-m", "kclassify", *command],
        env=variables, stdout=shown, process_group=0,
    )  # fmt: skip


def _check_gpus(workers: int) -> None:
    """Raise `InputError` unless all workers get as many GPUs, which TensorFlow relies on."""
    if len(_named_gpus()) % workers:
        raise InputError(
            f"`{GPUS}` must name as many GPUs for each of the {workers} workers, or none. "
            f"Received: {os.environ[GPUS]!r}. Name a multiple of {workers}, or -1 for the CPU."
        )


def _gpus(cluster: Cluster) -> str:
    """Return which GPUs a worker sees: its share of those that are named, or none.

    Two of them cannot have the same, and to count them here would take their memory.
    """
    return ",".join(_named_gpus()[cluster.index :: len(cluster.workers)]) or "-1"


def _named_gpus() -> list[str]:
    """Return the GPUs that are named; as for CUDA, none after one that does not exist."""
    named = os.environ.get(GPUS, "").split(",")
    return list(takewhile(lambda name: name not in ("", "-1"), named))


def _first_bad(started: Sequence[subprocess.Popen]) -> int:
    """Wait until all have ended, the others not for long once one has failed."""
    code, until = 0, math.inf
    while any(process.poll() is None for process in started) and time.monotonic() < until:
        time.sleep(_BETWEEN)
        failed = [process.returncode for process in started if process.poll()]
        if failed and not code:
            until, code = time.monotonic() + SECONDS_TO_END, failed[0]
    failed = [process.returncode for process in started if process.poll()]
    code = code or (failed[0] if failed else 0)
    # A shell's way of telling that a signal ended it.
    return code if code >= 0 else 128 - code
