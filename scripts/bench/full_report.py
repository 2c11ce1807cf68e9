"""All that `analyze` finds in a finished CIFAR-10 run, and its report, take a minute.

There is no peer but the clock. Timed are the two commands as a user gives them, one after the
other: `kclassify analyze RUN`, which loads the data again and does everything but robustness, and
`kclassify report RUN`. The run is trained, evaluated and exported before. TFDS_DATA_DIR says where
CIFAR-10 is.

    python scripts/bench/full_report.py
"""

import subprocess
import sys
import time

import fits
import harness


def kclassify(options):
    with fits.folder() as path:
        call("fit", "cifar10", "--run-dir", path, "--preset", options.preset,
             "--epochs", options.epochs)  # fmt: skip
        call("evaluate", path)
        call("export", path)
        parts = {"analyze": call("analyze", path), "report": call("report", path)}
    return {"seconds": sum(parts.values()), **{f"{k}_seconds": v for k, v in parts.items()}}


def call(*words):
    """Return the seconds that a command takes."""
    command = [sys.executable, "-m", "kclassify", *map(str, words)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"kclassify": kclassify},
    options={
        "preset": harness.Option("fast", help="the recipe"),
        "epochs": harness.Option(7, quick=1, help="how many; the report takes no longer for more"),
    },
    targets=[harness.Target("seconds", "kclassify", at_most=60)],
)

if __name__ == "__main__":
    BENCHMARK.main()
