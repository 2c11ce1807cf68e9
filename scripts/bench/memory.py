"""A fit of CIFAR-10 needs at most 1.1 times the memory of bare Keras with the same arrays.

The peer is bare Keras `fit` of the same uint8 arrays, and of the float32 arrays that its guides
make of them. Both train an epoch and validate. What is measured is the highest resident memory of
the process, TensorFlow itself included.

    python scripts/bench/memory.py
"""

import resource
import sys

import fits
import harness

VALIDATION_SHARE = 0.1


def keras(options, convert=lambda images: images):
    data = data_of(options)
    model = fits.keras_model(options.network)
    parts = {split: (convert(images), labels) for split, (images, labels) in data.items()}
    del data
    model.fit(
        *parts["train"], validation_data=parts["validation"], batch_size=options.batch_size,
        verbose=0,
    )  # fmt: skip
    return peak()


def keras_float32(options):
    return keras(options, convert=fits.as_guide)


def kclassify(options):
    fits.kclassify_fit(
        data_of(options), network=options.network, batch_size=options.batch_size, epochs=1
    )
    return peak()


def data_of(options):
    validation = round(VALIDATION_SHARE * options.images)
    return fits.splits(options.images - validation, validation=validation)


def peak():
    """Return the highest resident memory of this process so far."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_mebibytes": found / (2**20 if sys.platform == "darwin" else 2**10)}


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"keras": keras, "keras-float32": keras_float32, "kclassify": kclassify},
    options={
        **fits.OPTIONS,
        "images": harness.Option(50_000, quick=2000, help="training and validation images"),
    },
    targets=[
        harness.Target("peak_mebibytes", "kclassify", over="keras", at_most=1.1),
        harness.Target("peak_mebibytes", "kclassify", over="keras-float32"),
    ],
    variant=("network", "batch_size"),
)

if __name__ == "__main__":
    BENCHMARK.main()
