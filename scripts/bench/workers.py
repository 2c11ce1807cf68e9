"""Workers train as one process does, and two with a thread each nearly as quick as it with two.

The peer is one process. Several on loopback share every batch of CIFAR-10, in float32. Their losses
and accuracies, of training and validation, are compared with the peer's after each epoch:
`..._difference` is the largest. `one-thread` is one process too, with a thread instead of two: what
rounding alone makes of it. That the workers' weights are equal is checked by `fit` itself.

    python scripts/bench/workers.py --model convnet --batch-size 512
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import harness

MEASURES = ("loss", "accuracy", "val_loss", "val_accuracy")
EPOCHS = 3
MODELS = {"resnet": ("--depth", "8"), "convnet": (), "fastnet": ("--filters", "32,64,128")}


def alone(options):
    with tempfile.TemporaryDirectory() as folder:
        return {"images_per_second": rate(trained(options, Path(folder) / "one", threads=2))}


def together(options, workers):
    with tempfile.TemporaryDirectory() as folder:
        one = trained(options, Path(folder) / "one", threads=2)
        several = trained(options, Path(folder) / "several", threads=1, workers=workers)
    differences = (several[list(MEASURES)] - one[list(MEASURES)]).abs().max()
    return {
        "images_per_second": rate(several),
        **{f"{name}_difference": float(differences[name]) for name in MEASURES},
    }


def trained(options, run_dir, *, threads, workers=1):
    """Return the history of a training in processes of their own."""
    import pandas as pd

    launch = ["launch", "--workers", str(workers)] if workers > 1 else []
    words = [
        *launch, "fit", str(packed(options)), "--run-dir", str(run_dir), "--epochs", str(EPOCHS),
        *("--model", options.model), *MODELS[options.model], "--batch-size",
        str(options.batch_size), "--augmentation", "flip_crop", "--optimizer", options.optimizer,
        "--learning-rate", options.learning_rate, "--mixed-precision", "False", "--quiet",
    ]  # fmt: skip
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": str(threads)}
    subprocess.run(
        [sys.executable, "-m", "kclassify", *words], check=True, env=environment,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return pd.read_csv(run_dir / "history.csv")


def packed(options):
    """Return CIFAR-10's images as a packed set, which is kept in `build/`."""
    import kclassify

    images, labels = harness.cifar10(options.images)
    out = harness.HERE / "build" / f"workers-{options.images}"
    kclassify.pack((images, labels), out, validation_fraction=0.4, verbose=False)
    return out


def rate(history):
    """Return images a second of the epochs after the first, which traces."""
    return float(history["images_per_second"].iloc[1:].median())


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "one-process": alone,
        "one-thread": partial(together, workers=1),
        "2-workers": partial(together, workers=2),
        "4-workers": partial(together, workers=4),
    },
    options={
        "images": harness.Option(20_000, quick=2000, help="of which 40 % are validation"),
        "model": harness.Option("resnet", help="network", choices=tuple(MODELS)),
        "batch_size": harness.Option(128, help="images a step, of all workers"),
        "optimizer": harness.Option("nesterov", help="optimizer"),
        "learning_rate": harness.Option("0.002", help="learning rate"),
    },
    targets=[
        harness.Target("images_per_second", "2-workers", over="one-process", at_least=0.85),
        *(
            harness.Target(f"{name}_difference", f"{workers}-workers", at_most=1e-3)
            for workers in (2, 4)
            for name in MEASURES
        ),
    ],
    variant=("model", "batch_size", "optimizer"),
)

if __name__ == "__main__":
    BENCHMARK.main()
