import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kclassify.checks import InputError, WorkerLostError
from kclassify.config import FitConfig
from kclassify.data.sources import load_source, prepare
from kclassify.training import replicas
from kclassify.training.cluster import LAUNCHER, Cluster
from kclassify.training.launch import _free_addresses
from kclassify.training.replicas import Replicas, joined
from kclassify.training.session import build_session

import tensorflow as tf  # isort: skip

# Logical devices are chosen before TensorFlow starts, so this needs a process of its own.
SCRIPT = """
import json, sys
import numpy as np
from kclassify import runtime
runtime.prepare()
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
import keras
import kclassify

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (200, 8, 8, 1), "uint8")
labels = (images.mean(axis=(1, 2, 3)) > 127).astype(int)
common = dict(epochs=3, batch_size=24, verbose=False, mixed_precision=False, gradient_clip=1.0,
              skip_learned=0.3, model="convnet", depth=2, filters=8, learning_rate=0.02,
              augmentation="flip_crop", progressive=(0.5, 1))
rows, weights = {}, {}
# Collectives know one size of group a process, so one number of devices.
for name, devices in (("one", None), ("several", "cpu:0,cpu:1,cpu:2")):
    folder = f"{sys.argv[1]}/{name}"
    run = kclassify.fit((images, labels), run_dir=folder, devices=devices, **common)
    columns = ["loss", "accuracy", "val_loss", "val_accuracy"]
    rows[name] = run.history[columns].to_numpy().tolist()
    model = keras.saving.load_model(run.model_file, compile=False)
    weights[name] = np.concatenate([weight.ravel() for weight in model.get_weights()])
rows["left_out"] = run.history["left_out"].tolist()
rows["weights_apart"] = float(np.abs(weights["one"] - weights["several"]).max())
wider = common | {"filters": 12, "epochs": 1, "verbose": True, "warmup": 0.5}
run = kclassify.fit((images, labels), run_dir=f"{sys.argv[1]}/wider", devices=devices, **wider)
rows["wider"] = run.history["loss"].tolist()
try:
    kclassify.fit((images, labels), run_dir=f"{sys.argv[1]}/odd", devices="cpu:0,cpu:1,cpu:2",
                  **{**common, "batch_size": 25})
except kclassify.InputError as error:
    rows["odd"] = str(error)
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("runs"))
    done = subprocess.run([sys.executable, "-c", SCRIPT, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *shown, found = done.stdout.splitlines()
    return {**json.loads(found), "shown": shown}


def test_several_devices_train_as_one_does(rows):
    for one, other in zip(rows["one"], rows["several"], strict=True):
        assert other == pytest.approx(one, abs=1e-3)
    assert rows["weights_apart"] < 1e-4
    assert rows["left_out"] == [0, 0, 0.3]


def test_the_learning_rate_is_said_to_be_that_of_one_device(rows):
    (line,) = (line for line in rows["shown"] if line.startswith("rate "))
    assert line == (
        "rate      0.02 after a warm-up of 3 of 6 steps: those of one device, since `batch_size` "
        "is that of all 3 together"
    )


def test_another_network_trains_after_the_first(rows):
    assert len(rows["wider"]) == 1


def test_a_batch_that_cannot_be_shared_is_refused(rows):
    assert "`batch_size` must be a multiple of the 3 devices" in rows["odd"]
    assert "Take 24 or 27" in rows["odd"]


def test_one_process_tells_itself():
    alone = Replicas(("CPU:0",))
    assert alone.gather({"a": 1}) == [{"a": 1}]
    assert alone.any([True, False]) == [True, False]
    assert (alone.count, alone.workers, alone.chief) == (1, 1, True)


def test_devices_are_not_chosen_for_several_workers():
    for name, value in (("devices", 2), ("device", "cpu")):
        with pytest.raises(InputError, match=f"`{name}` must be left out with several workers"):
            joined(FitConfig(**{name: value}), Cluster(("a:1", "b:1"), 0))


PAIR = Cluster(("a:1", "b:1"), 1)


class Context:
    """TensorFlow's, before it has worked, with what the chief tells of its devices."""

    _context_handle = None

    def __init__(self, chief):
        self.told = {"devices/0": chief}

    def set_config_key_value(self, key, value):
        self.told[key] = value

    def get_config_key_value(self, key, *, timeout_in_ms):
        return self.told[key]


@pytest.fixture
def beside_chief(monkeypatch):
    """Return a function that joins a chief, as if with two GPUs, and returns the resolver."""

    def join(chief):
        asked = []

        def strategy(*, cluster_resolver):
            asked.append(cluster_resolver)
            names = [f"/job:worker/replica:0/task:1/device:GPU:{place}" for place in range(2)]
            return SimpleNamespace(extended=SimpleNamespace(worker_devices=names))

        monkeypatch.setattr(replicas, "await_workers", lambda _: None)
        monkeypatch.setattr(replicas.tf.config, "get_visible_devices", lambda kind: [kind] * 2)
        monkeypatch.setattr(replicas.tf.distribute, "MultiWorkerMirroredStrategy", strategy)
        monkeypatch.setattr(replicas, "eager", SimpleNamespace(context=lambda: Context(chief)))
        replicas._among_workers.__wrapped__(PAIR)
        return asked[0]

    return join


def test_each_of_several_workers_takes_all_its_gpus(beside_chief):
    assert beside_chief("GPU:0 and GPU:1").num_accelerators() == {"GPU": 2}


@pytest.mark.parametrize("chief", ["GPU:0", "CPU:0"])
def test_workers_with_other_devices_than_the_chief_are_named(beside_chief, chief):
    said = rf"worker 1 \(b:1\) with GPU:0 and GPU:1, worker 0 \(a:1\) with {chief}\. Let"
    with pytest.raises(InputError, match=said):
        beside_chief(chief)


def test_a_worker_stops_with_the_process_that_launched_it(beside_chief, monkeypatch):
    parents = []
    monkeypatch.setenv(LAUNCHER, "7")
    monkeypatch.setattr(replicas, "stop_with", parents.append)
    beside_chief("GPU:0 and GPU:1")
    assert parents == [7]


def test_a_cluster_after_other_work_is_refused_before_others_are_told(monkeypatch):
    replicas.tf.zeros(1)
    monkeypatch.setattr(replicas, "await_workers", lambda _: pytest.fail("it has answered"))
    with pytest.raises(InputError, match="`cluster` must come before any other work"):
        joined(FitConfig(), PAIR)


@pytest.mark.parametrize(("batch_size", "words"), [(4, "Take 8\\."), (13, "Take 8 or 16\\.")])
def test_a_batch_that_cannot_be_shared_is_told_those_that_can(tiny_arrays, batch_size, words):
    class Eight(Replicas):
        count = 8

    config = FitConfig(batch_size=batch_size)
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    with pytest.raises(InputError, match=rf"a multiple of the 8 devices.* {words}"):
        build_session(source, config, replicas=Eight(("CPU:0",)))


@pytest.mark.parametrize("devices", ["", (), ("cpu:0", "cpu:0"), 0, (1,)])
def test_devices_must_be_some(devices):
    with pytest.raises(InputError, match="`devices` must be"):
        FitConfig(devices=devices)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("{unheard}:\n/job:worker/replica:0/task:1\nThe tasks",
         "worker 1 .* is silent, as if frozen or cut off; go on"),
        ("Bad news\nmore", r"a step could not be made \(Bad news\); go on"),
    ],
)  # fmt: skip
def test_a_worker_that_is_frozen_is_named_though_its_port_answers(told, words):
    addresses = _free_addresses(2)
    told = told.format(unheard="The following tasks are unhealthy (stopped sending heartbeats)")
    told = f"Detected at node X\nCollective ops is aborted by: {told}"
    with (
        socket.create_server(("127.0.0.1", int(addresses[1].rpartition(":")[2]))),
        pytest.raises(WorkerLostError, match=words),
        Replicas(("CPU:0",), cluster=Cluster(addresses, 0)).watched("go on"),
    ):
        raise tf.errors.UnavailableError(None, None, told)
