from pathlib import Path

import pytest
import tensorflow as tf

import kclassify
from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data import shards
from kclassify.data.pipeline import train_dataset
from kclassify.data.service import check_service
from kclassify.data.sources import load_source, prepare

SERVICE = tf.data.experimental.service


@pytest.fixture
def service():
    """A dispatcher on loopback, and the function that starts a worker of it."""
    dispatcher = SERVICE.DispatchServer(SERVICE.DispatcherConfig(port=0))
    workers = []

    def add_worker():
        address = dispatcher.target.partition("://")[2]
        workers.append(SERVICE.WorkerServer(SERVICE.WorkerConfig(dispatcher_address=address)))

    add_worker()
    yield dispatcher.target, add_worker
    for worker in workers:
        worker._stop()
    dispatcher._stop()


@pytest.fixture(params=["memory", "packed"])
def train(request, tiny_arrays, monkeypatch):
    data, config = tiny_arrays, FitConfig(batch_size=4)
    if request.param == "packed":
        monkeypatch.setattr(shards, "SHARD_BYTES", 4 * (192 + shards.OVERHEAD))
        data = kclassify.pack(tiny_arrays, "packed", verbose=False)
        config = config.replace(memory_budget="4KB")
    return prepare(load_source(data, config), config, verbose=False).splits["train"]


def batches(train, **options):
    return train_dataset(train, batch_size=4, epochs=2, seed=0, augmentation="flip_crop", **options)


def content(dataset):
    return [images.numpy().tobytes() + labels.numpy().tobytes() for images, labels in dataset]


def test_one_worker_makes_the_batches_in_their_order(service, train):
    found = batches(train, start=3, service=service[0])
    expected = batches(train, start=3)
    assert int(found.cardinality()) == int(expected.cardinality())
    assert content(found) == content(expected)


def test_two_workers_make_every_batch_once(service, train):
    address, add_worker = service
    add_worker()
    found = content(batches(train, service=address))
    assert sorted(found) == sorted(content(batches(train)))


def test_a_fit_of_served_batches_ends_with_the_same_weights(service, tiny_arrays, tiny_options):
    one = kclassify.fit(tiny_arrays, run_dir="one", **tiny_options)
    other = kclassify.fit(tiny_arrays, run_dir="other", data_service=service[0], **tiny_options)
    assert other.summary["weights_sha256"] == one.summary["weights_sha256"]


@pytest.mark.parametrize("address", ["localhost:5", "grpc://:5", "grpc://here:x", "grpc://a..b:5"])
def test_what_is_no_address_is_refused(tiny_run, address):
    with pytest.raises(InputError, match=r"`data_service` must be of the form grpc://host:port"):
        check_service(address, tiny_run.source)


def test_a_service_that_is_not_there_is_refused_before_training(
    tiny_arrays, tiny_options, tmp_path
):
    with pytest.raises(InputError, match="`data_service` must be where the dispatcher of"):
        kclassify.fit(tiny_arrays, run_dir="r", data_service="grpc://127.0.0.1:9", **tiny_options)
    assert list(tmp_path.iterdir()) == []


def test_files_are_packed_first(image_folder):
    config = FitConfig(batch_size=4, memory_budget="1KB")
    source = prepare(load_source(image_folder, config), config, verbose=False)
    with pytest.raises(InputError, match=r"`data` must be packed.*`kclassify pack` first"):
        check_service("grpc://localhost:5", source)


def test_workers_that_do_not_see_the_images_are_named(service, tiny_arrays):
    kclassify.pack(tiny_arrays, "packed", verbose=False)
    config = FitConfig(batch_size=4, memory_budget="4KB")
    source = prepare(load_source("packed", config), config, verbose=False)
    check_service(service[0], source)
    for path in source.splits["train"].images.paths:
        Path(path).unlink()
    with pytest.raises(InputError, match=r"`data` must lie where the workers .* see it"):
        check_service(service[0], source)
