"""Checkpoints take less than 2 % of the time of a training.

Preset `fast`, whole, with a checkpoint after every epoch: the time in which nothing is trained
because the state is taken, hashed, written and flushed to the disk, over that of the training,
which is its own peer: no other library saves as much.

    python scripts/bench/checkpoint_cost.py --checkpoint-every 5s
"""

import time

import fits
import harness


def kclassify(options):
    import kclassify

    fit = kclassify.fit
    from kclassify.training.resume import ResumableCallbacks

    spent, save = [], ResumableCallbacks._save

    def timed(callbacks):
        began = time.perf_counter()
        save(callbacks)
        spent.append(time.perf_counter() - began)

    ResumableCallbacks._save = timed
    data = {
        "train": harness.cifar10(options.images),
        "test": harness.cifar10(options.test_images, split="test"),
    }
    with fits.folder() as path:
        run = fit(
            data, preset="fast", run_dir=path, verbose=False,
            checkpoint_every=options.checkpoint_every,
        )  # fmt: skip
        seconds = run.summary["training_seconds"]
    return {
        "training_seconds": seconds,
        "checkpoints": len(spent),
        "seconds_a_checkpoint": sum(spent) / len(spent),
        "share": sum(spent) / seconds,
    }


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"kclassify": kclassify},
    options={
        "images": harness.Option(50_000, quick=2000, help="training images"),
        "test_images": harness.Option(1000, quick=100, help="test images"),
        "checkpoint_every": harness.Option("5m", help="besides those after every epoch"),
    },
    targets=[harness.Target("share", "kclassify", at_most=0.02)],
)

if __name__ == "__main__":
    BENCHMARK.main()
