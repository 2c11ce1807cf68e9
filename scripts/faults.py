"""Break a training in every way that is known, and count how often it ends as it should.

    python scripts/faults.py kill --trials 60       kill -9 at random moments, then go on
    python scripts/faults.py signals --trials 20    SIGTERM and SIGINT, then go on
    python scripts/faults.py disk                   a disk that is full at ten points
    python scripts/faults.py damage                 every state file cut and with flipped bytes
    python scripts/faults.py two --trials 20        two fits on one folder at once
    python scripts/faults.py search --trials 20     kill -9 within a search, then go on
    python scripts/faults.py workers --trials 20    kill -9 of one of two workers, then go on
    python scripts/faults.py frozen --trials 6      one of two workers frozen, then go on
    python scripts/faults.py network                two workers on a slow link that loses packets
    python scripts/faults.py all --quick            the short form, as CI runs it

Each trial's outcome is compared with that of a training that nobody disturbed: the weights bit for
bit, the history but for the clock, and the evaluation. CIFAR-10 is used where TFDS has it (or under
TFDS_DATA_DIR), otherwise handwritten digits. The exit code is 1 when any trial ends otherwise.
"""

import argparse
import fcntl
import heapq
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CLOCK = ("seconds", "images_per_second")
# Everything that has a state: dropout, augmentation, EMA, schedule, early stopping.
OPTIONS = {
    "model": "convnet", "filters": 16, "depth": 3, "dropout": 0.3, "augmentation": "flip_crop",
    "ema": 0.95, "early_stopping": 4, "schedule": "cosine", "epochs": 5, "batch_size": 50,
    "checkpoint_every": "0.15s",
}  # fmt: skip
SEARCH = {
    "tuner": "hyperband", "max_trials": 13, "epochs": 9, "model": "convnet", "depth": 2,
    "batch_size": 250, "checkpoint_every": "0.2s",
    "space": {
        "filters": [8, 12, 16],
        "learning_rate": {"min_value": 0.01, "max_value": 0.5, "sampling": "log"},
    },
}  # fmt: skip
COUNTS = {"train": 3000, "validation": 500, "test": 500}
DISK_POINTS = 10
TRUNCATIONS, FLIPS = 50, 500
# Of the training by several processes, which must be long enough to kill one of them within.
WORKER_EPOCHS = 8
ROUNDING = 1e-6
NAMESPACES, ADDRESSES = ("kclassify-0", "kclassify-1"), ("10.77.0.1", "10.77.0.2")
# Of the kernel's linux/if_tun.h.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


# ---- the process that is disturbed


def work(data: Path, run_dir: Path, log: Path) -> None:
    """Fit, evaluate, report and export what is not there yet; note each step in `log`."""
    import kclassify

    fit = kclassify.fit
    import keras

    class Log(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            with log.open("a") as file:
                file.write(f"{int(self.model.optimizer.iterations)}\n")

    with np.load(data) as arrays:
        splits = {name: (arrays[f"{name}_x"], arrays[f"{name}_y"]) for name in COUNTS}
    try:
        run = fit(splits, run_dir=run_dir, callbacks=[Log()], verbose=False, **OPTIONS)
        kclassify.evaluate(run, verbose=False)
        kclassify.report(run)
        if not (run.export_dir / "1").exists():
            kclassify.export(run)
    except kclassify.InputError as error:
        sys.exit(refusal(2, error))
    except kclassify.StorageError as error:
        sys.exit(refusal(1, error))


def work_search(data: Path, folder: Path, log: Path) -> None:
    """Search, or go on with it; note each trial that has ended in `log`."""
    import kclassify

    tune = kclassify.tune
    from kclassify.search import loop

    execute = loop._execute

    def noted(setting, oracle, trial, make):
        found = execute(setting, oracle, trial, make)
        with log.open("a") as file:
            file.write(f"{trial.trial_id}\n")
        return found

    loop._execute = noted
    with np.load(data) as arrays:
        splits = {name: (arrays[f"{name}_x"], arrays[f"{name}_y"]) for name in COUNTS}
    tune(splits, directory=folder.parent, project_name=folder.name, verbose=False, **SEARCH)


def refusal(code: int, error: Exception) -> int:
    print(error, file=sys.stderr)
    return code


def worker(data: Path, run_dir: Path, *, what: str = "work") -> subprocess.Popen:
    log = run_dir.with_suffix(".steps")
    command = [sys.executable, str(Path(__file__)), what, str(data), str(run_dir), str(log)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def outcome(run_dir: Path) -> str:
    """Return what must be the same however often the training was disturbed."""
    import pandas as pd

    summary = json.loads((run_dir / "summary.json").read_text())
    metrics = json.loads((run_dir / "metrics.json").read_text())
    history = pd.read_csv(run_dir / "history.csv").drop(columns=list(CLOCK)).to_csv()
    exported = (run_dir / "export" / "1" / "verification.json").exists()
    del summary["training_seconds"]
    return json.dumps([summary, metrics, history, exported], sort_keys=True)


# ---- the trials: each returns how many went well, of how many, and a remark


def kill(setting, trials: int) -> tuple[int, int, str]:
    good, phases = 0, {}
    for number in range(trials):
        run_dir = setting.folder / f"kill-{number}"
        process = worker(setting.data, run_dir)
        if number % 2:
            # Half of them while it trains, which is a small part of it all.
            wait_for_step(run_dir, process)
            time.sleep(setting.random.uniform(0.0, setting.training_seconds))
        else:
            time.sleep(setting.random.uniform(0.2, setting.seconds))
        process.kill()
        finish(process)
        phase = phase_of(run_dir)
        phases[phase] = phases.get(phase, 0) + 1
        code, errors = finish(worker(setting.data, run_dir))
        good += judge(setting, run_dir, code, errors, f"killed {phase}")
    return good, trials, ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))


def phase_of(run_dir: Path) -> str:
    """Say in what a process was killed, by what it left."""
    if list(run_dir.glob("checkpoints/.*step*")):
        return "while writing a checkpoint"
    if (run_dir / "export" / "1").exists():
        return "after the export"
    if list(run_dir.glob("export/.*")):
        return "during the export"
    if (run_dir / "summary.json").exists():
        return "after the fit"
    steps = sorted(run_dir.glob("checkpoints/step-*"))
    if not steps:
        return "before the first checkpoint" if run_dir.exists() else "before the start"
    return "in training"


def judge(setting, run_dir: Path, code: int, errors: str, what: str) -> bool:
    left = [path.name for path in run_dir.rglob(".*")] if run_dir.exists() else []
    well = code == 0 and not left and outcome(run_dir) == setting.outcome
    if not well:
        print(f"  NOT as undisturbed: {run_dir.name}, {what}, exit {code}, left {left}\n{errors}")
    else:
        shutil.rmtree(run_dir)
    return well


def signals(setting, trials: int) -> tuple[int, int, str]:
    good = lost = 0
    for number in range(trials):
        run_dir = setting.folder / f"signal-{number}"
        process = worker(setting.data, run_dir)
        wait_for_step(run_dir, process)
        time.sleep(setting.random.uniform(0.0, setting.training_seconds))
        sent = (signal.SIGTERM, signal.SIGINT)[number % 2]
        process.send_signal(sent)
        code, errors = finish(process)
        # A shell shows the second form as the first.
        right = code in (128 + sent, -sent) or (code == 0 and "summary" in left_in(run_dir))
        lost += steps_lost(run_dir)
        again, more = finish(worker(setting.data, run_dir))
        good += judge(setting, run_dir, again, more, f"{sent.name} gave {code} {errors}") and right
    return good, trials, f"{lost} steps lost"


def wait_for_step(run_dir: Path, process: subprocess.Popen) -> None:
    log = run_dir.with_suffix(".steps")
    while not log.exists() and process.poll() is None:
        time.sleep(0.01)


def left_in(run_dir: Path) -> str:
    return " ".join(path.stem for path in run_dir.glob("*"))


def steps_lost(run_dir: Path) -> int:
    made = int(run_dir.with_suffix(".steps").read_text().split()[-1])
    saved = [int(path.name[5:]) for path in run_dir.glob("checkpoints/step-*")]
    return made - max(saved) if saved else 0


def disk(setting, points: int) -> tuple[int, int, str]:
    """Give the run a file system of its own that is too small, then room."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        return 0, 0, "skipped: mounting a small file system needs root"
    good, sentences = 0, 0
    needed = sum(path.stat().st_size for path in setting.reference.rglob("*") if path.is_file())
    sizes = np.linspace(0.02, 0.98, points) * needed
    for number, size in enumerate(sizes):
        with small_disk(setting.folder / f"disk-{number}", int(size)) as place:
            run_dir = place / "r"
            code, errors = finish(worker(setting.data, run_dir))
            before = hashes(run_dir)
            said = code == 1 and len(errors.strip().splitlines()) == 1 and "no space" in errors
            sentences += said
            subprocess.run(["mount", "-o", "remount,size=1G", str(place)], check=True)
            kept = all(hashes(run_dir).get(name) == value for name, value in before.items())
            again, more = finish(worker(setting.data, run_dir))
            what = f"disk of {size:,.0f} bytes, exit {code}: {errors}"
            good += judge(setting, run_dir, again, more, what) and kept and (said or code == 0)
            if not said:
                print(f"  disk of {size:,.0f} bytes: exit {code} {errors.strip()[-300:]}")
    return good, points, f"{sentences} stopped in a sentence"


@contextmanager
def small_disk(place: Path, size: int):
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def hashes(run_dir: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in run_dir.rglob("*")
        if path.is_file() and "checkpoints" not in path.parts and not path.name.startswith(".")
    }


def two(setting, trials: int) -> tuple[int, int, str]:
    good = 0
    for number in range(trials):
        run_dir = setting.folder / f"two-{number}"
        both = [worker(setting.data, run_dir), worker(setting.data, run_dir)]
        ended = sorted((finish(process) for process in both), key=lambda pair: pair[0])
        (first, errors), (second, refused) = ended
        named = second == 2 and "process " in refused and len(refused.strip().splitlines()) == 1
        if not named:
            print(f"  exits {first} and {second}: {refused}")
        good += judge(setting, run_dir, first, errors, "two at once") and named
    return good, trials, "one ran, the other was refused by the first one's host, pid and time"


def search(setting, trials: int) -> tuple[int, int, str]:
    """Kill a search at a random moment, go on, and see that nothing was done twice."""
    whole = setting.folder / "search-whole"
    began = time.perf_counter()
    code, errors = finish(worker(setting.data, whole, what="work-search"))
    seconds = time.perf_counter() - began
    if code:
        sys.exit(f"the undisturbed search failed: {errors}")
    expected, good, ended = found_by(whole), 0, 0
    for number in range(trials):
        folder = setting.folder / f"search-{number}"
        process = worker(setting.data, folder, what="work-search")
        time.sleep(setting.random.uniform(0.3, seconds))
        process.kill()
        finish(process)
        log = folder.with_suffix(".steps")
        ended += len(log.read_text().split()) if log.exists() else 0
        code, errors = finish(worker(setting.data, folder, what="work-search"))
        made = log.read_text().split()
        well = code == 0 and len(made) == len(set(made)) and found_by(folder) == expected
        good += well
        if not well:
            print(f"  NOT as undisturbed: {folder.name}, exit {code}, trials {made}\n{errors}")
    return good, trials, f"{ended} trials had ended when it was killed, none was run again"


def workers(setting, trials: int) -> tuple[int, int, str]:
    """Kill the chief and the other of two workers in turn; both say who, and the same goes on."""
    return lose_workers(setting, trials, by=signal.SIGKILL, named="is gone")


def frozen(setting, trials: int) -> tuple[int, int, str]:
    """Freeze them in turn; `launch` kills the frozen one a minute after the other has ended."""
    return lose_workers(setting, trials, by=signal.SIGSTOP, named="is silent")


def lose_workers(setting, trials: int, *, by: int, named: str) -> tuple[int, int, str]:
    packed, whole = packed_of(setting), setting.folder / f"workers-whole-{by}"
    code, errors = finish(launched(packed, whole))
    if code:
        sys.exit(f"the undisturbed workers failed: {errors}")
    good, seconds = 0, []
    training = json.loads((whole / "summary.json").read_text())["training_seconds"]
    for number in range(trials):
        run_dir, victim = setting.folder / f"workers-{by}-{number}", number % 2
        process = launched(packed, run_dir)
        wait_for_checkpoint(run_dir, process)
        time.sleep(setting.random.uniform(0.0, 0.9 * training))
        lost = signal_worker(run_dir, victim, by)
        began = time.perf_counter()
        code, errors = finish(process)
        seconds.append(time.perf_counter() - began)
        told = f"worker {victim} (127.0.0.1:" in errors and named in errors
        again, more = finish(launched(packed, run_dir))
        well = lost and told and code and not again and same_training(run_dir, whole)
        good += bool(well)
        if not well:
            print(f"  NOT as undisturbed: {run_dir.name}, exits {code}, {again}\n{errors}{more}")
    return good, trials, f"named, and all ended after {min(seconds):.1f} to {max(seconds):.1f} s"


def packed_of(setting) -> Path:
    import kclassify

    with np.load(setting.data) as found:
        data = {name: (found[f"{name}_x"], found[f"{name}_y"]) for name in COUNTS}
    return Path(kclassify.pack(data, setting.folder / "packed", verbose=False).path)


def network(setting, delay: float, loss: float) -> tuple[int, int, str]:
    """Train by two workers in network namespaces of their own, and by two on loopback."""
    if os.geteuid() != 0 or not shutil.which("ip") or not os.path.exists("/dev/net/tun"):
        return 0, 0, "skipped: network namespaces need root, ip and TUN"
    packed, folder = packed_of(setting), setting.folder
    for run_dir, launch in (("one", ()), ("loopback", ("launch", "--workers", "2"))):
        code, errors = finish(fitted(packed, folder / run_dir, verb=(*launch, "fit")))
        if code:
            sys.exit(f"the training that is compared with failed: {errors}")
    cluster = ("--cluster", ",".join(f"{address}:4000" for address in ADDRESSES), "--worker")
    began = time.perf_counter()
    with slow_link(delay, loss):
        both = [
            fitted(packed, folder / "slow", *cluster, str(index),
                   prefix=("ip", "netns", "exec", name))
            for index, name in enumerate(NAMESPACES)
        ]  # fmt: skip
        ended = [finish(process) for process in both]
    remark = f"{1000 * delay:g} ms late each way, {loss:.1%} lost"
    if any(code for code, _ in ended):
        print(*ended, sep="\n")
        return 0, 1, remark
    seconds = time.perf_counter() - began
    same = trained_to(folder / "slow") == trained_to(folder / "loopback")
    most = differences(folder / "slow", folder / "one")
    remark += (
        f": {seconds:.0f} s, {'as' if same else 'NOT as'} on loopback, bit for bit; losses and"
    )
    return int(same), 1, f"{remark} accuracies within {most:.6f} of those of one process"


@contextmanager
def slow_link(delay: float, loss: float):
    """Make two network namespaces, and carry packets between them late, or not at all.

    This process carries them, from one TUN device to the other: not every kernel has netem.
    """
    ends, stop = [tunnel(f"kc{index}") for index in range(2)], threading.Event()
    carrier = threading.Thread(target=carry, args=(ends, delay, loss, stop))
    try:
        for index, (name, own, other) in enumerate(
            zip(NAMESPACES, ADDRESSES, ADDRESSES[::-1], strict=True)
        ):
            run("ip", "netns", "add", name)
            run("ip", "link", "set", f"kc{index}", "netns", name)
            for words in (
                "ip link set lo up",
                f"ip addr add {own} peer {other} dev kc{index}",
                f"ip link set kc{index} up",
            ):
                run("ip", "netns", "exec", name, *words.split())  # fmt: skip
        carrier.start()
        yield
    finally:
        stop.set()
        if carrier.is_alive():
            carrier.join()
        for end in ends:
            os.close(end)
        for name in NAMESPACES:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def tunnel(name: str) -> int:
    """Make a network device whose packets this process reads and writes."""
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return end


def carry(ends: list[int], delay: float, loss: float, stop: threading.Event) -> None:
    rng, late, count = random.Random(0), [], 0
    while not stop.is_set():
        wait = min(0.1, max(0.0, late[0][0] - time.monotonic())) if late else 0.1
        for end in select.select(ends, [], [], wait)[0]:
            packet, count = os.read(end, 65536), count + 1
            if rng.random() >= loss:
                other = ends[1 - ends.index(end)]
                heapq.heappush(late, (time.monotonic() + delay, count, other, packet))
        while late and late[0][0] <= time.monotonic():
            os.write(*heapq.heappop(late)[2:])


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def fitted(packed: Path, run_dir: Path, *more: str, prefix=(), verb=("fit",)):
    command = [
        *prefix, sys.executable, "-m", "kclassify", *verb, str(packed), "--run-dir", str(run_dir),
        "--model", "resnet", "--depth", "8", "--epochs", "3", "--batch-size", "100", "--optimizer",
        "nesterov", "--learning-rate", "0.002", "--mixed-precision", "False", "--quiet", *more,
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"TF_NUM_INTRAOP_THREADS": "1"},
    )  # fmt: skip


def differences(run_dir: Path, other: Path) -> float:
    """Return the largest difference of losses and accuracies of any epoch."""
    import pandas as pd

    first, second = (pd.read_csv(folder / "history.csv") for folder in (run_dir, other))
    columns = ["loss", "accuracy", "val_loss", "val_accuracy"]
    return float((first[columns] - second[columns]).abs().to_numpy().max())


def launched(packed: Path, run_dir: Path) -> subprocess.Popen:
    options = {**OPTIONS, "epochs": WORKER_EPOCHS}
    words = [text for name, value in options.items()
             for text in ("--" + name.replace("_", "-"), str(value))]  # fmt: skip
    command = [sys.executable, "-m", "kclassify", "launch", "--workers", "2", "fit", str(packed),
               "--run-dir", str(run_dir), *words]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def wait_for_checkpoint(run_dir: Path, process: subprocess.Popen) -> None:
    while not list(run_dir.glob("checkpoints/step-*")) and process.poll() is None:
        time.sleep(0.05)


def signal_worker(run_dir: Path, index: int, number: int) -> bool:
    """Send a signal to one of the workers of a training; the chief was started first."""
    found = subprocess.run(["pgrep", "-f", f"kclassify fit .*{run_dir} "],
                           capture_output=True, text=True)  # fmt: skip
    pids = sorted(int(pid) for pid in found.stdout.split())
    if len(pids) < 2:
        return False
    os.kill(pids[index], number)
    return True


def same_training(run_dir: Path, whole: Path) -> bool:
    """Compare the weights bit for bit, and the history but for rounding.

    Of the epoch that was stopped within, the sums of the workers are added in another order.
    """
    weights = [json.loads((folder / "summary.json").read_text())["weights_sha256"]
               for folder in (run_dir, whole)]  # fmt: skip
    return weights[0] == weights[1] and differences(run_dir, whole) < ROUNDING


def trained_to(run_dir: Path) -> str:
    import pandas as pd

    summary = json.loads((run_dir / "summary.json").read_text())
    history = pd.read_csv(run_dir / "history.csv").drop(columns=list(CLOCK)).to_csv()
    return summary["weights_sha256"] + history


def found_by(folder: Path) -> str:
    """Return the trials of a search without the clock, which orders those that are equally good."""
    import pandas as pd

    found = pd.read_csv(folder / "trials.csv", dtype={"trial": str})
    return found.drop(columns="seconds").sort_values("trial", ignore_index=True).to_csv()


# ---- damaged files, in this process: a small training that was cut in its third epoch


def damage(setting, truncations: int, flips: int) -> tuple[int, int, str]:
    half, ask = half_run(setting.folder)
    files = sorted(path.relative_to(half) for path in half.rglob("*") if path.is_file())
    changes = [(file, "cut") for file in files for _ in range(truncations)]
    changes += [(setting.random.choice(files), "flip") for _ in range(flips)]
    counts = {"refused": 0, "as undisturbed": 0}
    good = 0
    for number, (file, kind) in enumerate(changes):
        copy = Path(shutil.copytree(half, setting.folder / f"damage-{number}"))
        spoil(copy / file, kind, setting.random)
        found = ask(copy)
        shutil.rmtree(copy)
        counts[found] = counts.get(found, 0) + 1
        good += found in ("refused", "as undisturbed")
        if found not in ("refused", "as undisturbed"):
            print(f"  {file} {kind}: {found}")
        if number % 50 == 49:
            print(f"  {number + 1} of {len(changes)}", flush=True)
    remark = ", ".join(f"{count} {found}" for found, count in counts.items())
    return good, len(changes), f"{len(files)} files; {remark}"


def spoil(path: Path, kind: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)


def half_run(folder: Path):
    """Return a run that was cut, and the function that goes on with a copy of it."""
    import kclassify

    fit = kclassify.fit
    import keras

    from kclassify.training import session

    # Each step is a call into TensorFlow, so that it can be cut after any.
    session.IMAGES_PER_EXECUTION = 1
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = (rng.integers(0, 60, (60, 8, 8, 3)) + labels[:, None, None, None] * 90).astype("uint8")
    options = {
        **OPTIONS, "filters": 4, "depth": 1, "batch_size": 9, "epochs": 4, "verbose": False,
        "validation_fraction": 0.2, "test_fraction": 0.2, "checkpoint_every": 1e-9,
    }  # fmt: skip

    class Cut(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 10:
                raise MemoryError

    def ask(run_dir: Path) -> str:
        try:
            run = fit((images, labels), run_dir=run_dir, **options)
            found = (run.summary["weights_sha256"], clockless(run))
        except kclassify.InputError:
            return "refused"
        except Exception as error:  # this is what must not happen
            return f"TRACEBACK {type(error).__name__}: {error}"
        return "as undisturbed" if found == expected else "WRONG RESUME"

    def clockless(run) -> str:
        return run.history.drop(columns=list(CLOCK)).to_csv()

    whole = fit((images, labels), run_dir=folder / "whole", **options)
    expected = (whole.summary["weights_sha256"], clockless(whole))
    half = folder / "half"
    with suppress(MemoryError):
        fit((images, labels), run_dir=half, callbacks=[Cut()], **options)
    return half, ask


# ---- what the trials share


class Setting:
    """A folder, the data in it, and the outcome of a training that nobody disturbed."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.random = folder, random.Random(seed)
        self.data = folder / "data.npz"
        np.savez(self.data, **arrays())
        self.reference = folder / "reference"

    def measure(self) -> None:
        began = time.perf_counter()
        code, errors = finish(worker(self.data, self.reference))
        self.seconds = time.perf_counter() - began
        if code:
            sys.exit(f"the undisturbed training failed: {errors}")
        self.outcome = outcome(self.reference)
        summary = json.loads((self.reference / "summary.json").read_text())
        self.training_seconds = summary["training_seconds"]
        print(
            f"undisturbed: {self.seconds:.1f} s in all, {self.training_seconds:.1f} s of training"
        )


def arrays() -> dict[str, np.ndarray]:
    """Return images of CIFAR-10, or of digits where it is not there."""
    from kclassify import FitConfig, runtime
    from kclassify.checks import InputError

    runtime.prepare()
    from kclassify.data.sources import load_source, prepare

    config = FitConfig()
    for name in ("cifar10", "digits"):
        try:
            source = prepare(load_source(name, config), config, verbose=False)
            break
        except InputError as error:
            print(f"{name} is not there: {error}")
    print(f"data: {name}")
    parts = {split: source.splits[split].take(np.arange(min(count, len(source.splits[split]))))
             for split, count in COUNTS.items()}  # fmt: skip
    return {f"{split}_x": part.images for split, part in parts.items()} | {
        f"{split}_y": part.labels for split, part in parts.items()
    }


# Name: the function, and how much of it in the short and in the full form.
TRIALS = {
    "kill": (kill, {"trials": 4}, {"trials": 60}),
    "signals": (signals, {"trials": 2}, {"trials": 20}),
    "disk": (disk, {"points": 2}, {"points": DISK_POINTS}),
    "damage": (damage, {"truncations": 1, "flips": 20},
               {"truncations": TRUNCATIONS, "flips": FLIPS}),
    "two": (two, {"trials": 1}, {"trials": 20}),
    "search": (search, {"trials": 2}, {"trials": 20}),
    "workers": (workers, {"trials": 2}, {"trials": 20}),
    "frozen": (frozen, {"trials": 2}, {"trials": 6}),
    "network": (network, {"delay": 0.001, "loss": 0.001}, {"delay": 0.005, "loss": 0.01}),
}  # fmt: skip


def main() -> int:
    works = {"work": work, "work-search": work_search}
    if sys.argv[1:2] and sys.argv[1] in works:
        works[sys.argv[1]](*map(Path, sys.argv[2:]))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=[*TRIALS, "all"])
    parser.add_argument("--quick", action="store_true", help="a few trials of each")
    parser.add_argument("--trials", type=int, help="of all but disk and damage")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    names = list(TRIALS) if "all" in options.what else options.what
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), options.seed)
        if not set(names) <= {"damage", "search", "workers", "frozen", "network"}:
            setting.measure()
        results = {name: attempt(name, setting, options) for name in names}
    return 0 if all(good == count for good, count in results.values()) else 1


def attempt(name: str, setting: Setting, options: argparse.Namespace) -> tuple[int, int]:
    function, quick, full = TRIALS[name]
    amount = dict(quick if options.quick else full)
    if options.trials and "trials" in amount:
        amount["trials"] = options.trials
    began = time.perf_counter()
    good, count, remark = function(setting, **amount)
    seconds = time.perf_counter() - began
    print(f"{name}: {good} of {count} ended as they should ({remark}); {seconds:.0f} s", flush=True)
    return good, count


if __name__ == "__main__":
    sys.exit(main())
