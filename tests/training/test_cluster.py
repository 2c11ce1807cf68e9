import json
import re

import pytest

from kclassify.checks import InputError
from kclassify.training.cluster import Cluster, check_alone, find_cluster

PAIR = ("10.0.0.1:4000", "10.0.0.2:4000")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


def test_without_one_there_is_none():
    assert find_cluster(None, None) is None


@pytest.mark.parametrize("given", [PAIR, list(PAIR), ",".join(PAIR)])
def test_addresses_may_be_text_or_a_sequence(given):
    assert find_cluster(given, 1) == Cluster(PAIR, 1)


def test_one_worker_is_a_process_as_any_other():
    assert find_cluster(PAIR[:1], 0) is None


def test_what_tensorflow_reads_is_what_is_read(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", Cluster(PAIR, 1).config)
    assert find_cluster(None, None) == Cluster(PAIR, 1)


def test_a_chief_of_its_own_is_the_first_worker(monkeypatch):
    config = {"cluster": {"chief": PAIR[:1], "worker": PAIR[1:]}}
    for kind, index in (("chief", 0), ("worker", 1)):
        task = {"type": kind, "index": 0}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config | {"task": task}))
        assert find_cluster(None, None) == Cluster(PAIR, index)


def test_slurm_says_which_nodes_there_are(monkeypatch):
    variables = {"PROCID": "2", "STEP_NUM_TASKS": "3", "STEP_NODELIST": "node[1-2]",
                 "STEP_TASKS_PER_NODE": "2,1"}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert find_cluster("slurm", None) == Cluster(("node1:8888", "node1:8889", "node2:8888"), 2)


@pytest.mark.parametrize(
    ("cluster", "worker", "sentence"),
    [
        ((PAIR[0], PAIR[0]), 0, "each worker once. Received: '10.0.0.1:4000', 2 times"),
        ("10.0.0.1,10.0.0.2:4000", 0, "host:port. Received: '10.0.0.1'"),
        ("a:0,b:1", 0, "host:port. Received: 'a:0'"),
        ("a..b:4000,h:4000", 0, "host:port. Received: 'a..b:4000'"),
        (5, 0, "host:port. Received: 5"),
        ([1, 2], 0, "host:port. Received: 1"),
        ("[::1]:4000,[::1]:4001", 0, "of IPv4, or names. Received: '[::1]:4000'"),
        (PAIR, None, "which of the 2 workers this process is, from 0 to 1. Received: None"),
        (PAIR, 2, "from 0 to 1. Received: 2"),
        (None, 1, "`worker` must be given with `cluster`"),
        ("slurm", None, "within a SLURM step alone"),
    ],
)
def test_mistakes_are_named(monkeypatch, cluster, worker, sentence):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(InputError, match=re.escape(sentence)):
        find_cluster(cluster, worker)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '["worker"]',
        '{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": 5}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": null}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": []}}',
        '{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": 5}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": 5}',
    ],
)
def test_a_variable_that_is_wrong_is_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="`TF_CONFIG` must"):
        find_cluster(None, None)


def test_what_one_process_does_is_refused_among_several(monkeypatch):
    check_alone("compress")
    monkeypatch.setenv("TF_CONFIG", Cluster(PAIR, 1).config)
    with pytest.raises(InputError, match=r"`TF_CONFIG` must be unset for compress.* of 2 workers"):
        check_alone("compress")


def test_those_of_one_machine_are_neighbours():
    assert Cluster(("a:1", "a:2", "b:1"), 1).neighbours == 2
    assert Cluster(("a:1", "a:2", "b:1"), 2).neighbours == 1
