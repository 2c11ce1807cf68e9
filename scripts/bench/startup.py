"""The first training step ends at most 1.1 times as late as in bare Keras, imports taken off.

The peer is bare Keras with the same network and arrays. The clock starts with the process; taken
off are the imports, which are reported by themselves, and the reading of the arrays.

    python scripts/bench/startup.py
"""

import time

import fits
import harness


def keras(options):
    started = time.perf_counter()
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    imports = time.perf_counter() - started
    x, y = harness.cifar10(options.images)
    reading = time.perf_counter() - started - imports
    step = first_step()
    fits.keras_fit(
        x, y, network=options.network, batch_size=options.batch_size, epochs=1, callbacks=[step]
    )
    return {"seconds_to_step": step.end - imports - reading, "import_seconds": imports}


def kclassify(options):
    started = time.perf_counter()
    import kclassify

    kclassify.fit  # noqa: B018  (the name is what imports TensorFlow)
    imports = time.perf_counter() - started
    data = fits.splits(options.images)
    reading = time.perf_counter() - started - imports
    step = first_step()
    fits.kclassify_fit(
        data, network=options.network, batch_size=options.batch_size, epochs=1, callbacks=[step]
    )
    return {"seconds_to_step": step.end - imports - reading, "import_seconds": imports}


def first_step():
    """Return a callback that notes when the first step ended, from the process's start."""
    import keras

    class FirstStep(keras.callbacks.Callback):
        end = None

        def on_train_batch_end(self, batch, logs=None):
            if self.end is None:
                self.end = harness.seconds_since_start()
            self.model.stop_training = True

    return FirstStep()


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"keras": keras, "kclassify": kclassify},
    options={**fits.OPTIONS, "images": harness.Option(1024, help="training images")},
    targets=[
        harness.Target("seconds_to_step", "kclassify", over="keras", at_most=1.1),
        harness.Target("import_seconds", "kclassify", over="keras"),
    ],
    variant=("network",),
)

if __name__ == "__main__":
    BENCHMARK.main()
