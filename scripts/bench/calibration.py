"""One temperature, fitted on validation, at least halves the calibration error, to 0.02 at most.

The peer is the network as it was trained. On all the test images: `ece_before` is its expected
calibration error, `ece` the same as `evaluate` reports it. `labels_changed` counts the images whose
answer the calibration changes, `served_difference` is the largest of the probabilities between the
exported SavedModel and what was evaluated.

    python scripts/bench/calibration.py
"""

import fits
import harness
import numpy as np

BATCH = 500


def kclassify(options):
    import kclassify

    data = {
        "train": harness.cifar10(options.images),
        "test": harness.cifar10(options.test_images, split="test"),
    }
    with fits.folder() as path:
        run = kclassify.fit(
            data, run_dir=path, preset=options.preset, seed=options.seed, verbose=False
        )
        found = kclassify.evaluate(run, verbose=False)
        with np.load(run.predictions_file("test")) as stored:
            evaluated = stored["probabilities"]
        images = data["test"][0]
        served = asked(kclassify.load(kclassify.export(run)), images)
        # As it was trained: a .keras file is loaded as it is.
        before = asked(kclassify.load(run.model_file), images)
    return {
        "ece_before": found.uncalibrated["ece"],
        "ece": found.metrics["ece"],
        "ece_ratio": found.metrics["ece"] / found.uncalibrated["ece"],
        "loss_before": found.uncalibrated["loss"],
        "loss": found.metrics["loss"],
        "accuracy": found.metrics["accuracy"],
        "temperature": found.temperature,
        "labels_changed": int(np.sum(before.argmax(axis=1) != evaluated.argmax(axis=1))),
        "served_difference": float(np.abs(served - evaluated).max()),
    }


def asked(classifier, images):
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([classifier.probabilities(part) for part in parts])


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"kclassify": kclassify},
    options={
        "preset": harness.Option("fast", help="the recipe"),
        "seed": harness.Option(0, help="of the run"),
        "images": harness.Option(50_000, quick=3000, help="training images"),
        "test_images": harness.Option(10_000, quick=500, help="test images"),
    },
    targets=[
        harness.Target("ece_ratio", "kclassify", at_most=0.5),
        harness.Target("ece", "kclassify", at_most=0.02),
        harness.Target("labels_changed", "kclassify", at_most=0),
        harness.Target("served_difference", "kclassify", at_most=1e-4),
    ],
)

if __name__ == "__main__":
    BENCHMARK.main()
