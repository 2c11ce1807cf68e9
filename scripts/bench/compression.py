"""What compression takes away, and what it leaves: each technique on a resnet of depth 20.

The peer of every row is the run that it came of. Weights are pruned by magnitude and, as a
control, at random; channels to half of the multiply-accumulates; to 8-bit integers for LiteRT,
against its float file; a resnet of depth 8 that learns from that of depth 20, against the same
network alone. All learn from the parent too. Weights are trained for a third of its epochs,
channels for two thirds, the small network for twelve. Sizes are of `model.keras`, or of the file
that is served, packed by gzip where that is said.

What was finished in `--folder` is taken as it is, so that rows can be measured one by one:

    python scripts/bench/compression.py --rows prune filters int8 distill default
"""

import argparse
import json
import tempfile
from pathlib import Path

import harness

PARENT = {"model": "resnet", "depth": 20, "epochs": 18, "progressive": (0.5, 0.75, 1.0)}
SMALL = {"model": "resnet", "depth": 8, "epochs": 12, "progressive": None}
EPOCHS = 6
SPARSITIES = (0.5, 0.8, 0.9)
# Epochs of the curve of magnitude against random, which says which is better, not how good it is.
CURVE_EPOCHS = 1
# Under a minute: the digits, one row, kept nowhere.
QUICK = {"preset": "digits", "epochs": 2}


class Folder:
    """Where the runs of one seed are, with the functions that make them."""

    def __init__(self, path, seed, *, quick=False):
        self.path, self.seed, self.quick = Path(path), seed, quick

    def run(self, name, **options):
        import kclassify

        data, options = ("digits", QUICK) if self.quick else ("cifar10", options)
        run = kclassify.fit(data, run_dir=self.of(name), seed=self.seed, **options)
        if not run.predictions_file("test").is_file():
            kclassify.evaluate(run)
        return run

    def parent(self):
        return self.run("resnet20", **PARENT)

    def compressed(self, parent, name, technique, **options):
        import kclassify

        return kclassify.compress(parent, technique=technique, run_dir=self.of(name), **options)

    def of(self, name):
        return self.path / f"{name}-s{self.seed}"


def prune(folder):
    """Sparse networks, trained for a third of the epochs."""
    parent = folder.parent()
    return {
        f"prune {sparsity:.0%}": row(
            folder.compressed(parent, f"prune-{100 * sparsity:.0f}", "prune", sparsity=sparsity,
                              epochs=EPOCHS)
        )
        for sparsity in SPARSITIES[1:]
    }  # fmt: skip


def curve(folder):
    """The smallest weights go, or any."""
    parent = folder.parent()
    return {
        f"{criterion} {sparsity:.0%}": row(
            folder.compressed(parent, f"curve-{criterion}-{100 * sparsity:.0f}", "prune",
                              sparsity=sparsity, criterion=criterion, epochs=CURVE_EPOCHS)
        )
        for sparsity in SPARSITIES
        for criterion in ("magnitude", "random")
    }  # fmt: skip


def filters(folder):
    """Half of the multiply-accumulates."""
    found = folder.compressed(
        folder.parent(), "filters-50-long", "prune_filters", macs=0.5, criterion="gradient",
        epochs=2 * EPOCHS,
    )  # fmt: skip
    return {"filters 50% of MACs": row(found)}


def int8(folder):
    """Integers of 8 bits against LiteRT's float file."""
    parent = folder.parent()
    return {
        scheme: row(folder.compressed(parent, scheme, "quantize", scheme=scheme))
        for scheme in ("litert_float32", "litert_int8", "onnx_float32", "onnx_int8")
    }


def distill(folder):
    """A small network with a teacher and without."""
    parent = folder.parent()
    alone = folder.run("resnet8", **SMALL)
    found = folder.compressed(
        parent, "resnet8-taught", "distill", model="resnet", depth=8, epochs=SMALL["epochs"]
    )
    alone_accuracy = accuracy(alone)
    return {
        "resnet8 alone": {"test_accuracy": alone_accuracy},
        "resnet8 taught": {**row(found), "over_alone": accuracy(found.run) - alone_accuracy},
    }


def default(folder):
    """`compress` with its defaults, of `fit` with its defaults."""
    import time

    import kclassify

    parent = folder.run("default")
    began = time.perf_counter()
    found = kclassify.compress(parent, max_drop=0.005, run_dir=folder.of("default-compressed"))
    seconds = time.perf_counter() - began
    training = parent.summary["training_seconds"]
    return {"default": {**row(found), "seconds": seconds, "training_seconds": training}}


def accuracy(run):
    return json.loads(run.metrics_file.read_text())["metrics"]["accuracy"]


def row(found):
    """Return what a compressed run is beside its parent."""
    before, after = found.table.iloc[0], found.table.set_index("run").loc[found.run.path.name]
    return {
        "test_accuracy": accuracy(found.run),
        "test_difference": float(found.comparison.pairs["difference"].iloc[0]),
        "validation_difference": float(after["difference"]),
        "size_ratio": float(after["megabytes"] / before["megabytes"]),
        "gzip_ratio": float(after["gzip_megabytes"] / before["gzip_megabytes"]),
        "macs_ratio": float(after["macs"] / before["macs"]),
        "throughput_ratio": float(after["images_per_second"] / before["images_per_second"]),
        "p50_ms": float(after["p50_ms"]),
        "images_per_second": float(after["images_per_second"]),
        "megabytes": float(after["megabytes"]),
    }


ROWS = {"prune": prune, "curve": curve, "filters": filters, "int8": int8, "distill": distill,
        "default": default}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the parent (0)")
    parser.add_argument("--quick", action="store_true", help="digits; writes nothing")
    parser.add_argument("--folder", default=harness.HERE / "build" / "compression",
                        help="where the runs are kept")  # fmt: skip
    chosen = parser.parse_args()
    if chosen.quick:
        with tempfile.TemporaryDirectory(prefix="kclassify-") as scratch:
            print(json.dumps(filters(Folder(scratch, chosen.seed, quick=True)), indent=2))
        return
    folder = Folder(chosen.folder, chosen.seed)
    found = {}
    for name in chosen.rows:
        found |= ROWS[name](folder)
        report = {"environment": harness.environment(), "seed": chosen.seed, "rows": found}
        out = harness.RESULTS / f"compression-{name}-s{chosen.seed}.json"
        out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        print(json.dumps(found, indent=2), f"\nkept in {out}")
        found = {}


if __name__ == "__main__":
    main()
