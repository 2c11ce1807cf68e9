"""Which workers of a cluster are there: before TensorFlow waits for them, and when it has lost one.

TensorFlow waits an hour for a worker that does not come, in native code that nothing interrupts,
and does not say for which.
"""

import re
import socket
import time
from typing import cast

from kclassify.checks import InputError, parse_address
from kclassify.training.cluster import Cluster

# How long a worker waits for the others to come.
SECONDS_TO_COME = 60.0
_BETWEEN, _TO_ANSWER = 0.1, 2.0
# How TensorFlow's coordination service, which runs in the chief, names those it hears no more of.
_UNHEARD = re.compile(r"stopped sending heartbeats\):((?:\s*/job:\w+/replica:\d+/task:\d+)+)")
# What the others were doing when the chief no longer answered.
_TO_THE_CHIEF = "CoordinationService/Heartbeat"


def await_workers(cluster: Cluster, *, seconds: float = SECONDS_TO_COME) -> None:
    """Wait until each of the other workers has answered once at its address.

    Until then this one answers at its own; afterwards TensorFlow does.

    Raises:
        InputError: one did not come, or this process cannot listen at its own address.
    """
    until = time.monotonic() + seconds
    with _listening(cluster):
        awaited = missing_workers(cluster)
        while awaited and time.monotonic() < until:
            time.sleep(_BETWEEN)
            awaited = [index for index in awaited if not _answers(cluster.workers[index])]
    if awaited:
        names = " and ".join(cluster.name(index) for index in awaited)
        raise InputError(
            f"`cluster` must have workers that come within {seconds:.0f} seconds. Received: "
            f"{cluster.name(cluster.index)} has waited for {names}. Start every worker with the "
            "same addresses, and let them reach each other."
        )


def missing_workers(cluster: Cluster) -> list[int]:
    """Return which of the other workers do not answer."""
    others = [index for index in range(len(cluster.workers)) if index != cluster.index]
    return [index for index in others if not _answers(cluster.workers[index])]


def silent_workers(cluster: Cluster, told: str) -> list[int]:
    """Return which of the other workers are silent, by an error of TensorFlow's.

    The port of one that is frozen goes on answering.
    """
    unheard = _UNHEARD.search(told)
    if unheard:
        found = [int(index) for index in re.findall(r"/task:(\d+)", unheard[1])]
    else:
        found = [0] if _TO_THE_CHIEF in told else []
    return [index for index in found if index != cluster.index]


def _listening(cluster: Cluster) -> socket.socket:
    host, port = _address(cluster.workers[cluster.index])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # On all interfaces, as TensorFlow does: a name may be one that only others resolve so.
        listener.bind(("", port))
        listener.listen(len(cluster.workers))
    except OSError as error:
        listener.close()
        raise InputError(
            f"`worker` must have an address whose port is free on this machine. Received: "
            f"{cluster.name(cluster.index)} ({error.strerror}). Choose another port, or end the "
            f"process that holds {host}:{port}."
        ) from error
    return listener


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_address(address), timeout=_TO_ANSWER):
            return True
    except OSError:
        return False


def _address(text: str) -> tuple[str, int]:
    # Those of a cluster are checked.
    return cast(tuple[str, int], parse_address(text))
