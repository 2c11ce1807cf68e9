"""Trials in processes of their own, on this machine and by way of a chief."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kclassify
from kclassify.checks import InputError, OutOfMemoryError, StorageError
from kclassify.search.child import (
    DISK_FULL,
    MEMORY_FULL,
    NO_TIME_LEFT,
    Children,
    ProcessDiedError,
)
from kclassify.search.crowd import Address, Role, serve
from kclassify.search.shared_data import laid_down, pick_up
from kclassify.search.trial import NoTimeLeft


def test_data_that_is_laid_down_is_picked_up_without_the_test_images(tiny_arrays, tmp_path):
    from kclassify.config import resolve
    from kclassify.data.sources import load_source, prepare

    config = resolve("fast", {"batch_size": 1})
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    with laid_down(source, tmp_path / "data") as folder:
        found = pick_up(folder)
        assert set(found.splits) == {"train", "validation"}
        for split, examples in found.splits.items():
            np.testing.assert_array_equal(examples.images, source.splits[split].images)
            np.testing.assert_array_equal(examples.labels, source.splits[split].labels)
            assert isinstance(examples.images, np.memmap)
        assert found.class_names == source.class_names
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (-signal.SIGKILL, ProcessDiedError, "SIGKILL"),
        (-signal.SIGSEGV, ProcessDiedError, "SIGSEGV"),
        (NO_TIME_LEFT, NoTimeLeft, ""),
        (128 + signal.SIGTERM, NoTimeLeft, ""),
        (DISK_FULL, StorageError, "no space"),
        (MEMORY_FULL, OutOfMemoryError, "no memory"),
        (1, RuntimeError, "Traceback"),
    ],
)
def test_how_a_process_ended_is_what_became_of_its_trial(code, kind, message):
    said = {DISK_FULL: "no space", MEMORY_FULL: "no memory", 1: "Traceback\nValueError: x"}
    error = Children(Path("data"), threads=1)._error(code, said.get(code, ""))
    assert type(error) is kind
    assert message in str(error)


@pytest.mark.parametrize("text", ["", "8000", "host:", "host:x", "host:0", "host:70000"])
def test_what_is_no_address_is_named(text):
    with pytest.raises(InputError, match="a host and a port"):
        Address(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("0.0.0.0:1", False),
     ("10.0.0.1:1", False), ("node7:1", False)],
)  # fmt: skip
def test_only_this_machine_reaches_loopback(text, loopback):
    assert Address(text).loopback is loopback


def test_kerastuners_variables_say_who_is_who(monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner3")
    role = Role.of(None, None)
    assert (str(role.address), role.tuner_id, role.worker) == ("127.0.0.1:8000", "tuner3", True)
    assert not Role.of("127.0.0.1:1", "chief").worker
    with Role.of("127.0.0.1:1", "one").environment():
        assert os.environ["KERASTUNER_TUNER_ID"] == "one"
    assert os.environ["KERASTUNER_TUNER_ID"] == "tuner3"


class Done:
    def over(self):
        return True


def test_a_chief_that_others_can_reach_warns():
    with pytest.warns(UserWarning, match="asks for no password"):
        serve(Done(), Address(f"0.0.0.0:{free_port()}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        serve(Done(), Address(f"127.0.0.1:{free_port()}"))


def test_an_address_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="that is free"):
            serve(Done(), Address(f"127.0.0.1:{taken.getsockname()[1]}"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- with processes: minutes in all


@pytest.mark.slow
def test_workers_find_what_one_process_finds(tiny_arrays, asked):
    alone = kclassify.tune(tiny_arrays, **asked).trials
    beside = kclassify.tune(tiny_arrays, **{**asked, "project_name": "w"}, workers=2).trials
    kept = ["trial", "state", "val_accuracy", "label_smoothing", "learning_rate", "epochs"]
    by_trial = [found[kept].sort_values("trial", ignore_index=True) for found in (alone, beside)]
    pd.testing.assert_frame_equal(*by_trial)
    assert not Path("saved_models/w/.data").exists()


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_is_tried_again_with_half_the_batch(tiny_arrays, asked):
    killed = []

    def kill_one():
        while not killed:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = path.read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"kclassify.search.child" in words and words[-2] == str(os.getpid()).encode():
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    killed.append(path.parent.name)
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=kill_one)
    thread.start()
    found = kclassify.tune(tiny_arrays, **asked, workers=1)
    thread.join()
    assert (found.trials["state"] == "done").all()
    assert "run-half-batch" in found.trials.set_index("trial")["run"]["0"]
    assert "SIGKILL" in Path("saved_models/s/trials/0/error.txt").read_text()


SCRIPT = """
import sys
import numpy as np
import kclassify

rng = np.random.default_rng(0)
labels = np.arange(60) % 3
images = (rng.integers(0, 60, (60, 8, 8, 3)) + labels[:, None, None, None] * 90).astype(np.uint8)
chief, tuner_id = sys.argv[1:]
found = kclassify.tune(
    (images, labels), tuner="random", max_trials=8, space={"filters": [2, 4, 6, 8], "learning_rate":
    [0.1, 0.2]}, epochs=30, batch_size=8, model="convnet", depth=1, augmentation="none",
    validation_fraction=0.2, test_fraction=0.2, project_name="s", chief=chief, tuner_id=tuner_id,
    verbose=False,
)
print(len(found.trials))
"""


@pytest.mark.slow
def test_a_chief_and_three_workers_one_of_which_is_killed(monkeypatch):
    Path("search.py").write_text(SCRIPT)
    address = f"127.0.0.1:{free_port()}"

    def start(tuner_id):
        command = [sys.executable, "search.py", address, tuner_id]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    chief = start("chief")
    workers = [start(f"worker{n}") for n in range(3)]
    while not list(Path("saved_models/s/trials").glob("*/run/history.csv")):
        assert chief.poll() is None, chief.communicate()
        time.sleep(0.1)
    workers[0].kill()
    workers[0].communicate()
    out, errors = chief.communicate(timeout=300)
    assert (chief.returncode, out.strip()) == (0, "8"), errors
    for worker in workers[1:]:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
    outcomes = sorted(Path("saved_models/s/trials").glob("*/outcome.json"))
    assert len(outcomes) == 8
    trials = pd.read_csv("saved_models/s/trials.csv")
    assert sorted(trials["trial"]) == list(range(8))
    # One that is worse than half of those before it is stopped early.
    assert trials["state"].isin(["done", "hopeless"]).all()
