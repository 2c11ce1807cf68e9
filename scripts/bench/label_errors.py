"""Of the labels that look most wrong, at least six in ten are, where one in twenty was planted.

The labels of `--images` training images of CIFAR-10 are spoiled: a share of them, drawn by seed,
becomes another class, each as probably. `kclassify.find_label_errors` ranks all the labels; counted
is how many of the first N are planted ones, of N planted, and how many of the planted ones are
among those that it estimates to be wrong. Labels that were wrong before count against it. The peer
is chance: of any N labels, one in twenty is a planted one.

    python scripts/bench/label_errors.py
"""

import tempfile
import time

import harness


def kclassify(options):
    return found_in(options, options.share)


def kclassify_fewer(options):
    return found_in(options, options.fewer)


def found_in(options, share):
    from kclassify.evaluation.label_errors import find_label_errors

    images, labels, planted = spoiled(options.images, share, seed=options.seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = find_label_errors(
            (images, labels), folds=options.folds, directory=folder, preset=options.preset,
            epochs=options.epochs, seed=options.seed, verbose=False,
        )  # fmt: skip
    seconds = time.perf_counter() - began
    return {**figures(found, planted), "seconds": seconds}


def spoiled(count, share, *, seed):
    """Return images, labels of which some are wrong, and the places of those."""
    import numpy as np

    images, labels = harness.cifar10(count)
    rng = np.random.default_rng(seed)
    planted = rng.permutation(count)[: round(share * count)]
    labels[planted] = (labels[planted] + rng.integers(1, 10, len(planted))) % 10
    return images, labels, planted


def figures(found, planted):
    """Return what was found of the planted labels, by rank and by estimate."""
    names = {f"arrays/{place}" for place in planted}
    right = found.table["id"].isin(names)
    hits = right[found.table["estimated"]].sum()
    return {
        "precision_at_planted": float(right.head(len(planted)).mean()),
        "precision_of_estimated": float(hits / max(found.estimated, 1)),
        "recall_of_estimated": float(hits / len(planted)),
        "estimated": found.estimated,
        "planted": len(planted),
        "out_of_fold_accuracy": found.accuracy,
    }


def chance(options):
    return {"precision_at_planted": options.share}


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"chance": chance, "kclassify": kclassify, "kclassify_fewer": kclassify_fewer},
    options={
        "share": harness.Option(0.05, help="of the labels that are spoiled"),
        "fewer": harness.Option(0.02, help="the same, for kclassify_fewer"),
        "images": harness.Option(10_000, quick=600, help="training images"),
        "folds": harness.Option(5, quick=2, help="of the cross-validation"),
        "preset": harness.Option("fast", help="the recipe of each training"),
        "epochs": harness.Option(24, quick=2, help="of each training"),
        "seed": harness.Option(0, help="of what is spoiled, and of the trainings"),
    },
    targets=[
        harness.Target("precision_at_planted", "kclassify", at_least=0.6),
        harness.Target("precision_at_planted", "kclassify_fewer"),
    ],
)

if __name__ == "__main__":
    BENCHMARK.main()
