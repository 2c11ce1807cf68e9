"""A fit of 4 times the memory that it may have ends, with 1.2 times what it says it takes at most.

The peer is the same fit of a few images in memory. What that takes at its highest, and the
`memory_budget` on top, is the bound that is stated; `mebibytes` is this bound for the peer, and the
highest resident memory for the others. Images are random, 96x96, packed; the largest set has
4 times the limit, the others a half, a quarter and an eighth of it, so that the time of an epoch
can be compared with the images in it. The limit is set on the process itself: by a control group
where one can be made, which counts the system's cache of its files too, else by RLIMIT_DATA.

    python scripts/bench/past_memory.py --limit 1280
"""

import contextlib
import os
import resource
import traceback
from functools import partial
from pathlib import Path

import harness

SIDE, BATCH, TIMES = 96, 128, (1, 2, 4, 8)
# Of each split besides train, and of the set that fits memory.
FEW = 256
GROUPS = {
    "/sys/fs/cgroup/memory": "memory.limit_in_bytes",
    "/sys/fs/cgroup": "memory.max",
}


def in_memory(options):
    images, labels = pixels(3 * FEW)
    data = {
        split: (images[place * FEW : (place + 1) * FEW], labels[place * FEW : (place + 1) * FEW])
        for place, split in enumerate(("train", "validation", "test"))
    }
    found = fitted(data, options)
    return {**found, "mebibytes": found["mebibytes"] + options.budget}


def streamed(options, times):
    data = packed(options, times)
    with limited(options.limit * 2**20) as by_group:
        found = fitted(data, options)
    size = sum(path.stat().st_size for path in data.glob("*-train.tfrecord*"))
    times_the_limit = size / (options.limit * 2**20)
    return {**found, "times_the_limit": times_the_limit, "limited_by_group": float(by_group)}


def fitted(data, options):
    """Return the highest resident memory of a fit, and the time of an image in its last epoch."""
    import tempfile

    import kclassify

    with tempfile.TemporaryDirectory() as place:
        run = kclassify.fit(
            data, model="convnet", filters=4, depth=1, epochs=2, batch_size=BATCH,
            augmentation="none", memory_budget=f"{options.budget}MB", run_dir=f"{place}/run",
            verbose=False,
        )  # fmt: skip
        seconds = float(run.history["seconds"].iloc[-1])
    images = len(run.source.splits["train"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {
        "mebibytes": peak,
        "seconds_an_epoch": seconds,
        "microseconds_an_image": 1e6 * seconds / images,
    }


def packed(options, times):
    """Return a packed set of so many eighths of 4 times the limit, which is kept in `build/`."""
    out = harness.HERE / "build" / f"past-memory-{options.limit}-{times}x"
    if not (out / "pack.json").is_file():
        in_child(partial(pack, out, options.limit * 2**20 * times // 2 // SIDE**2 // 3))
    return out


def pack(out, count):
    import kclassify

    images, labels = pixels(count + 2 * FEW)
    parts = {"test": slice(FEW), "validation": slice(FEW, 2 * FEW), "train": slice(2 * FEW, None)}
    data = {split: (images[part], labels[part]) for split, part in parts.items()}
    kclassify.pack(data, out, verbose=False)


def pixels(count):
    """Return random images, mapped from a file that nobody sees, and labels."""
    import tempfile

    import numpy as np

    (harness.HERE / "build").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryFile(dir=harness.HERE / "build") as file:
        images = np.memmap(file, np.uint8, "w+", shape=(count, SIDE, SIDE, 3))
    for start in range(0, count, 1024):
        some = images[start : start + 1024]
        some[:] = rng.integers(0, 256, some.shape, np.uint8)
    return images, np.arange(count) % 10


def in_child(work):
    """Do it in a process of its own, whose memory is not that of the fit."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("packing failed")


@contextlib.contextmanager
def limited(size):
    """Give this process at most `size` bytes of memory; yield whether a control group does it."""
    for root, name in GROUPS.items():
        group = Path(root) / f"kclassify-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / name).exists():
                (group / name).write_text(str(size))
                (group / "cgroup.procs").write_text(str(os.getpid()))
                try:
                    yield True
                finally:
                    (Path(root) / "cgroup.procs").write_text(str(os.getpid()))
                    group.rmdir()
                return
            group.rmdir()
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    yield False


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "in-memory": in_memory,
        **{f"streamed-{times}x": partial(streamed, times=times) for times in TIMES},
    },
    options={
        "limit": harness.Option(1280, quick=1024, help="mebibytes that the process may have"),
        "budget": harness.Option(256, quick=32, help="mebibytes that the images may have"),
    },
    targets=[
        harness.Target("mebibytes", "streamed-8x", over="in-memory", at_most=1.2),
        harness.Target("times_the_limit", "streamed-8x", at_least=4.0),
        *(
            harness.Target(
                "microseconds_an_image", f"streamed-{times}x", over="streamed-1x",
                at_least=0.95, at_most=1.05,
            )
            for times in TIMES[1:]
        ),
    ],
    on_cifar10=False,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main()
