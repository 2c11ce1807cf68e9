"""Packed images are read at least 5 times as fast as the files that they were packed from.

The peer is the same pipeline over the folder of files, PNG or JPEG of CIFAR-10's images; neither
has its images in memory. Both make training batches without augmentation, and all the images once
in order, as an evaluation does. The files are in the system's cache in both cases.

    python scripts/bench/packed.py --format jpeg
"""

import time
from functools import partial
from pathlib import Path

import harness

# Whatever is measured does not fit it.
MEMORY, BATCH = "8MB", 128


def folder(options):
    return speeds(files_of(options))


def packed(options):
    import kclassify

    files = files_of(options)
    out = files.with_name(f"{files.name}-packed")
    kclassify.pack(files, out, verbose=False)
    return speeds(out)


def files_of(options):
    """Return a folder of CIFAR-10's images in class folders, which is kept in `build/`."""
    from PIL import Image

    place = harness.HERE / "build" / f"{options.format}-{options.images}"
    if not place.is_dir():
        beside = Path(f"{place}.part")
        images, labels = harness.cifar10(options.images)
        for name in set(labels.tolist()):
            (beside / str(name)).mkdir(parents=True, exist_ok=True)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = beside / str(label) / f"{index}.{options.format}"
            Image.fromarray(image).save(path)
        beside.rename(place)
    return place


def speeds(data):
    """Return images a second of an epoch of training batches, and of one pass in order."""
    from kclassify.config import FitConfig
    from kclassify.data.pipeline import eval_dataset, train_dataset
    from kclassify.data.sources import load_source, prepare

    config = FitConfig(memory_budget=MEMORY, batch_size=BATCH)
    train = prepare(load_source(data, config), config, verbose=False).splits["train"]
    shuffled = partial(
        train_dataset, train, batch_size=BATCH, epochs=2, seed=0, augmentation="none"
    )
    ordered = partial(eval_dataset, train, batch_size=256)
    return {
        "training_images_per_second": speed(shuffled()),
        "evaluation_images_per_second": speed(ordered().repeat(2)),
    }


def speed(batches):
    """Return images a second from the second batch to the last."""
    batches = iter(batches)
    next(batches)
    started = time.perf_counter()
    images = sum(int(labels.shape[0]) for _, labels in batches)
    return images / (time.perf_counter() - started)


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"folder": folder, "packed": packed},
    options={
        "images": harness.Option(50_000, quick=6000, help="images"),
        "format": harness.Option("png", help="of the files", choices=("png", "jpeg")),
    },
    targets=[
        harness.Target("training_images_per_second", "packed", over="folder", at_least=5.0),
        harness.Target("evaluation_images_per_second", "packed", over="folder", at_least=5.0),
    ],
    variant=("format",),
)

if __name__ == "__main__":
    BENCHMARK.main()
