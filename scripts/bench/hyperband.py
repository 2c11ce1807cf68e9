"""Hyperband comes to what random search ends with in at most half of its epochs.

The peer is KerasTuner's random search. Both search the same space of a small network on the same
images, with the same seeds: random search trains `--trials` configurations for `--epochs` epochs
each. Counted are the epochs that Hyperband has spent by the end of the first trial that is at least
as good as random search's best. Where it never is, all of its epochs count, twice.

    python scripts/bench/hyperband.py
"""

import statistics
import tempfile

import fits
import harness

SPACE = {
    "learning_rate": {"min_value": 1e-3, "max_value": 1.0, "sampling": "log"},
    "filters": [8, 16, 32],
    "depth": [2, 3],
    "dropout": [0.0, 0.2, 0.4],
    "label_smoothing": [0.0, 0.1, 0.2],
}


def kclassify(options):
    ratios = [ratio_of(options, seed) for seed in range(options.seeds)]
    return {"epochs_over_random": statistics.median(ratios),
            **{f"seed_{seed}": ratio for seed, ratio in enumerate(ratios)}}  # fmt: skip


def ratio_of(options, seed):
    random = searched(options, "random", options.trials, seed)
    best, spent = random["val_accuracy"].max(), random["epochs"].sum()
    hyperband = searched(options, "hyperband", options.hyperband_trials, seed)
    epochs, found = 0, {}
    for trial in hyperband.sort_values("trial").itertuples():
        # A trial that goes on counts what it adds.
        epochs += trial.epochs - found.get(trial.run, 0)
        found[trial.run] = trial.epochs
        if trial.val_accuracy >= best:
            return epochs / spent
    return 2 * epochs / spent


def searched(options, tuner, trials, seed):
    import kclassify

    tune = kclassify.tune
    with tempfile.TemporaryDirectory() as folder:
        found = tune(
            fits.splits(options.images, validation=options.validation), tuner=tuner,
            max_trials=trials, space=SPACE, directory=folder, model="convnet", batch_size=100,
            epochs=options.epochs, seed=seed, verbose=False,
        )  # fmt: skip
    return found.trials


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"kclassify": kclassify},
    options={
        "trials": harness.Option(15, quick=2, help="of random search"),
        "hyperband_trials": harness.Option(23, quick=4, help="of Hyperband, promotions counted"),
        "epochs": harness.Option(9, quick=3, help="of a whole training"),
        "images": harness.Option(5000, quick=500, help="training images"),
        "validation": harness.Option(2000, quick=200, help="validation images"),
        "seeds": harness.Option(5, quick=1, help="how many"),
    },
    targets=[harness.Target("epochs_over_random", "kclassify", at_most=0.5)],
)

if __name__ == "__main__":
    BENCHMARK.main()
