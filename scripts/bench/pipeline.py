"""Batches with flip and crop are made at least 10 times as fast as by Keras's layers.

The peers are a `tf.data` map of keras.layers.RandomFlip and RandomTranslation over single images,
and one over batches; both with autotune. The other augmentations are
measured beside. `step` is what the preset `fast` needs to learn from a batch; the pipeline should
take under 5 % of that.

    python scripts/bench/pipeline.py --batch-size 512
"""

import itertools
import time
from functools import partial

import harness

CLASSES, WARM_UP = 10, 10
# Enough for any measurement: the datasets end otherwise.
EPOCHS = 10_000
AUGMENTATIONS = ("none", "crop", "cutout", "randaugment", "mixup", "cutmix")


def keras_per_example(options):
    import tensorflow as tf

    examples, augment = keras_parts(options)
    augmented = examples.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    batches = augmented.batch(options.batch_size, drop_remainder=True)
    return speed(batches.prefetch(tf.data.AUTOTUNE), options)


def keras_batched(options):
    import tensorflow as tf

    examples, augment = keras_parts(options)
    batches = examples.batch(options.batch_size, drop_remainder=True)
    augmented = batches.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return speed(augmented.prefetch(tf.data.AUTOTUNE), options)


def keras_parts(options):
    import keras
    import tensorflow as tf

    layers = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(1 / 16, 1 / 16, fill_mode="reflect"),
    ]

    def augment(images, labels):
        for layer in layers:
            images = layer(images, training=True)
        return images, labels

    examples = tf.data.Dataset.from_tensor_slices(harness.cifar10(options.images))
    return examples.shuffle(options.images).repeat(), augment


def kclassify(options, augmentation="flip_crop"):
    import numpy as np

    from kclassify.data.augmentation import MIXING
    from kclassify.data.pipeline import train_dataset
    from kclassify.data.spec import Examples

    images, labels = harness.cifar10(options.images)
    examples = Examples(images, labels.astype("int32"), np.arange(len(labels)).astype(str))
    batches = train_dataset(
        examples, batch_size=options.batch_size, epochs=EPOCHS, seed=0,
        augmentation=augmentation, num_classes=CLASSES if augmentation in MIXING else None,
    )  # fmt: skip
    return speed(batches, options)


def step(options):
    from kclassify.config import resolve
    from kclassify.data.sources import load_source, prepare
    from kclassify.training.session import build_session

    config = resolve("fast", {"batch_size": options.batch_size})
    data = harness.cifar10(options.images)
    session = build_session(prepare(load_source(data, config), config, verbose=False), config)
    images, labels = (array[: options.batch_size] for array in data)
    train = partial(session.model.train_on_batch, images, labels.astype("int32"))
    return speed((train() for _ in itertools.count()), options)


def speed(batches, options):
    """Return how fast `batches` come, over some seconds after the first ones."""
    batches = iter(batches)
    for _ in range(WARM_UP):
        next(batches)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < options.seconds:
        next(batches)
        done += 1
    seconds = time.perf_counter() - started
    return {
        "images_per_second": done * options.batch_size / seconds,
        "milliseconds_a_batch": 1000 * seconds / done,
    }


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "keras-per-example": keras_per_example,
        "keras-batched": keras_batched,
        "kclassify": kclassify,
        **{f"kclassify-{name}": partial(kclassify, augmentation=name) for name in AUGMENTATIONS},
        "step": step,
    },
    options={
        "batch_size": harness.Option(128, help="images a batch"),
        "images": harness.Option(10_000, quick=2000, help="images that the batches are made of"),
        "seconds": harness.Option(10.0, quick=1.0, help="how long each is measured"),
    },
    targets=[
        harness.Target("images_per_second", "kclassify", over="keras-per-example", at_least=10.0),
        harness.Target("images_per_second", "kclassify", over="keras-batched"),
        harness.Target("milliseconds_a_batch", "kclassify", over="step", at_most=0.05),
    ],
    variant=("batch_size",),
)

if __name__ == "__main__":
    BENCHMARK.main()
