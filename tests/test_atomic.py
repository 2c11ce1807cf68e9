import errno
import os
import subprocess
import sys

import pytest

from kclassify.atomic import appearing, remove_leftovers, replacing
from kclassify.checks import StorageError


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "state.json"
    path.write_text("old")

    def write_half():
        with replacing(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def write(*, broken):
        with appearing(tmp_path / "new") as beside:
            (beside / "deep").mkdir()
            (beside / "deep" / "file").write_text("1")
            assert not (tmp_path / "new").exists()
            if broken:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        write(broken=True)
    assert list(tmp_path.iterdir()) == []
    write(broken=False)
    assert (tmp_path / "new" / "deep" / "file").read_text() == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]


@pytest.mark.parametrize("kind", [replacing, appearing])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
        OSError("Can't write data (errno = 28, error message = 'No space left on device')"),
    ],
    ids=["space", "quota", "words"],
)
def test_a_full_disk_is_said_in_a_sentence(tmp_path, kind, error):
    def write():
        with kind(tmp_path / "file.json"):
            raise ValueError from error

    with pytest.raises(StorageError, match=r"no space .*file\.json.* as it was"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("flush"))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("rename"), rename(*paths)))
    with replacing(tmp_path / "file") as beside:
        beside.write_text("1")
    assert order == ["flush", "rename", "flush"]


@pytest.mark.parametrize("kind", [replacing, appearing])
def test_what_a_process_that_is_no_more_had_begun_is_removed(tmp_path, kind):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, alive = tmp_path / f".{process.pid}.file", tmp_path / f".{os.getppid()}.file"
    (dead / "deep").mkdir(parents=True)
    alive.write_text("1")
    with kind(tmp_path / "file") as beside:
        if kind is replacing:
            beside.write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, "file"])


@pytest.mark.parametrize("kind", [replacing, appearing])
def test_of_this_number_only_what_this_process_writes_is_kept(tmp_path, kind):
    earlier = tmp_path / f".{os.getpid()}.00000000.file"
    earlier.write_text("1")
    with kind(tmp_path / "file") as outer:
        assert not earlier.exists()
        # Another thread may write the same at the same time.
        if kind is replacing:
            outer.write_text("1")
            with kind(tmp_path / "file") as inner:
                inner.write_text("2")
        assert outer.exists()


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    for name in (".12.model.keras", "keep.json", ".lock", ".hidden"):
        (tmp_path / name).write_text("1")
    (tmp_path / "checkpoints" / ".12.step-000000001").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        ".hidden", ".lock", "checkpoints", "keep.json",
    ]  # fmt: skip
