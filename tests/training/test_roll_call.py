import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kclassify.checks import InputError
from kclassify.training.cluster import Cluster
from kclassify.training.launch import _free_addresses
from kclassify.training.roll_call import await_workers, missing_workers, silent_workers

# The ends of what TensorFlow 2.21 said where another worker, and where the chief, was stopped.
UNHEARD = """Error reported from /job:worker/task:1: The following tasks are unhealthy (stopped \
sending heartbeats):
/job:worker/replica:0/task:1
/job:worker/replica:0/task:2
The tasks have crashed. Check the task logs for an earlier error"""
CHIEF_UNHEARD = """Collective ops is aborted by: Deadline Exceeded

RPC: /tensorflow.CoordinationService/Heartbeat
The error could be from a previous operation."""


def test_workers_may_come_one_after_the_other():
    cluster = Cluster(_free_addresses(3), 0)
    ports = [int(address.rpartition(":")[2]) for address in cluster.workers]
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(await_workers, cluster, seconds=20)
        # The first is there, then gone as TensorFlow takes over; once is enough.
        with socket.create_server(("127.0.0.1", ports[1])) as first:
            first.accept()[0].close()
        time.sleep(0.3)
        assert not call.done()
        with socket.create_server(("127.0.0.1", ports[2])):
            assert call.result(timeout=20) is None


def test_one_that_does_not_come_is_named_with_the_time():
    cluster = Cluster(_free_addresses(2), 0)
    expected = rf"come within 0 seconds.*worker 1 \({cluster.workers[1]}\)"
    with pytest.raises(InputError, match=expected):
        await_workers(cluster, seconds=0.2)


def test_a_port_that_is_taken_is_named():
    cluster = Cluster(_free_addresses(2), 0)
    with (
        socket.create_server(("", int(cluster.workers[0].rpartition(":")[2]))),
        pytest.raises(InputError, match="whose port is free"),
    ):
        await_workers(cluster, seconds=0.2)


def test_those_that_answer_are_not_missing():
    addresses = _free_addresses(3)
    with socket.create_server(("127.0.0.1", int(addresses[1].rpartition(":")[2]))):
        assert missing_workers(Cluster(addresses, 0)) == [2]


@pytest.mark.parametrize(
    ("told", "own", "silent"),
    [
        (UNHEARD, 0, [1, 2]),
        (UNHEARD, 1, [2]),
        (CHIEF_UNHEARD, 1, [0]),
        (CHIEF_UNHEARD, 0, []),
        ("Collective ops is aborted by: Socket closed", 0, []),
    ],
)
def test_those_that_tensorflow_hears_no_more_of_are_silent(told, own, silent):
    assert silent_workers(Cluster(("a:1", "b:2", "c:3"), own), told) == silent
