from dataclasses import replace

import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.data.sources import load_source, prepare
from kclassify.training import batch_size
from kclassify.training.cluster import Cluster
from kclassify.training.replicas import Replicas


def prepared(arrays, options):
    fields = {"model": "convnet", "model_args": {"filters": 4, "depth": 1}, "batch_size": 8}
    config = kclassify.FitConfig(**{**fields, **options})
    return prepare(load_source(arrays, config), config, verbose=False), config


def test_a_batch_that_no_memory_holds_is_refused(tiny_arrays, tiny_options, monkeypatch):
    monkeypatch.setattr(batch_size, "available_memory", lambda: 10_000)
    with pytest.raises(InputError, match="`batch_size` must be at most"):
        kclassify.fit(tiny_arrays, run_dir="r", **tiny_options)


def test_auto_takes_what_a_share_of_memory_holds(tiny_arrays, monkeypatch):
    source, config = prepared(tiny_arrays, {"mixed_precision": False})
    monkeypatch.setattr(batch_size, "FEWEST_STEPS", 1)
    session = batch_size.build_session(source, config)
    one = batch_size.bytes_per_image(session)
    monkeypatch.setattr(batch_size, "available_memory", lambda: 4 * 20 * one)
    assert batch_size.largest_batch(source, config, given=()).batch_size == 16


def test_auto_halves_when_a_step_runs_out_of_memory(tiny_arrays, monkeypatch):
    import tensorflow as tf

    tried = []

    def measure(session, source, *, seconds):
        tried.append(session.config.batch_size)
        if session.config.batch_size > 4:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    source, config = prepared(tiny_arrays, {})
    monkeypatch.setattr(batch_size, "FEWEST_STEPS", 1)
    monkeypatch.setattr(batch_size, "measure_pace", measure)
    assert batch_size.largest_batch(source, config, given=()).batch_size == 4
    assert tried == [32, 16, 8, 4]


def test_a_step_without_memory_is_a_sentence(tiny_arrays, tiny_options, monkeypatch):
    import keras
    import tensorflow as tf

    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nof a node")

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(InputError, match=r"memory for.*batch_size=8.*tensor\. Take 4 or \"auto\""):
        kclassify.fit(tiny_arrays, run_dir="r", **{**tiny_options, "batch_size": 8})


def test_a_disk_that_is_full_is_not_taken_for_memory(tiny_arrays, tiny_options, monkeypatch):
    import keras
    import tensorflow as tf

    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        kclassify.fit(tiny_arrays, run_dir="r", **tiny_options)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"limit": "1000", "used": "700", "memory.stat": "inactive_file 200\nother 1\n"}, 500),
        ({"limit": "max", "used": "700", "memory.stat": ""}, None),
        ({}, None),
    ],
)
def test_a_control_group_has_left_what_it_may_take_still(tmp_path, files, left):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert batch_size._left_to(tmp_path, "limit", "used") == left


def test_fit_takes_auto(tiny_arrays, tiny_options):
    run = kclassify.fit(tiny_arrays, run_dir="r", **{**tiny_options, "batch_size": "auto"})
    assert run.config["config"]["batch_size"] == 8
    # The preset's own is for many images.
    assert run.config["config"]["skip_learned"] is None


def test_a_learning_rate_that_the_user_chose_is_not_scaled_by_auto(tiny_arrays, monkeypatch):
    monkeypatch.setattr(batch_size, "FEWEST_STEPS", 1)
    monkeypatch.setattr(batch_size, "measure_pace", lambda *_, **__: (1.0,))
    source, config = prepared(tiny_arrays, {"learning_rate": 0.05})
    found = batch_size.largest_batch(source, config, given={"learning_rate": 0.05})
    assert (found.batch_size, found.learning_rate) == (32, 0.05)


def test_auto_gives_each_of_several_devices_as_much(tiny_arrays, monkeypatch):
    class Five(Replicas):
        count = 5

    monkeypatch.setattr(batch_size, "FEWEST_STEPS", 1)
    monkeypatch.setattr(batch_size, "measure_pace", lambda *_, **__: (1.0,))
    monkeypatch.setattr(batch_size, "of_this_process", lambda _: Five(("CPU:0",)))
    source, config = prepared(tiny_arrays, {})
    # Of 48 images, 9 for each: the power of two below is 8.
    assert batch_size.largest_batch(source, config, given=()).batch_size == 40


def test_each_worker_needs_memory_for_its_own_share(tiny_arrays, monkeypatch):
    def workers(addresses):
        return Replicas(("CPU:0",), cluster=Cluster(tuple(addresses), 0))

    source, config = prepared(tiny_arrays, {"mixed_precision": False})
    session = batch_size.build_session(source, config)
    one = batch_size.bytes_per_image(session)
    monkeypatch.setattr(batch_size, "available_memory", lambda: 2 * one)
    apart = workers(f"machine{number}:4000" for number in range(4))
    batch_size.check_batch_fits(replace(session, replicas=apart))
    beside = workers(f"127.0.0.1:{4000 + number}" for number in range(4))
    for replicas in (session.replicas, beside):
        with pytest.raises(InputError, match="must be at most 2 for"):
            batch_size.check_batch_fits(replace(session, replicas=replicas))
