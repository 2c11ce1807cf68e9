"""A search in one process has at most 1.05 times as much memory after 30 trials as after 3.

There is no peer. Every trial has another network: filters, depth and batch size are chosen among 60
combinations, so no graph serves twice. What is measured is the resident memory after a trial.

    python scripts/bench/search_memory.py
"""

import gc
import tempfile
from pathlib import Path

import fits
import harness


def kclassify(options):
    import kclassify

    tune = kclassify.tune
    from kclassify.search import loop

    run_trial, memory = loop._run_trial, []

    def measured(*given):
        run_trial(*given)
        gc.collect()
        memory.append(resident())

    loop._run_trial = measured
    space = {"filters": [8, 12, 16, 20, 24, 28, 32, 36, 40, 44], "depth": [2, 3],
             "batch_size": [96, 112, 128]}  # fmt: skip
    data = fits.splits(options.images)
    with tempfile.TemporaryDirectory() as folder:
        tune(
            data, tuner="random", max_trials=options.trials, space=space, directory=folder,
            model="convnet", epochs=1, verbose=False,
        )  # fmt: skip
    return {"mebibytes_after_three": memory[2], "mebibytes_at_the_end": memory[-1],
            "growth": memory[-1] / memory[2]}  # fmt: skip


def resident():
    """Return the resident memory of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"kclassify": kclassify},
    options={
        "trials": harness.Option(30, quick=4, help="how many"),
        "images": harness.Option(2000, quick=500, help="training images"),
    },
    targets=[harness.Target("growth", "kclassify", at_most=1.05)],
)

if __name__ == "__main__":
    BENCHMARK.main()
