"""A fit with a time budget ends within 3 % of it, as accurate as one of as many epochs.

The peer is a fit of the same preset whose number of epochs is given: the nearest whole number to
what the budget had room for. It is run after the other, in the same process, since only then is
the number known. The clock is for the whole call of `kclassify.fit`.

    python scripts/bench/time_budget.py --budget 5m
"""

import time

import fits
import harness


def kclassify(options):
    import kclassify
    from kclassify.checks import parse_duration

    fit = kclassify.fit
    started = time.perf_counter()
    with fits.folder() as path:
        run = fit(**arguments(options), run_dir=path, time_budget=options.budget)
        seconds = time.perf_counter() - started
        accuracies, epochs = fits.test_accuracies(run), epochs_of(run)
    with fits.folder() as path:
        fixed = fit(**arguments(options), run_dir=path, epochs=max(1, round(epochs)))
        fixed_accuracy = fits.test_accuracies(fixed)["test_accuracy"]
    return {
        "seconds_over_budget": seconds / parse_duration("budget", options.budget),
        **accuracies,
        "epochs": epochs,
        "fixed_test_accuracy": fixed_accuracy,
        "accuracy_over_fixed": accuracies["test_accuracy"] / fixed_accuracy,
    }


def arguments(options):
    data = {
        "train": harness.cifar10(options.images),
        "test": harness.cifar10(options.test_images, split="test"),
    }
    return {"data": data, "preset": options.preset, "verbose": False}


def epochs_of(run):
    """Return how many passes were made, the last one in part, by the images that were seen."""
    rows = run.history
    return float((rows["images_per_second"] * rows["seconds"]).sum()) / run.config["sizes"]["train"]


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"kclassify": kclassify},
    options={
        "budget": harness.Option("2m", quick="20s", help="the time budget"),
        "preset": harness.Option("fast", help="the recipe"),
        "images": harness.Option(50_000, quick=5000, help="training images"),
        "test_images": harness.Option(10_000, quick=500, help="test images"),
    },
    targets=[
        harness.Target("seconds_over_budget", "kclassify", at_least=0.97, at_most=1.03),
        harness.Target("accuracy_over_fixed", "kclassify", at_least=1.0),
    ],
    variant=("preset", "budget"),
)

if __name__ == "__main__":
    BENCHMARK.main()
