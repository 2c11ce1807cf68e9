import json

import numpy as np
import pytest

from kclassify.training.checkpoint import (
    Checkpoint,
    DamagedError,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


def checkpoint(step):
    return Checkpoint(step, {"epoch": step // 10, "best": 0.1}, {"a/0": np.arange(step)})


def same(first, second):
    arrays = first.arrays.keys() == second.arrays.keys() and all(
        np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays
    )
    return arrays and (first.step, first.facts) == (second.step, second.facts)


def test_what_is_written_is_read_again(tmp_path):
    path = write_checkpoint(tmp_path, checkpoint(7))
    assert path.name == "step-000000007"
    assert same(read_checkpoint(path), checkpoint(7))


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 20, 100):
        write_checkpoint(tmp_path, checkpoint(step))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000020", "step-000000100"]
    newest, damaged = newest_checkpoint(tmp_path)
    assert (newest.step, damaged) == (100, [])


def test_there_may_be_none(tmp_path):
    assert newest_checkpoint(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("name", ["arrays.npz", "facts.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "empty"])
def test_a_damaged_one_is_named_left_and_passed_over(tmp_path, name, damage):
    write_checkpoint(tmp_path, checkpoint(5))
    file = write_checkpoint(tmp_path, checkpoint(20)) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    whole = file.read_bytes()
    {
        "cut": lambda: file.write_bytes(whole[: len(whole) // 2]),
        "flip": lambda: file.write_bytes(content),
        "missing": file.unlink,
        "empty": lambda: file.write_bytes(b""),
    }[damage]()
    newest, damaged = newest_checkpoint(tmp_path)
    assert newest.step == 5
    assert len(damaged) == 1
    assert "damaged-1-step-000000020" in damaged[0]
    assert (tmp_path / "damaged-1-step-000000020").is_dir()
    # Training comes by that step again.
    write_checkpoint(tmp_path, checkpoint(20))
    assert newest_checkpoint(tmp_path)[0].step == 20


def test_pickled_arrays_are_refused(tmp_path):
    path = write_checkpoint(tmp_path, checkpoint(5))
    np.savez(path / "arrays.npz", a=np.array([print], dtype=object))
    manifest = json.loads((path / "manifest.json").read_text())
    import hashlib

    content = (path / "arrays.npz").read_bytes()
    manifest["arrays.npz"] = hashlib.sha256(content).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedError, match=r"arrays\.npz"):
        read_checkpoint(path)
