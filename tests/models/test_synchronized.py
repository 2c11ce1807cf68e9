import json
import subprocess
import sys

import pytest

# Logical devices are chosen before TensorFlow starts, so this needs a process of its own.
SCRIPT = """
import json
import numpy as np
from kclassify import runtime
runtime.prepare()
import tensorflow as tf
from kclassify.models.synchronized import normalized

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
x, up = (rng.normal(1, 2, (8, 4, 4, 16)).astype("float32") for _ in range(2))
scale, offset = rng.normal(size=(2, 16)).astype("float32")


def gradients(outputs_of, images, upstream):
    weights = tf.constant(scale), tf.constant(offset)
    with tf.GradientTape() as tape:
        tape.watch([images, *weights])
        outputs, *statistics = outputs_of(images, *weights)
        total = tf.reduce_sum(outputs * upstream)
    return outputs, *statistics, *tape.gradient(total, [images, *weights])


def whole(images, scale, offset):
    mean, variance = tf.nn.moments(images, (0, 1, 2))
    normal = tf.nn.batch_normalization(images, mean, variance, offset, scale, 1e-3)
    return normal, mean, variance


@tf.function
def one(images, upstream):
    found = gradients(lambda *a: normalized(*a, epsilon=1e-3), images, upstream)
    total = tf.distribute.get_replica_context().all_reduce("SUM", list(found[-2:]))
    return *found[:-2], *total


def parts(array):
    part = lambda context: tf.constant(array[4 * context.replica_id_in_sync_group :][:4])
    return strategy.experimental_distribute_values_from_function(part)


found = [strategy.experimental_local_results(v) for v in strategy.run(one, (parts(x), parts(up)))]
wanted = gradients(whole, tf.constant(x), up)
joined = [np.concatenate(found[n]) if n in (0, 3) else found[n][0].numpy() for n in range(6)]
print(json.dumps([float(np.abs(a - b.numpy()).max()) for a, b in zip(joined, wanted)]))
"""


@pytest.fixture(scope="module")
def differences():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("place", "what"),
    list(enumerate(["outputs", "mean", "variance", "of inputs", "of scale", "of offset"])),
)
def test_two_replicas_normalize_and_learn_as_one_does(differences, place, what):
    assert differences[place] < 1e-4, what
