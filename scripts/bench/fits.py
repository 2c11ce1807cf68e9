"""The trainings that several benchmarks measure: bare Keras's and kclassify's, of one recipe.

The recipe is the plainest that both have: Nesterov SGD at a constant rate, cross-entropy, accuracy,
no augmentation, an order of its own for each epoch.
"""

import dataclasses
import tempfile
import time
from contextlib import contextmanager

import harness
import networks

LEARNING_RATE, MOMENTUM = 0.05, 0.9
RECIPE = {
    "optimizer": "nesterov", "learning_rate": LEARNING_RATE, "schedule": "constant",
    "weight_decay": 0.0, "label_smoothing": 0.0, "augmentation": "none",
}  # fmt: skip
# `kclassify.fit` has to have both; as small as they can be where the peer is given neither.
VALIDATION, TEST = 256, 10
OPTIONS = {
    "network": harness.Option("conv289", help="which", choices=networks.NAMES),
    "batch_size": harness.Option(128, help="images a step"),
}


def clock():
    """Return a Keras callback with the times of what begins and ends, by `time.perf_counter`."""
    import keras

    class Clock(keras.callbacks.Callback):
        """`begins` and `tests` have an entry an epoch; a test is the validation's pass."""

        def __init__(self):
            super().__init__()
            self.begins, self.tests = [], []

        def on_epoch_begin(self, epoch, logs=None):
            self.begins.append(time.perf_counter())

        def on_test_begin(self, logs=None):
            self.tests.append(-time.perf_counter())

        def on_test_end(self, logs=None):
            self.tests[-1] += time.perf_counter()

        def on_train_end(self, logs=None):
            self.end = time.perf_counter()

        def speeds(self, images):
            """Return images a second of all the epochs, and of all but the first."""
            epochs = len(self.begins)
            return speeds(images, epochs, self.begins[0], self.begins[1], self.end)

    return Clock()


def speeds(images, epochs, began, second_began, end):
    """Return images a second of all the epochs, and of all but the first, which traces."""
    return {
        "images_per_second": epochs * images / (end - began),
        "steady_images_per_second": (epochs - 1) * images / (end - second_began),
    }


def keras_model(network):
    """Return the network in bare Keras, compiled with the recipe."""
    import keras

    model = networks.keras_network(network)
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def keras_fit(x, y, *, network, batch_size, epochs, callbacks=()):
    """Train in bare Keras as its guides do: `fit` of arrays, everything else as it comes."""
    keras_model(network).fit(
        x, y, batch_size=batch_size, epochs=epochs, callbacks=list(callbacks), verbose=0
    )


def as_guide(images):
    """Return images as Keras's guides prepare them: float32 in [0, 1]."""
    return images.astype("float32") / 255


def splits(images, *, validation=VALIDATION, test=TEST):
    """Return the first images of CIFAR-10 as `kclassify.fit` takes them."""
    x, y = harness.cifar10(images + validation)
    return {
        "train": (x[:images], y[:images]),
        "validation": (x[images:], y[images:]),
        "test": harness.cifar10(test, split="test"),
    }


def config_of(network, **options):
    """Return the `FitConfig` of the recipe."""
    from kclassify import FitConfig

    networks.register()
    model, arguments = networks.KCLASSIFY[network]
    return FitConfig(model=model, model_args=arguments, **RECIPE, **options)


def kclassify_fit(data, *, network, callbacks=(), **options):
    """Train with `kclassify.fit` and the recipe, in a folder that is removed again."""
    import kclassify

    # Every field is given, so that nothing is left to a preset.
    fields = dataclasses.asdict(config_of(network, **options))
    with folder() as path:
        kclassify.fit(data, run_dir=path, callbacks=callbacks, verbose=False, **fields)


@contextmanager
def folder():
    """Yield a path for a run."""
    with tempfile.TemporaryDirectory() as parent:
        yield f"{parent}/run"


def test_accuracies(run):
    """Return the accuracy on the run's test images, plain and averaged over 6 views."""
    import kclassify

    return {
        name: kclassify.evaluate(run, tta=tta, verbose=False).metrics["accuracy"]
        for name, tta in (("test_accuracy", "none"), ("test_accuracy_tta", "flip_shift"))
    }
