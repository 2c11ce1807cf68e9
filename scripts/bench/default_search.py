"""What a search of half an hour finds is at least a point better than the preset, in equal time.

The peer is the default preset, trained for `--training`. The other is searched for with `kclassify
tune` as it comes, for `--search`, and then trained for `--training` too. Both are chosen without
the test images, which each is measured on once.

    python scripts/bench/default_search.py
"""

import tempfile

import fits
import harness


def preset(options):
    return trained(options, {})


def searched(options):
    import kclassify

    with tempfile.TemporaryDirectory() as folder:
        found = kclassify.tune(
            data(options), preset=options.preset, time_budget=options.search, directory=folder,
            seed=options.seed, verbose=False,
        )  # fmt: skip
    best = found.best.to_json()
    print(best)
    del best["epochs"], best["time_budget"]
    return {**trained(options, best), "trials": len(found.trials), "ties": found.ties}


def trained(options, config):
    import kclassify

    with fits.folder() as path:
        given = {"preset": options.preset, "seed": options.seed, **config}
        run = kclassify.fit(
            data(options), run_dir=path, time_budget=options.training, verbose=False, **given
        )
        return {**fits.test_accuracies(run), "val_accuracy": run.summary["val_accuracy"]}


def data(options):
    return {
        "train": harness.cifar10(options.images),
        "test": harness.cifar10(options.test_images, split="test"),
    }


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"preset": preset, "searched": searched},
    options={
        "search": harness.Option("30m", quick="30s", help="how long the search may take"),
        "training": harness.Option("10m", quick="15s", help="how long each training may take"),
        "preset": harness.Option("fast", help="the recipe"),
        "seed": harness.Option(0, help="of both"),
        "images": harness.Option(50_000, quick=3000, help="training images"),
        "test_images": harness.Option(10_000, quick=500, help="test images"),
    },
    targets=[
        harness.Target("test_accuracy", "searched", minus="preset", at_least=0.01),
        harness.Target("test_accuracy_tta", "searched", minus="preset"),
    ],
)

if __name__ == "__main__":
    BENCHMARK.main()
