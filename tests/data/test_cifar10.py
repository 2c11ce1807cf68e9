import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.data.cifar10 import CLASS_NAMES, RECORD, is_archive, load
from kclassify.data.sources import load_source, source_name

NAMES = [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]
EACH = 4


def planes(batch):
    rng = np.random.default_rng(batch)
    return rng.integers(0, 256, (EACH, RECORD - 1), dtype=np.uint8)


def labels(batch):
    return [(batch + place) % 10 for place in range(EACH)]


def write_archive(folder, *, binary, change=None):
    """Write the six batches in the official form; `change` replaces the content of some."""
    folder = folder / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    folder.mkdir()
    for batch, name in enumerate(NAMES):
        if binary:
            column = np.array(labels(batch), np.uint8)[:, np.newaxis]
            content = np.hstack([column, planes(batch)]).tobytes()
        else:
            # Protocol 3 is the lowest that writes bytes as Python 2 wrote its strings.
            content = pickle.dumps({b"data": planes(batch), b"labels": labels(batch)}, protocol=3)
        content = (change or {}).get(name, content)
        if content is not None:
            (folder / (name + ".bin" if binary else name)).write_bytes(content)
    return folder


def packed(folder):
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return path


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("pack", [True, False])
def test_official_archives(tmp_path, config, binary, pack):
    folder = write_archive(tmp_path, binary=binary)
    path = packed(folder) if pack else folder
    assert source_name(path) == "cifar10"
    source = load_source(path, config)
    assert source.class_names == CLASS_NAMES
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 20, "test": 4}
    train, test = source.splits["train"], source.splits["test"]
    assert train.labels.tolist() == [label for batch in range(5) for label in labels(batch)]
    # The file has a plane of each colour; the image has the colours last.
    red = planes(5)[2, :1024].reshape(32, 32)
    assert np.array_equal(test.images[2, :, :, 0], red)
    assert test.ids.tolist() == [f"cifar10/test/{index}" for index in range(4)]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": Hostile(), b"labels": []}, protocol=3),
        pickle.dumps({b"data": np.array([Hostile()], object), b"labels": [0]}, protocol=3),
        pickle.dumps({b"data": np.array([None], object), b"labels": [0]}, protocol=3),
        pickle.dumps({b"data": eval, b"labels": [0]}, protocol=3),
    ],
)
@pytest.mark.parametrize("pack", [True, False])
def test_hostile_pickles_are_refused(tmp_path, config, content, pack):
    folder = write_archive(tmp_path, binary=False, change={"data_batch_3": content})
    with pytest.raises(InputError, match="data_batch_3"):
        load(str(packed(folder) if pack else folder), config)
    assert not os.path.exists("owned")


@pytest.mark.parametrize(
    ("binary", "name", "content"),
    [
        (True, "test_batch", None),
        (False, "data_batch_5", None),
        (True, "data_batch_2", b"x" * (RECORD + 1)),
        (True, "data_batch_2", b"\x0a" * RECORD),
        (True, "data_batch_2", b""),
        (False, "data_batch_2", b"no pickle"),
        (False, "data_batch_2", pickle.dumps({b"data": np.zeros((1, 9), np.uint8)}, protocol=3)),
        (False, "data_batch_2", pickle.dumps([1], protocol=3)),
    ],
)
def test_archives_that_are_not_whole(tmp_path, config, binary, name, content):
    folder = write_archive(tmp_path, binary=binary, change={name: content})
    with pytest.raises(InputError, match=f"whole official CIFAR-10 archive.*{name}"):
        load(str(folder), config)


def test_a_truncated_and_another_tar(tmp_path, config):
    path = packed(write_archive(tmp_path, binary=True))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="whole official CIFAR-10 archive"):
        load_source(path, config)
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(InputError, match="data_batch_1 is missing"):
        load_source(other, config)


def test_other_folders_are_no_archive(image_folder):
    assert not is_archive(image_folder)


def test_nothing_is_extracted(tmp_path, config):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("../../data_batch_1")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"ab"))
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(InputError):
        load(str(path), config)
    assert sorted(tmp_path.parent.rglob("*")) == before
