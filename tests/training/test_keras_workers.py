"""A newer Keras that needs no mending fails the first test: then keras_workers.py can go."""

import os
import subprocess
import sys

import pytest

from kclassify.training.cluster import Cluster
from kclassify.training.launch import _free_addresses

SCRIPT = """
import sys
from contextlib import nullcontext
from kclassify import runtime
runtime.prepare()
import keras, numpy as np, tensorflow as tf
from kclassify.training.keras_workers import mended

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope(), mended(strategy) if sys.argv[1] == "mended" else nullcontext():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    pairs = (np.ones((8, 3), "float32"), np.zeros(8, "int32"))
    data = tf.data.Dataset.from_tensor_slices(pairs).batch(4)
    found = model.fit(data, verbose=0)
print("loss", found.history["loss"][0])
"""


def run_both(how):
    addresses = _free_addresses(2)
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, how], text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE,
                         env={**os.environ, "TF_CONFIG": Cluster(addresses, n).config})
        for n in range(2)
    ]  # fmt: skip
    try:
        return [(*process.communicate(timeout=120), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_keras_still_needs_the_mending():
    assert all(code != 0 for _, _, code in run_both("as it is"))


@pytest.mark.slow
def test_mended_it_trains():
    found = run_both("mended")
    assert all(code == 0 for _, _, code in found), found
    assert len({shown for shown, _, _ in found}) == 1
