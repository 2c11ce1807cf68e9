from dataclasses import replace

import numpy as np
import pytest

from kclassify.checks import InputError, VerificationError
from kclassify.config import FitConfig
from kclassify.evaluation.predictions import hash_of_ids
from kclassify.training.checkpoint import Checkpoint, write_checkpoint
from kclassify.training.cluster import Cluster
from kclassify.training.place import taken_place
from kclassify.training.replicas import Replicas
from kclassify.training.together import (
    agreed,
    check_alike,
    check_options,
    check_same_policy,
    check_same_weights,
    check_same_work,
    folder_of,
    in_turn,
    past_of_chief,
)

CLUSTER = Cluster(("a:1", "b:2"), 1)
MANIFEST = {"config": FitConfig().to_json(), "fingerprint": "1", "reference": "x"}
FACTS = {"manifest": MANIFEST, "versions": {"keras": "3.15.1"}}


class Told(Replicas):
    """Worker 1 of two, of which the chief tells `chief`."""

    def gather(self, told):
        return [CHIEF[0], told]


CHIEF: list = [None]


@pytest.fixture
def second():
    return Told(("CPU:0",), cluster=CLUSTER)


@pytest.mark.parametrize(
    ("options", "preset", "name"),
    [
        ({"time_budget": "1m"}, None, "time_budget"),
        ({"batch_size": "auto"}, None, "batch_size"),
        ({}, "auto", "preset"),
    ],
)
def test_what_one_machine_measures_is_refused(options, preset, name):
    with pytest.raises(InputError, match=f"`{name}` must"):
        check_options(CLUSTER, options, preset=preset, run_dir="x")


def test_the_folder_must_have_a_name():
    with pytest.raises(InputError, match="`run_dir` must be given with several workers"):
        check_options(CLUSTER, {}, preset=None, run_dir=None)
    check_options(CLUSTER, {}, preset=None, run_dir="x")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"manifest": MANIFEST | {"config": FitConfig(epochs=3).to_json()}},
         "epochs 3 instead of 11"),
        ({"manifest": MANIFEST | {"fingerprint": "2"}}, "other images or labels"),
        ({"versions": {"keras": "3.16"}}, "keras '3.16' instead of '3.15.1'"),
    ],
)  # fmt: skip
def test_a_worker_that_differs_is_named_with_what_differs(second, change, sentence):
    with pytest.raises(InputError) as found:
        check_alike(second, [FACTS, FACTS | change])
    assert f"worker 1 (b:2) with {sentence}" in str(found.value)


def test_places_and_data_folders_may_differ(second):
    elsewhere = MANIFEST | {"reference": "y", "config": FitConfig(data_dir="/d").to_json()}
    check_alike(second, [FACTS, FACTS | {"manifest": elsewhere}])


def test_what_one_raises_all_raise(second):
    CHIEF[0] = "`data` must be there."
    with pytest.raises(InputError, match=r"worker 0 \(a:1\) stopped: `data` must be there."):
        agreed(second, lambda: 1)
    CHIEF[0] = None

    def wrong():
        raise InputError("`epochs` must be more.")

    with pytest.raises(InputError, match=r"^`epochs` must be more\.$"):
        agreed(second, wrong)
    assert agreed(second, lambda: 2) == 2


def test_the_chief_alone_writes_the_run(second, tmp_path):
    with folder_of(second, tmp_path / "run") as folder:
        assert tmp_path not in folder.parents
        folder.mkdir()
    assert not folder.exists()
    chief = replace(second, cluster=Cluster(CLUSTER.workers, 0))
    with folder_of(chief, tmp_path / "run") as folder:
        assert folder == tmp_path / "run"


def test_the_others_go_on_from_the_checkpoint_of_the_chief(second, tmp_path):
    saved = Checkpoint(7, {"manifest": MANIFEST}, {"variable/00000": np.arange(3)})
    write_checkpoint(tmp_path / "run" / "checkpoints", saved)
    with taken_place(tmp_path / "own", again="", began=0.0, verbose=False) as place:
        past = past_of_chief(place, tmp_path / "run", 7, second)
        assert past.checkpoint is not None
        assert past.checkpoint.step == 7
        assert past_of_chief(place, tmp_path / "run", None, second).checkpoint is None
        with pytest.raises(InputError, match="must be a folder that all workers see"):
            past_of_chief(place, tmp_path / "other", 7, second)


def test_the_chief_is_first_and_the_others_do_what_it_did(second):
    CHIEF[0] = None
    done = []
    assert in_turn(second, lambda: done.append("mine") or 3) == 3
    assert done == ["mine"]
    assert in_turn(Replicas(("CPU:0",)), lambda: 4) == 4


def test_what_the_chief_cannot_do_no_other_tries(second):
    CHIEF[0] = "`run` must be whole."
    done = []
    with pytest.raises(InputError, match=r"worker 0 \(a:1\) stopped: `run` must be whole"):
        in_turn(second, lambda: done.append("mine"))
    assert done == []


def test_other_arguments_are_named_by_worker(second):
    told = {"data": hash_of_ids(np.array(["a", "b"])), "batch_size": 4}
    check_same_work(Replicas(("CPU:0",)), told)
    CHIEF[0] = told
    check_same_work(second, told)
    CHIEF[0] = told | {"data": hash_of_ids(np.array(["b", "a"]))}
    with pytest.raises(InputError, match=r"`data` must .* worker 1 \(b:2\) than for the chief"):
        check_same_work(second, told)
    CHIEF[0] = told | {"batch_size": 8}
    with pytest.raises(InputError, match="`batch_size` must be the same for all workers"):
        check_same_work(second, told)


def test_processors_that_choose_other_dtypes_are_named(second):
    CHIEF[0] = "float32"
    check_same_policy(second, "float32")
    said = r"`mixed_precision` must .* mixed_bfloat16 for worker 1 \(b:2\), float32 for the chief"
    with pytest.raises(InputError, match=said):
        check_same_policy(second, "mixed_bfloat16")


def test_other_weights_at_the_end_are_an_error():
    check_same_weights(["a", "a"])
    with pytest.raises(VerificationError, match=r"others than the chief's at worker 1 and 3\."):
        check_same_weights(["a", "b", "a", "c"])
