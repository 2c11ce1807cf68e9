import json

import pandas as pd
import pytest

from kclassify.checks import InputError
from kclassify.training import devices
from kclassify.training.devices import DeviceBench, bench_devices


def table(**speeds):
    rows = [("CPU:0", 2, int(size.removeprefix("b")), speed) for size, speed in speeds.items()]
    columns = ["device", "threads", "batch_size", "training"]
    return pd.DataFrame(rows, columns=columns).assign(inference=1.0)


def test_the_smallest_batch_that_is_nearly_the_quickest_is_recommended():
    bench = DeviceBench(table(b32=50.0, b128=97.0, b512=100.0))
    assert bench.recommended["batch_size"] == 128
    assert "--device cpu:0 --threads 2 --batch-size 128" in str(bench)


def test_a_row_is_measured():
    row = devices.measure("CPU:0", 0, "digits", 8, 0.01, 4)
    assert row["training"] > 0
    assert row["inference"] > 0
    assert row["batch_size"] == 4


def test_each_number_of_threads_has_a_child_of_its_own(monkeypatch):
    asked = []

    def child(arguments):
        asked.append(arguments[:2])
        return [{"device": arguments[0], "threads": int(arguments[1]), "batch_size": 32,
                 "training": 1.0, "inference": 1.0}]  # fmt: skip

    monkeypatch.setattr(devices, "_in_child", child)
    monkeypatch.setattr(devices.runtime, "physical_cores", lambda: 4)
    monkeypatch.setattr(devices.runtime, "logical_cores", lambda: 8)
    found = bench_devices(device="cpu", verbose=False)
    assert asked == [["CPU:0", count] for count in ("1", "2", "4", "8")]
    assert list(found.table["threads"]) == [1, 2, 4, 8]


def test_all_devices_are_measured_unless_one_is_named(monkeypatch):
    class Found:
        def __init__(self, name):
            self.name = name

    both = [Found("/physical_device:CPU:0"), Found("/physical_device:GPU:0")]
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda: both)
    assert devices._devices(None) == ["CPU:0", "GPU:0"]
    assert devices._devices("auto") == devices._devices("gpu") == ["GPU:0"]
    assert devices._cases("GPU:0") == [("GPU:0", 0)]


def test_a_child_prints_a_row_for_each_batch_size(capsys):
    devices._child(["CPU:0", "0", "digits", "8", "0.01", "2", "4"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["batch_size"] for row in rows] == [2, 4]
    assert rows[0].keys() == {"device", "threads", "batch_size", "training", "inference"}


def test_what_a_child_refuses_is_said_as_it_says_it():
    with pytest.raises(InputError, match=r"^`input_shape` must be at least 16x16"):
        bench_devices(device="cpu", preset="tutorial", image_size=8, verbose=False)


def test_what_was_measured_before_a_batch_was_too_large_counts(monkeypatch, tmp_path):
    child = tmp_path / "python"
    child.write_text("#!/bin/sh\necho '{\"batch_size\": 32}'; kill -9 $$\n")
    child.chmod(0o755)
    monkeypatch.setattr(devices.sys, "executable", str(child))
    assert devices._in_child(["CPU:0"]) == [{"batch_size": 32}]


def test_a_device_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(devices.sys, "executable", "false")
    with pytest.raises(InputError, match="Received: 'CPU:0', on which it failed"):
        bench_devices(device="cpu", verbose=False)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"device": "gpu:7"}, "device"),
        ({"preset": "fats"}, "preset"),
        ({"image_size": 2}, "image_size"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": 32}, "batch_sizes"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(options, name):
    with pytest.raises(InputError, match=f"`{name}`"):
        bench_devices(verbose=False, **options)
