"""All 15 corruptions at 5 severities are made at least 5 times as fast as one image at a time.

The peer makes the same ones in NumPy, SciPy and Pillow, image by image, as the published code does:
`reference_corruptions.py`. It may be given fewer images, since what counts is images a second, each
in all 75 ways. kclassify works on as many threads as there are cores; its highest resident memory,
TensorFlow and the test images included, is to stay under 2 GiB.

    python scripts/bench/corruptions.py
"""

import time

import harness
import memory

SEVERITIES = (1, 2, 3, 4, 5)


def reference(options):
    import numpy as np
    from reference_corruptions import CORRUPTIONS

    images, _ = harness.cifar10(options.reference_images, split="test")
    rng = np.random.default_rng(0)

    def make(corruption, severity):
        for image in images:
            corruption(image, severity, rng)

    return measured(CORRUPTIONS, make, len(images))


def kclassify(options):
    from kclassify.evaluation.corruptions import CORRUPTIONS, corrupt

    images, _ = harness.cifar10(options.images, split="test")
    return measured(
        {name: name for name in CORRUPTIONS},
        lambda name, severity: corrupt(images, name, severity),
        len(images),
    )


def measured(corruptions, make, images):
    """Return how many images a second get all corruptions, and how many get each."""
    seconds = {name: seconds_of(make, corruption) for name, corruption in corruptions.items()}
    each = {name: images * len(SEVERITIES) / took for name, took in seconds.items()}
    return {"images_per_second": images / sum(seconds.values()), **memory.peak(), **each}


def seconds_of(make, corruption):
    began = time.perf_counter()
    for severity in SEVERITIES:
        make(corruption, severity)
    return time.perf_counter() - began


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"reference": reference, "kclassify": kclassify},
    options={
        "images": harness.Option(10_000, quick=500, help="test images for kclassify"),
        "reference_images": harness.Option(500, quick=20, help="test images for the peer"),
    },
    targets=[
        harness.Target("images_per_second", "kclassify", over="reference", at_least=5.0),
        harness.Target("peak_mebibytes", "kclassify", at_most=2048.0),
    ],
)

if __name__ == "__main__":
    BENCHMARK.main()
