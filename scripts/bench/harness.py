"""What the benchmarks share: peers measured in turn, each in a fresh process, and a table.

A benchmark is a file whose peers are functions from the parsed options to named numbers:

    import harness

    def keras(options):
        return {"images_per_second": ...}

    def kclassify(options):
        return {"images_per_second": ...}

    BENCHMARK = harness.Benchmark(
        __doc__,                                            # the claim, and who the peer is
        peers={"keras": keras, "kclassify": kclassify},     # ratios are to the first
        options={"images": harness.Option(8192, quick=1024, help="training images")},
        targets=[harness.Target("images_per_second", "kclassify", over="keras", at_least=2.0)],
    )

    if __name__ == "__main__":
        BENCHMARK.main()

A peer imports what it needs itself, so that `--help` and the other peers go without.
"""

import argparse
import importlib.util
import json
import operator
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
# Ignored by git, as every `build/` is.
CIFAR10 = HERE / "build" / "cifar10.npz"
PACKAGES = ("tensorflow", "keras", "torch", "onnxruntime", "kclassify")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BFLOAT16 = ("avx512_bf16", "amx_bf16")
ANSWER, STARTED = "measured: ", "KCLASSIFY_BENCH_STARTED"

Peer = Callable[[argparse.Namespace], Mapping[str, float]]
# The numbers of each peer, one mapping a round.
Measured = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Option:
    """A flag of a benchmark; its type is that of `default`.

    Attributes:
        default: the value for figures that are reported.
        quick: the value under `--quick`; None takes `default`.
        help: one line.
        choices: the values that it can have, or None.
    """

    default: Any
    quick: Any = None
    help: str = ""
    choices: Sequence[Any] | None = None


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of two peers, on their difference, or on one peer's own value.

    Without a bound, the value is only shown.

    Attributes:
        measure: which number.
        peer: whose.
        over: whose it is divided by.
        minus: whose is taken from it.
        at_least: the bound from below.
        at_most: the bound from above.
    """

    measure: str
    peer: str
    over: str | None = None
    minus: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def judge(self, measured: Measured) -> dict[str, Any] | None:
        """Return the value, of medians and of each round, and whether the bounds hold."""
        ours, other = values(measured, self.peer, self.measure), self.over or self.minus
        theirs = values(measured, other, self.measure) if other else [1.0] * len(ours)
        if not ours or not theirs:
            return None
        against = operator.sub if self.minus else operator.truediv
        value = against(statistics.median(ours), statistics.median(theirs))
        rounds = [against(*pair) for pair in zip(ours, theirs, strict=False)]
        return {"target": str(self), "value": value, "rounds": rounds, "met": self._met(value)}

    def _met(self, value: float) -> bool | None:
        least, most = self.at_least, self.at_most
        if least is None and most is None:
            return None
        return (least is None or value >= least) and (most is None or value <= most)

    def __str__(self) -> str:
        name = f"{self.peer} / {self.over}" if self.over else self.peer
        name += f" - {self.minus}" if self.minus else ""
        least = "" if self.at_least is None else f" at least {self.at_least}"
        most = "" if self.at_most is None else f" at most {self.at_most}"
        return f"{self.measure} of {name}{',' if least or most else ''}{least}{most}"


def needs(package: str | None = None, *, flags: Sequence[str] = ()) -> Callable[[Peer], Peer]:
    """Mark a peer that is left out without `package`, or without any of the CPU's `flags`."""

    def mark(peer: Peer) -> Peer:
        vars(peer)["needs"] = (package, flags)
        return peer

    return mark


@dataclass(frozen=True)
class Benchmark:
    """Peers, what can be chosen about them, and what the claim asks of them.

    Attributes:
        doc: the file's docstring.
        peers: functions by name; the first is what the others are compared with.
        options: flags by name, such as ``batch_size`` for `--batch-size`.
        targets: what the claim asks.
        variant: the options that are part of the result's file name.
        on_cifar10: whether the peers read `cifar10()`, which is then kept ready for them.
    """

    doc: str
    peers: Mapping[str, Peer]
    options: Mapping[str, Option] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    variant: Sequence[str] = ()
    on_cifar10: bool = True

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Measure as the command line says, print the tables, keep the JSON."""
        chosen = self._parse(arguments)
        if chosen.peer:
            print(ANSWER + json.dumps({**self.peers[chosen.peer](chosen)}))
            return
        if self.on_cifar10:
            # In a child: the peak memory of a process counts as that of those that it starts.
            _in_child("import harness; harness.save_cifar10()")
        peers = [name for name in chosen.only or self.peers if self._can_run(name)]
        # Now, so that the load is that of everything else.
        around = environment()
        report = self._report(chosen, around, self._measure(peers, chosen))
        print(as_text(report))
        out = chosen.out or (None if chosen.quick else RESULTS / f"{report['benchmark']}.json")
        if out:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            Path(out).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
            print(f"\nkept in {out}")

    def _parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(
            description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--repeats", type=int, help="rounds, all the peers in each (3)")
        parser.add_argument("--quick", action="store_true", help="under a minute; writes nothing")
        parser.add_argument("--only", nargs="+", choices=self.peers, help="these peers alone")
        parser.add_argument("--out", help="where the JSON goes, instead of results/")
        parser.add_argument("--peer", choices=self.peers, help=argparse.SUPPRESS)
        for name, option in self.options.items():
            parser.add_argument(
                _flag(name), type=type(option.default), choices=option.choices,
                help=f"{option.help} ({option.default})",
            )  # fmt: skip
        chosen = parser.parse_args(arguments)
        _fill_in(chosen, self.options)
        return chosen

    def _can_run(self, name: str) -> bool:
        package, flags = getattr(self.peers[name], "needs", (None, ()))
        if available(package, flags=flags):
            return True
        wanted = [package, *flags] if package else flags
        print(f"{name} is left out, for want of one of {list(wanted)}", file=sys.stderr)
        return False

    def _measure(self, peers: Sequence[str], chosen: argparse.Namespace) -> Measured:
        measured: Measured = {peer: [] for peer in peers}
        for turn in range(chosen.repeats):
            for peer in peers:
                found = self._one(peer, chosen)
                shown = ", ".join(f"{name} {_number(value)}" for name, value in found.items())
                print(f"round {turn + 1}, {peer}: {shown}", file=sys.stderr, flush=True)
                measured[peer].append(found)
        return measured

    def _one(self, peer: str, chosen: argparse.Namespace) -> dict[str, float]:
        flags = [part for name in self.options for part in (_flag(name), getattr(chosen, name))]
        command = [sys.executable, sys.argv[0], "--peer", peer, *map(str, flags)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, STARTED: repr(time.time())}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        answers = [line for line in done.stdout.splitlines() if line.startswith(ANSWER)]
        if done.returncode or not answers:
            sys.exit(f"{peer} failed:\n{done.stdout}\n{done.stderr}")
        return json.loads(answers[-1].removeprefix(ANSWER))

    def _report(
        self, chosen: argparse.Namespace, around: dict[str, Any], measured: Measured
    ) -> dict[str, Any]:
        options = {name: getattr(chosen, name) for name in self.options}
        parts = [Path(sys.argv[0]).stem, *(str(options[name]) for name in self.variant)]
        judged = [target.judge(measured) for target in self.targets]
        return {
            "benchmark": "-".join(parts),
            "claim": self.doc.strip().splitlines()[0],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": chosen.quick,
            "options": options,
            "environment": around,
            "measured": measured,
            "summary": summary(measured),
            "targets": [found for found in judged if found],
        }


def available(package: str | None = None, *, flags: Sequence[str] = ()) -> bool:
    """Tell whether `package` is installed and the CPU has one of `flags`, where any are named."""
    from kclassify import runtime

    installed = package is None or importlib.util.find_spec(package) is not None
    return installed and (not flags or bool(runtime.processor_flags() & set(flags)))


def values(measured: Measured, peer: str, measure: str) -> list[float]:
    """Return what `peer` measured of `measure`, one number a round; none where it did not."""
    return [found[measure] for found in measured.get(peer, ()) if measure in found]


def summary(measured: Measured) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by measure and peer, the median, the spread and the ratio to the first peer."""
    names = dict.fromkeys(name for found in measured.values() for one in found for name in one)
    return {name: _compare(measured, name) for name in names}


def _compare(measured: Measured, measure: str) -> dict[str, dict[str, float]]:
    found = {peer: values(measured, peer, measure) for peer in measured}
    found = {peer: numbers for peer, numbers in found.items() if numbers}
    first = statistics.median(next(iter(found.values())))
    return {
        peer: {
            "median": statistics.median(numbers),
            "min": min(numbers),
            "max": max(numbers),
            "ratio": statistics.median(numbers) / first if first else float("nan"),
        }
        for peer, numbers in found.items()
    }


def as_text(report: Mapping[str, Any]) -> str:
    """Return the environment, a Markdown table for each measure, and the targets."""
    lines = [report["benchmark"], "", *_facts(report["environment"]), *_facts(report["options"])]
    for measure, peers in report["summary"].items():
        lines += ["", f"| {measure} | median | min to max | times the first |", "|---|---|---|---|"]
        for peer, row in peers.items():
            spread = f"{_number(row['min'])} to {_number(row['max'])}"
            lines.append(f"| {peer} | {_number(row['median'])} | {spread} | {row['ratio']:.3f} |")
    lines += ["", *(_verdict(found) for found in report["targets"])]
    return "\n".join(lines).rstrip()


def environment() -> dict[str, Any]:
    """Return what a figure depends on: processor, versions, commit, and what else was running."""
    from kclassify import runtime

    known = runtime.environment()
    return {
        "processor": known["processor"],
        "cores": known["cpu_count"],
        "flags": [flag for flag in FLAGS if flag in runtime.processor_flags()],
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": known["python"],
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {name: os.environ[name] for name in known["variables"] if name in os.environ},
        "commit": _commit(),
    }


def seconds_since_start() -> float:
    """Return the seconds since this peer's process was started."""
    return time.time() - float(os.environ[STARTED])


def save_cifar10() -> None:
    """Keep CIFAR-10 as arrays, so that no peer starts by reading TFDS."""
    if CIFAR10.exists():
        return
    import numpy as np
    import tensorflow_datasets as tfds

    train, test = tfds.load("cifar10", split=["train", "test"], batch_size=-1)
    CIFAR10.parent.mkdir(exist_ok=True)
    beside = CIFAR10.with_name(f"{os.getpid()}.npz")
    arrays = {"x": train["image"], "y": train["label"], "xt": test["image"], "yt": test["label"]}
    np.savez(beside, **{name: value.numpy() for name, value in arrays.items()})
    beside.replace(CIFAR10)


def cifar10(images: int | None = None, *, split: str = "train") -> tuple[Any, Any]:
    """Return the first `images` of a split: uint8 ``(n, 32, 32, 3)`` and int64 labels."""
    import numpy as np

    x, y = ("x", "y") if split == "train" else ("xt", "yt")
    with np.load(CIFAR10) as arrays:
        return arrays[x][:images], arrays[y][:images].astype("int64")


def _in_child(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def _fill_in(chosen: argparse.Namespace, options: Mapping[str, Option]) -> None:
    """Give what was not on the command line its value, which `--quick` decides too."""
    chosen.repeats = chosen.repeats or (1 if chosen.quick else 3)
    for name, option in options.items():
        if getattr(chosen, name) is None:
            quick = chosen.quick and option.quick is not None
            setattr(chosen, name, option.quick if quick else option.default)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _facts(facts: Mapping[str, Any]) -> list[str]:
    return [f"{name:<12} {_fact(value)}" for name, value in facts.items()]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or "none set"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _verdict(found: Mapping[str, Any]) -> str:
    rounds = ", ".join(_number(value) for value in found["rounds"])
    met = {True: ": met", False: ": not met", None: ""}[found["met"]]
    return f"{found['target']}. Found {_number(found['value'])} (by round: {rounds}){met}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
