"""A search in one process has at most 1.05 times as much memory after 30 trials as after 3.

Every trial has another network: filters, depth and batch size are chosen among 60 combinations, so
no graph serves twice. What is measured is the resident memory after a trial. The peer is
KerasTuner, which builds the same networks. What still grows is oneDNN's: TensorFlow keeps up to
1,024 of its primitives a thread, one for each operation at each shape, and does not give them back.
Without oneDNN, which is slower, it does not grow.

    python scripts/bench/search_memory.py
"""

import gc
import os
import tempfile
from pathlib import Path

import fits
import harness

FILTERS, DEPTHS, BATCHES = [8, 12, 16, 20, 24, 28, 32, 36, 40, 44], [2, 3], [96, 112, 128]


def kclassify(options):
    import kclassify

    tune = kclassify.tune
    from kclassify.search import loop

    run_trial, memory = loop._run_trial, []

    def measured(*given):
        run_trial(*given)
        memory.append(resident())

    loop._run_trial = measured
    space = {"filters": FILTERS, "depth": DEPTHS, "batch_size": BATCHES}
    data = fits.splits(options.images)
    with tempfile.TemporaryDirectory() as folder:
        tune(
            data, tuner="random", max_trials=options.trials, space=space, directory=folder,
            model="convnet", epochs=1, verbose=False,
        )  # fmt: skip
    return growth(memory)


def kclassify_without_onednn(options):
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    return kclassify(options)


def kerastuner(options):
    import keras
    import keras_tuner

    from kclassify.models.registry import build_model

    def model_of(hp):
        shape = {"filters": hp.Choice("filters", FILTERS), "depth": hp.Choice("depth", DEPTHS)}
        model = build_model("convnet", input_shape=(32, 32, 3), num_classes=10, **shape)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
        return model

    class Search(keras_tuner.RandomSearch):
        def run_trial(self, trial, *given, **options):
            batch_size = trial.hyperparameters.Choice("batch_size", BATCHES)
            return super().run_trial(trial, *given, batch_size=batch_size, **options)

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            memory.append(resident())

    memory: list[float] = []
    parts = fits.splits(options.images)
    train, validation = [(fits.as_guide(parts[split][0]), parts[split][1])
                         for split in ("train", "validation")]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        search = Search(model_of, objective="val_accuracy", max_trials=options.trials, seed=0,
                        directory=folder)  # fmt: skip
        search.search(*train, epochs=1, validation_data=validation, verbose=0)
    return growth(memory)


def growth(memory):
    return {"mebibytes_after_three": memory[2], "mebibytes_at_the_end": memory[-1],
            "growth": memory[-1] / memory[2]}  # fmt: skip


def resident():
    """Return the resident memory of this process in MiB, without what only waits to be freed."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "kclassify": kclassify,
        "kclassify-without-onednn": kclassify_without_onednn,
        "kerastuner": kerastuner,
    },
    options={
        "trials": harness.Option(30, quick=4, help="how many"),
        "images": harness.Option(2000, quick=500, help="training images"),
    },
    targets=[
        harness.Target("growth", "kclassify", at_most=1.05),
        harness.Target("growth", "kclassify-without-onednn"),
        harness.Target("growth", "kerastuner"),
    ],
)

if __name__ == "__main__":
    BENCHMARK.main()
