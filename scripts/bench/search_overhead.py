"""Eight trials take at most 1.05 times as long as bare Keras, and 0.6 times as long as KerasTuner.

Each trains a residual network of depth 8 for an epoch of 5,000 images, with a learning rate of its
own, and validates it. The peers: bare Keras builds, compiles and fits eight models one after
another; KerasTuner searches as its guide shows, with `RandomSearch` and a function that builds the
model. The clock begins before the first model is built and ends with the last trial.

    python scripts/bench/search_overhead.py
"""

import tempfile
import time

import fits
import harness

RATES = (0.01, 0.3)


def keras(options):
    import keras
    import numpy as np

    train, validation = as_guide(options)
    began = time.perf_counter()
    for rate in np.geomspace(*RATES, options.trials):
        model = model_of(rate)
        model.fit(*train, batch_size=options.batch_size, validation_data=validation, verbose=0)
        keras.backend.clear_session()
    return measured(began, options)


def kerastuner(options):
    import keras_tuner

    train, validation = as_guide(options)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            lambda hp: model_of(hp.Float("rate", *RATES, sampling="log")),
            objective="val_accuracy", max_trials=options.trials, seed=0, directory=folder,
        )  # fmt: skip
        tuner.search(*train, epochs=1, batch_size=options.batch_size,
                     validation_data=validation, verbose=0)  # fmt: skip
    return measured(began, options)


def kclassify(options, **more):
    import kclassify

    tune = kclassify.tune
    data = data_of(options)
    low, high = RATES
    space = {"learning_rate": {"min_value": low, "max_value": high, "sampling": "log"}}
    recipe = {name: value for name, value in fits.RECIPE.items() if name != "learning_rate"}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = tune(
            data, tuner="random", max_trials=options.trials, space=space, directory=folder,
            model="resnet", depth=8, epochs=1, batch_size=options.batch_size, verbose=False,
            **recipe, **more,
        )  # fmt: skip
    if (found.trials["state"] != "done").any():
        raise RuntimeError(f"not all trials were trained: {found.trials}")
    return measured(began, options)


def kclassify_float32(options):
    return kclassify(options, mixed_precision=False)


def model_of(rate):
    import keras
    import networks

    model = networks.keras_network("resnet8")
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=fits.MOMENTUM, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def data_of(options):
    return fits.splits(options.images, validation=options.validation)


def as_guide(options):
    parts = data_of(options)
    return [(fits.as_guide(parts[split][0]), parts[split][1]) for split in ("train", "validation")]


def measured(began, options):
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "seconds_a_trial": seconds / options.trials}


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "keras": keras,
        "kerastuner": kerastuner,
        "kclassify": kclassify,
        "kclassify-float32": kclassify_float32,
    },
    options={
        "trials": harness.Option(8, quick=2, help="how many"),
        "images": harness.Option(5000, quick=1000, help="training images"),
        "validation": harness.Option(1000, quick=200, help="validation images"),
        "batch_size": harness.Option(128, help="images a step"),
    },
    targets=[
        harness.Target("seconds", "kclassify", over="keras", at_most=1.05),
        harness.Target("seconds", "kclassify", over="kerastuner", at_most=0.6),
        harness.Target("seconds", "kclassify-float32", over="keras"),
    ],
)

if __name__ == "__main__":
    BENCHMARK.main()
