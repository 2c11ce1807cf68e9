"""The page of a search, from its tables alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kclassify.reporting.importance import LEAST_TRIALS, as_numbers, importance
from kclassify.reporting.search_report import search_page

FACTS = {
    "kclassify": "0", "data": "digits", "config": {"model": "convnet"},
    "search": {
        "tuner": "random", "max_trials": 10, "objective": "val_accuracy",
        "space": [{"name": "filters"}, {"name": "optimizer"}, {"name": "rate"}],
    },
}  # fmt: skip


def trials(count):
    rng = np.random.default_rng(0)
    filters = rng.choice([8, 16, 32], count)
    return pd.DataFrame({
        "trial": [str(n) for n in range(count)],
        "state": "done",
        "val_accuracy": filters / 40,
        "epochs": 3.0,
        "seconds": 4.0,
        "tied": [n < 2 for n in range(count)],
        "filters": filters,
        "optimizer": ["<b>sgd" if n % 2 else "adam" for n in range(count)],
        "rate": 10.0 ** -rng.integers(1, 4, count),
    }).sort_values("val_accuracy", ascending=False, ignore_index=True)  # fmt: skip


def page(count, **changes):
    curves = {str(n): pd.Series([0.1, 0.2], index=[1, 2]) for n in range(count)}
    given = {"folder": Path("s"), "verdict": "the best", "command": "kclassify fit x"}
    return search_page(FACTS, trials(count), curves, **{**given, **changes})


def test_it_has_every_part():
    html = page(10)
    for part in ("parallel", "importance", "trials"):
        assert f'class="plot {part}"' in html
    assert html.count("<tr>") == 11
    assert "kclassify fit x" in html
    assert "<script" not in html


def test_names_and_values_are_escaped():
    html = page(10)
    assert "<b>sgd" not in html
    assert "&lt;b&gt;sgd" in html


def test_a_few_trials_have_no_importance():
    html = page(LEAST_TRIALS - 1)
    assert 'class="plot importance"' not in html
    assert "it would be chance" in html


def test_a_search_without_an_end_has_a_page():
    empty = search_page(FACTS, pd.DataFrame({"trial": [], "state": []}), {},
                        folder=Path("s"), verdict="none", command="")  # fmt: skip
    assert "No trial has ended yet" in empty


def test_what_decides_is_the_most_important():
    found = importance(trials(40), ["filters", "optimizer", "rate"], "val_accuracy")
    assert found.index[0] == "filters"
    assert found.sum() == pytest.approx(1.0)
    assert found.iloc[0] > 0.8


def test_texts_and_what_is_missing_become_numbers():
    assert as_numbers(pd.Series(["b", "a", None])).tolist() == [1.0, 0.0, -1.0]
    assert as_numbers(pd.Series([0.1, 0.2])).tolist() == [0.1, 0.2]
    assert as_numbers(pd.Series([[1, 2], [1, 3]])).tolist() == [0.0, 1.0]
