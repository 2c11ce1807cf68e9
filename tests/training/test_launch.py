import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.runs import Run
from kclassify.training.cluster import Cluster
from kclassify.training.launch import _gpus, launch

FIT = (
    "fit",
    "digits",
    "--epochs",
    "4",
    "--batch-size",
    "64",
    "--mixed-precision",
    "False",
    "--learning-rate",
    "0.01",
    "--skip-learned",
    "0.3",
)


def test_workers_need_a_folder_to_share():
    with pytest.raises(InputError, match="must get a --run-dir"):
        launch(["fit", "digits"], workers=2)


def test_one_worker_is_no_launch():
    with pytest.raises(InputError, match="`workers` must be a whole number of at least 2"):
        launch(["fit", "digits", "--run-dir", "x"], workers=1)


def test_what_cannot_be_done_together_is_refused():
    with pytest.raises(InputError, match=r"`launch` must be one of.*Did you mean 'fit'"):
        launch(["fitt", "digits", "--run-dir", "x"], workers=2)


def command(*words, threads="1"):
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": threads}
    return {"args": [sys.executable, "-m", "kclassify", *words], "env": environment}


def started(workers, folder, *more, **options):
    words = ("launch", "--workers", str(workers), *FIT, "--run-dir", str(folder), *more)
    return subprocess.Popen(**command(*words), stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, **options)  # fmt: skip


def finished(process):
    shown, _ = process.communicate(timeout=300)
    return process.returncode, shown


def history(folder):
    return Run(folder).history[["loss", "accuracy", "val_loss", "val_accuracy"]].to_numpy()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    subprocess.run(**command(*FIT, "--run-dir", str(folder), "--quiet"), check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_train_as_one_process_does(alone, tmp_path, workers):
    code, shown = finished(started(workers, tmp_path / "run"))
    assert code == 0, shown
    assert f"{workers} workers" in shown
    # Kernels add up smaller batches in another order, and a training magnifies the last bits:
    # another number of threads does the same. Whatever is wrong with shares shows in tenths.
    assert history(tmp_path / "run") == pytest.approx(history(alone), abs=0.03)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["workers"] == workers


def pids(folder):
    """The workers' processes, the chief first."""
    found = subprocess.run(["pgrep", "-f", f"kclassify {FIT[0]} .*{folder}"],
                           capture_output=True, text=True)  # fmt: skip
    return sorted(int(pid) for pid in found.stdout.split())


@pytest.mark.parametrize(
    ("named", "seen"),
    [(None, ["-1", "-1"]), ("-1", ["-1", "-1"]), ("0,1,2,3", ["0,2", "1,3"]), ("3,5", ["3", "5"])],
)
def test_no_gpu_is_seen_by_two_workers(monkeypatch, named, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    workers = ("a:1", "b:1")
    assert [_gpus(Cluster(workers, index)) for index in range(2)] == seen


@pytest.mark.parametrize("named", ["0", "0,1,2", "2,-1,3"])
def test_gpus_that_cannot_be_shared_evenly_are_refused(monkeypatch, named):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(InputError, match=r"`CUDA_VISIBLE_DEVICES` must .* Name a multiple of 2"):
        launch(["fit", "digits", "--run-dir", "x"], workers=2)


class Started:
    """A process that notes what comes to it, and then ends."""

    def __init__(self):
        self.signals, self.returncode = [], None

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        self.signals.append(number)
        self.returncode = 0

    def kill(self):
        self.returncode = -signal.SIGKILL

    wait = poll


def test_ctrl_c_while_they_start_reaches_those_that_were(monkeypatch):
    first = Started()

    def start(_, cluster):
        if cluster.index:
            raise KeyboardInterrupt
        return first

    monkeypatch.setattr("kclassify.training.launch._start", start)
    with pytest.raises(KeyboardInterrupt):
        launch(["fit", "digits", "--run-dir", "x"], workers=2)
    assert first.signals == [signal.SIGINT]


@pytest.mark.slow
def test_what_the_chief_refuses_all_refuse(alone, tmp_path):
    folder = shutil.copytree(alone, tmp_path / "run")
    code, shown = finished(started(2, folder, "--resume", "never"))
    assert code == 2
    assert "worker 0 (127.0.0.1:" in shown
    assert shown.count("`run_dir` must not exist yet with resume='never'") == 2
    assert "is gone" not in shown


@pytest.mark.slow
def test_workers_evaluate_as_one_process_does(alone, tmp_path):
    before, after = tmp_path / "one", tmp_path / "three"
    for folder in (before, after):
        shutil.copytree(alone, folder)
    subprocess.run(**command("evaluate", str(before)), check=True, capture_output=True)
    done = subprocess.run(**command("launch", "--workers", "3", "evaluate", str(after)),
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, three = (Run(folder) for folder in (before, after))
    assert json.loads(three.calibration_file.read_text()) == json.loads(
        one.calibration_file.read_text()
    )
    with np.load(one.predictions_file("test")) as a, np.load(three.predictions_file("test")) as b:
        assert a["ids"].tolist() == b["ids"].tolist()
        np.testing.assert_allclose(b["probabilities"], a["probabilities"], atol=1e-6)


LONGER = ("--epochs", "12")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the run of two workers that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert finished(started(2, folder, *LONGER))[0] == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_dies_is_named_and_the_same_command_goes_on(whole, tmp_path, victim):
    folder = tmp_path / "run"
    process = started(2, folder, *LONGER)
    waiting_for_a_checkpoint(process, folder)
    os.kill(pids(folder)[victim], signal.SIGKILL)
    code, shown = finished(process)
    assert code != 0
    assert f"worker {victim} (127.0.0.1:" in shown
    assert "is gone; the same command on all workers goes on with" in shown
    code, shown = finished(started(2, folder, *LONGER))
    assert code == 0, shown
    assert "resuming  after step" in shown
    assert Run(folder).summary["weights_sha256"] == Run(whole).summary["weights_sha256"]
    assert (history(folder) == history(whole)).all()


def waiting_for_a_checkpoint(process, folder):
    while not list(folder.glob("checkpoints/step-*")):
        time.sleep(0.1)
        assert process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected", "send"),
    [
        (signal.SIGINT, 130, os.killpg),
        (signal.SIGINT, 130, os.kill),
        (signal.SIGTERM, 143, os.kill),
        (signal.SIGHUP, -signal.SIGHUP, os.killpg),
        (signal.SIGKILL, -signal.SIGKILL, os.kill),
    ],
    ids=["terminal", "interrupt", "terminate", "hangup", "killed"],
)
def test_the_launch_gives_its_workers_time_to_save(tmp_path, number, expected, send):
    folder = tmp_path / "run"
    process = started(
        2, folder, "--epochs", "200", start_new_session=True,
        # The tests themselves may run under nohup, and what is ignored is inherited.
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    waiting_for_a_checkpoint(process, folder)
    # A terminal sends Ctrl-C to the whole group, SIGHUP too when it is closed, and a scheduler
    # SIGTERM to one process.
    send(process.pid, number)
    code, shown = finished(process)
    assert code == expected, shown
    assert "is saved; " in shown
    assert "Traceback" not in shown
    assert not pids(folder)


@pytest.mark.slow
def test_ctrl_c_of_one_stops_all_in_order(tmp_path):
    folder = tmp_path / "run"
    process = started(2, folder, "--epochs", "200")
    waiting_for_a_checkpoint(process, folder)
    os.kill(pids(folder)[1], signal.SIGTERM)
    code, shown = finished(process)
    assert code == 143
    assert "is saved; " in shown
    assert "Traceback" not in shown
