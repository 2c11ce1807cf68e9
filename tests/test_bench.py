"""The benchmarks: each answers and names its peer, and what they share counts right."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "scripts" / "bench"
FILES = sorted(BENCH.glob("*.py"))
BENCHMARKS = [path for path in FILES if "\nif __name__" in path.read_text()]
HEAVY = {"tensorflow", "keras", "torch", "onnxruntime"}

# Peers that count their calls, so that every round has another value.
FAKE = '''"""A claim. The peer is `slow`."""
from pathlib import Path

import harness


def peer(name, factor):
    def measured(options):
        log = Path("log")
        before = log.read_text().split() if log.exists() else []
        log.write_text(" ".join([*before, name]))
        return {"speed": factor * options.base * (1 + before.count(name))}

    return measured


def fails(options):
    raise ValueError("this one always fails")


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "slow": peer("slow", 1),
        "fast": peer("fast", 3),
        "absent": harness.needs("no_such_package")(peer("absent", 1)),
        "fails": fails,
    },
    options={"base": harness.Option(10.0, quick=1.0, help="of the speed")},
    targets=[
        harness.Target("speed", "fast", over="slow", at_least=2.0),
        harness.Target("speed", "fast", at_most=1.0),
        harness.Target("speed", "absent", over="slow"),
    ],
    variant=("base",),
    on_cifar10=False,
)

if __name__ == "__main__":
    BENCHMARK.main()
'''


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import harness

    return harness


def run(*arguments):
    Path("fake.py").write_text(FAKE)
    return subprocess.run(
        [sys.executable, "fake.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(BENCH)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_each_benchmark_answers_and_names_its_peer(path):
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    claim = ast.get_docstring(ast.parse(path.read_text()))
    assert done.returncode == 0, done.stderr
    assert claim.splitlines()[0] in done.stdout
    assert any(word in claim for word in ("peer", "PyTorch", "ONNX Runtime"))
    assert "--quick" in done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_load_nothing_heavy(path):
    found = [node for node in ast.parse(path.read_text()).body if hasattr(node, "names")]
    names = [getattr(node, "module", None) or node.names[0].name for node in found]
    assert not {name.split(".")[0] for name in names} & HEAVY


def test_peers_take_turns_and_the_json_has_medians_spread_and_ratios():
    done = run("--repeats", "3", "--only", "slow", "fast", "absent", "--out", "kept.json")
    assert done.returncode == 0, done.stderr
    assert Path("log").read_text().split() == ["slow", "fast"] * 3
    kept = json.loads(Path("kept.json").read_text())
    assert kept["benchmark"] == "fake-10.0"
    assert kept["summary"]["speed"] == {
        "slow": {"median": 20.0, "min": 10.0, "max": 30.0, "ratio": 1.0},
        "fast": {"median": 60.0, "min": 30.0, "max": 90.0, "ratio": 3.0},
    }
    assert [found["met"] for found in kept["targets"]] == [True, False]
    assert kept["targets"][0]["rounds"] == [3.0, 3.0, 3.0]
    assert {"processor", "cores", "flags", "packages", "commit"} <= set(kept["environment"])
    assert "absent is left out, for want of one of ['no_such_package']" in done.stderr
    assert "| fast | 60 | 30 to 90 | 3.000 |" in done.stdout


def test_a_quick_run_takes_the_quick_values_and_keeps_nothing():
    done = run("--quick", "--only", "slow")
    assert done.returncode == 0, done.stderr
    assert "| slow | 1 | 1 to 1 | 1.000 |" in done.stdout
    assert "kept in" not in done.stdout


def test_a_peer_that_fails_ends_the_benchmark_with_its_error():
    done = run("--quick", "--only", "fails")
    assert done.returncode == 1
    assert "fails failed" in done.stderr
    assert "this one always fails" in done.stderr


def test_a_median_is_of_the_rounds_and_a_ratio_is_of_medians(harness):
    measured = {"a": [{"s": 1.0}, {"s": 2.0}, {"s": 9.0}], "b": [{"s": 4.0}, {"s": 4.0}, {}]}
    found = harness.summary(measured)["s"]
    assert found["a"] == {"median": 2.0, "min": 1.0, "max": 9.0, "ratio": 1.0}
    assert found["b"] == {"median": 4.0, "min": 4.0, "max": 4.0, "ratio": 2.0}


@pytest.mark.parametrize(
    ("bounds", "met"),
    [({"at_least": 2.0}, True), ({"at_most": 1.9}, False), ({}, None),
     ({"at_least": 1.0, "at_most": 3.0}, True)],
)  # fmt: skip
def test_a_target_is_met_within_its_bounds(harness, bounds, met):
    measured = {"a": [{"s": 1.0}], "b": [{"s": 2.0}]}
    assert harness.Target("s", "b", over="a", **bounds).judge(measured)["met"] is met


def test_a_target_can_be_a_difference(harness):
    measured = {"a": [{"s": 0.5}, {"s": 0.7}], "b": [{"s": 0.9}, {"s": 0.8}]}
    found = harness.Target("s", "b", minus="a", at_least=0.2).judge(measured)
    assert found["value"] == pytest.approx(0.25)
    assert found["rounds"] == pytest.approx([0.4, 0.1])
    assert found["met"] is True
    assert found["target"] == "s of b - a, at least 0.2"


def test_a_target_of_a_peer_that_was_not_measured_is_left_out(harness):
    assert harness.Target("s", "b", over="a").judge({"a": [{"s": 1.0}]}) is None


@pytest.mark.parametrize("name", ["conv289", "resnet20"])
def test_the_networks_are_the_same_in_keras_and_in_kclassify(name, harness, monkeypatch):
    import networks

    from kclassify.models.cost import count_macs, count_parameters
    from kclassify.models.registry import MODELS, build_model

    # So that the name is gone again after the test.
    monkeypatch.setitem(MODELS, "conv289", None)
    networks.register()
    model, arguments = networks.KCLASSIFY[name]
    ours = build_model(model, input_shape=(32, 32, 3), num_classes=10, **arguments)
    stock = networks.keras_network(name)
    assert [weight.shape for weight in ours.weights] == [weight.shape for weight in stock.weights]
    assert count_parameters(stock) == networks.PARAMETERS[name]
    assert count_macs(stock) == networks.MACS[name]


@pytest.mark.realdata
@pytest.mark.skipif(
    not Path(os.environ.get("TFDS_DATA_DIR", ""), "cifar10").is_dir(),
    reason="CIFAR-10 is not under TFDS_DATA_DIR",
)
def test_the_network_that_inference_is_measured_with_is_exported():
    for package in ("tf2onnx", "ai_edge_litert"):
        pytest.importorskip(package)
    command = [sys.executable, BENCH / "inference.py", "--quick", "--only", "kclassify"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "round 1, kclassify: p50_ms" in done.stderr
