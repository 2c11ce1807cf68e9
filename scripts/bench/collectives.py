"""What workers on loopback pay for one all-reduce: of a short vector, and of the gradients.

The peer of four workers are two. The short vector is what a layer of batch normalization tells,
256 float32 numbers; the long one has a million. From both follow the time of a hop of the ring and
its bytes a second, by which `scripts/scaling.py` says how far a training scales.

    python scripts/bench/collectives.py
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import harness

SHORT, LONG, IN_A_ROW, TIMES = 256, 1_000_000, 20, 5


def measured(options, workers):
    """Return what the first of so many processes has measured."""
    from kclassify.training.launch import _free_addresses

    addresses = _free_addresses(workers)
    started = [start(list(addresses), index) for index in range(workers)]
    shown = [process.communicate(timeout=120)[0] for process in started]
    return json.loads(shown[0].splitlines()[-1])


def start(addresses, index):
    task = {"type": "worker", "index": index}
    config = json.dumps({"cluster": {"worker": addresses}, "task": task})
    environment = os.environ | {"TF_CONFIG": config, "TF_NUM_INTRAOP_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), "worker"], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def worker():
    """Be one of them, and print the milliseconds."""
    from kclassify import runtime

    runtime.prepare()
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    found = {
        f"milliseconds_{name}": milliseconds(tf, strategy, size)
        for name, size in (("short", SHORT), ("long", LONG))
    }
    print(json.dumps(found))


def milliseconds(tf, strategy, size):
    import time

    def in_a_row(values):
        values = tf.identity(values)
        for _ in range(IN_A_ROW):
            values = tf.distribute.get_replica_context().all_reduce("mean", values)
        return values

    @tf.function
    def several(values):
        return strategy.run(in_a_row, args=(values,))

    values = tf.ones((size,))
    several(values)
    began = time.perf_counter()
    for _ in range(TIMES):
        several(values)
    return 1000 * (time.perf_counter() - began) / TIMES / IN_A_ROW


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={f"{workers}-workers": partial(measured, workers=workers) for workers in (2, 4)},
    options={},
    targets=[
        harness.Target("milliseconds_short", "4-workers", over="2-workers"),
        harness.Target("milliseconds_long", "4-workers", over="2-workers"),
    ],
    on_cifar10=False,
)

if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        worker()
    else:
        BENCHMARK.main()
