from pathlib import Path

import numpy as np
import pytest

from kclassify.compression.measuring import Judged, judge, nearest_candidates, trade_off
from kclassify.compression.parent import open_parent
from kclassify.runs import Run


def judged(name, accuracy, megabytes, speed, low=0.0):
    row = {
        "run": name, "accuracy": accuracy, "megabytes": megabytes, "images_per_second": speed,
        "low": low, "high": 0.0, "difference": 0.0, "passes": True, "gzip_megabytes": megabytes,
    }  # fmt: skip
    return Judged(Run(Path(name)), row)


def test_what_another_is_better_than_in_everything_is_not_on_the_front():
    table = trade_off([
        judged("parent", 0.9, 4.0, 100), judged("small", 0.88, 1.0, 300),
        judged("worse", 0.87, 1.0, 200), judged("quick", 0.86, 2.0, 900),
        judged("twin", 0.88, 1.0, 300),
    ])  # fmt: skip
    front = dict(zip(table["run"], table["pareto"], strict=True))
    assert front == {"parent": True, "small": True, "worse": False, "quick": True, "twin": True}


def test_the_nearest_are_those_that_surely_lose_least():
    found = nearest_candidates(
        [judged("a", 0.9, 1, 1, low=-0.02), judged("b", 0.9, 1, 1, low=-0.01)], most=1
    )
    assert found.startswith("b: ")


def test_a_run_is_measured_beside_its_parent_by_the_runtime_that_serves_it(tiny_run):
    """With the process that measures."""
    parent = open_parent(tiny_run, data=None, verbose=False)
    right = parent.right_on_validation(parent.network)
    found = judge(tiny_run, parent, right, max_drop=0.01)
    assert found.passes
    assert found.row["difference"] == 0
    assert found.row["accuracy"] == pytest.approx(tiny_run.summary["val_accuracy"])
    assert 0 < found.row["gzip_megabytes"] < found.row["megabytes"]
    assert 0 < found.row["p50_ms"] <= found.row["p95_ms"]
    assert found.row["images_per_second"] > 0


def test_a_run_passes_where_it_surely_keeps_to_the_budget(tiny_run, monkeypatch):
    rows = [{"p50_ms": 1.0, "p95_ms": 2.0, "images_per_second": 100.0}] * 2
    monkeypatch.setattr(
        "kclassify.compression.measuring.measure_in_child", lambda *_: {"rows": rows}
    )
    parent = open_parent(tiny_run, data=None, verbose=False)
    ours = parent.right_on_validation(parent.network)
    elsewhere = Run(Path("elsewhere"))
    monkeypatch.setattr("kclassify.compression.measuring.load_run_model", lambda _: parent.network)
    monkeypatch.setattr("kclassify.compression.measuring._sizes", lambda _: {})
    lost = np.ones_like(ours)
    for budget, passes in ((0.99, True), (0.01, False)):
        assert judge(elsewhere, parent, lost, max_drop=budget).passes is passes
