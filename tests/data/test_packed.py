import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data import shards
from kclassify.data.fingerprint import fingerprint
from kclassify.data.packed import MANIFEST, load
from kclassify.data.pipeline import eval_dataset
from kclassify.data.sources import load_source, prepare
from kclassify.data.spec import PackedImages, Share
from kclassify.data.splitting import share_of_train
from kclassify.search.shared_data import laid_down, pick_up
from kclassify.training.replicas import Replicas
from kclassify.training.session import training_examples

SMALL = {"memory_budget": "4KB", "batch_size": 4}


@pytest.fixture(scope="module")
def whole(tiny_arrays, tmp_path_factory):
    """Sixty 8x8 images in files of four; do not write into them."""
    out = tmp_path_factory.mktemp("whole") / "packed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 4 * (192 + shards.OVERHEAD))
        return kclassify.pack(tiny_arrays, out, verbose=False).path


@pytest.fixture
def packed(whole):
    """A copy of them."""
    return Path(shutil.copytree(whole, "packed"))


def prepared(data, **config):
    settings = FitConfig(**{"batch_size": 4, **config})
    return prepare(load_source(data, settings), settings, verbose=False)


def test_images_are_in_memory_if_they_fit_and_stay_where_they_are_if_not(packed):
    within, past = prepared(packed), prepared(packed, **SMALL)
    for split, part in past.splits.items():
        assert isinstance(part.images, PackedImages)
        assert isinstance(within.splits[split].images, np.ndarray)
        everything = part.images.take(np.arange(len(part)))
        assert np.array_equal(everything, within.splits[split].images)
        assert np.array_equal(part.ids, within.splits[split].ids)
    assert past.input_shape == within.input_shape == (8, 8, 3)


def test_some_are_taken_in_the_order_that_is_asked_for(packed):
    images = prepared(packed, **SMALL).splits["train"].images
    everything = images.take(np.arange(len(images)))
    for chosen in ([17], [40, 3, 3, 0], []):
        indices = np.array(chosen, int)
        assert np.array_equal(images.take(indices), everything[indices])


@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_a_split_on_the_disk_are_the_split(packed, count):
    examples = prepared(packed, **SMALL).splits["train"]
    parts = [
        list(eval_dataset(examples, batch_size=12, share=Share(index, count)))
        for index in range(count)
    ]
    shared = [pair for step in zip(*parts, strict=True) for pair in step]
    images, labels = (np.concatenate(some) for some in zip(*shared, strict=True))
    assert np.array_equal(images, examples.images.take(np.arange(len(examples))))
    assert np.array_equal(labels, examples.labels)


@pytest.mark.parametrize("file", ["shard", "labels-test.npy", "offsets-train.npy"])
@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_a_file_that_is_not_what_was_packed_is_named(packed, file, how):
    path = sorted(packed.glob("*-train.*"))[2] if file == "shard" else packed / file
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-3] if how == "cut" else content[:-1] + b"?")
    said = "missing" if how == "missing" else "checksum"
    with pytest.raises(InputError, match=rf"`data` must have .*{path.name}.*{said}"):
        kclassify.fit(packed, verbose=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(format=99),
        lambda found: found.update(input_shape=[8, 8, "x"]),
        lambda found: found.update(input_shape=[8, -8, 3]),
        lambda found: found.update(class_names=[1, 2, 3]),
        lambda found: found["splits"].pop("test"),
        lambda found: found["splits"]["train"]["shards"].clear(),
        lambda found: found["splits"]["train"]["shards"][0].update(file="../secret"),
        lambda found: found["splits"]["train"]["shards"][0].update(sha256=7),
        lambda found: found["splits"]["train"]["shards"][0].update(images="many"),
        lambda found: found["splits"]["train"]["tables"].pop("ids"),
        lambda found: found.pop("name"),
        lambda found: found.update(skipped=[1]),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(packed, change):
    found = json.loads((packed / MANIFEST).read_text())
    change(found)
    (packed / MANIFEST).write_text(json.dumps(found))
    with pytest.raises(InputError, match=rf"`data` must have a whole {MANIFEST}"):
        load(str(packed), FitConfig())


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, "null"])
def test_a_manifest_that_is_none_is_refused(packed, text):
    (packed / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=rf"`data` must have a whole {MANIFEST}"):
        load(str(packed), FitConfig())


@pytest.mark.parametrize("config", [{}, SMALL])
def test_another_shape_is_refused(packed, config):
    with pytest.raises(InputError, match=r"`data` must be packed with the shape .*\(16, 16, 3\)"):
        prepared(packed, image_size=16, **config)


def test_the_fingerprint_is_of_the_files(packed, tiny_arrays):
    streamed = fingerprint(prepared(packed, **SMALL))
    assert streamed == fingerprint(prepared(packed, **SMALL))
    images, labels = tiny_arrays
    other = images.copy()
    other[0, 0, 0, 0] += 1
    kclassify.pack((other, labels), "other", verbose=False)
    assert streamed != fingerprint(prepared("other", **SMALL))


def test_a_search_lays_it_down_as_it_is(packed, tmp_path):
    source = prepared(packed, **SMALL)
    with laid_down(source, tmp_path / "shared") as folder:
        train, given = pick_up(folder).splits["train"], source.splits["train"]
        assert isinstance(train.images, PackedImages)
        indices = np.array([5, 1])
        assert np.array_equal(train.images.take(indices), given.images.take(indices))
        assert train.images.hashes == given.images.hashes


def test_check_looks_at_the_images(packed):
    found = kclassify.check(packed, verbose=False)
    assert found.counts.sum().sum() == 60
    assert found.to_json()["findings"] == []


def test_label_errors_say_that_it_must_fit_memory(packed, tiny_options):
    options = {**tiny_options, "folds": 2, **SMALL}
    with pytest.raises(InputError, match="`data` must fit `memory_budget`"):
        kclassify.find_label_errors(packed, **options)


def test_a_manifest_with_another_number_of_images_is_refused(packed):
    found = json.loads((packed / MANIFEST).read_text())
    found["splits"]["train"]["shards"][0]["images"] = 3
    (packed / MANIFEST).write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"as many records as labels.*train split has 47 and 48"):
        load(str(packed), FitConfig())


def test_a_file_that_may_not_be_read_is_named(packed, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("kclassify.data.packed.file_hash", refuse)
    with pytest.raises(InputError, match=r"which cannot be read \(Permission denied\)"):
        load(str(packed), FitConfig())


def test_a_share_of_it_is_whole_files_which_stay_where_they_are(packed):
    source = prepared(packed, **SMALL)
    fewer = share_of_train(source, 0.25, seed=0).splits["train"]
    assert isinstance(fewer.images, PackedImages)
    whole = source.splits["train"]
    assert len(fewer.images.paths) == round(0.25 * len(whole.images.paths))
    assert len(fewer) == fewer.images.counts.sum() == len(fewer.ids) == len(fewer.images)
    kept = np.arange(len(fewer))
    assert np.array_equal(fewer.images.take(kept), whole.images.take(kept))
    assert np.array_equal(fewer.labels, whole.labels[: len(fewer)])


def test_each_device_reads_with_its_share_of_the_memory(packed):
    source = prepared(packed, memory_budget="10KB")
    assert source.splits["train"].images.memory == 10_240

    class Two:
        replicas = Replicas(("GPU:0", "GPU:1"))

    assert training_examples(Two, source).images.memory == 5_120
