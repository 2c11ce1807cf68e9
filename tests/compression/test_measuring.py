from pathlib import Path

import numpy as np
import pytest

from kclassify.compression.measuring import Judged, itself, judge, nearest_candidates, trade_off
from kclassify.compression.parent import open_parent
from kclassify.evaluation.comparison import difference_interval
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
    found = itself(parent)
    assert found.passes
    assert found.row["difference"] == 0
    assert found.row["accuracy"] == pytest.approx(tiny_run.summary["val_accuracy"])
    assert 0 < found.row["gzip_megabytes"] < found.row["megabytes"]
    assert 0 < found.row["p50_ms"] <= found.row["p95_ms"]
    assert found.row["images_per_second"] > 0


def test_a_run_passes_where_it_surely_keeps_to_the_budget(tiny_run, monkeypatch, no_measuring):
    parent = open_parent(tiny_run, data=None, verbose=False)
    ours = np.ones(len(parent.source.splits["validation"]), bool)
    ours[0] = False
    monkeypatch.setattr(type(parent), "right", np.ones_like(ours))
    monkeypatch.setattr(type(parent), "right_on_validation", lambda *_: ours)
    low, _ = difference_interval(0, 1, images=len(ours))
    for budget, passes in ((-low + 1e-6, True), (-low - 1e-6, False)):
        found = judge(tiny_run, parent, max_drop=budget)
        assert found.passes is passes
        assert found.row["difference"] == pytest.approx(-1 / len(ours))
        assert found.row["low"] == low
