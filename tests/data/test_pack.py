import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kclassify
from kclassify.checks import InputError
from kclassify.cli import main
from kclassify.config import FitConfig
from kclassify.data import shards
from kclassify.data.packed import BEGUN, MANIFEST, TABLES, load, read_manifest
from kclassify.data.preparation import prepare
from kclassify.data.sources import load_source
from kclassify.data.spec import SPLITS


def pack(data, out="packed", **options):
    return kclassify.pack(data, out, verbose=False, **options)


def whole(data, **config):
    """Every image of prepared data by its id, with its split and label."""
    settings = FitConfig(batch_size=1, **config)
    source = prepare(load_source(data, settings), settings, verbose=False)
    return {
        str(name): (split, image.tobytes(), np.asarray(label).tolist())
        for split, part in source.splits.items()
        for name, image, label in zip(part.ids, part.images, part.labels, strict=True)
    }


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def small_shards(monkeypatch):
    """Files of four images of 8x8x3."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * (192 + shards.OVERHEAD))


@pytest.fixture
def soft(tiny_arrays):
    images, labels = tiny_arrays
    return images, np.eye(3, dtype=np.float32)[labels] * 0.8 + 0.2 / 3


@pytest.mark.parametrize("kind", ["folder", "table", "arrays", "soft", "packed"])
def test_every_image_label_and_id_is_there_once(
    kind, image_folder, tiny_arrays, soft, small_shards, tmp_path
):
    if kind == "table":
        lines = [f"{path},{path.parent.name}" for path in sorted(image_folder.rglob("*.png"))]
        (tmp_path / "pets.csv").write_text("\n".join(["path,label", *lines]))
    data = {
        "folder": image_folder, "table": tmp_path / "pets.csv", "arrays": tiny_arrays,
        "soft": soft, "packed": "first",
    }[kind]  # fmt: skip
    if kind == "packed":
        pack(tiny_arrays, "first")
    packed = pack(data)
    assert whole(packed) == whole(data)
    assert sum(packed.images.values()) == len(whole(data))


def test_images_are_of_the_shape_that_fit_would_choose(image_folder):
    assert whole(pack(image_folder, image_size=16, channels=1)) == whole(
        image_folder, image_size=16, channels=1
    )
    Image.new("RGB", (20, 30)).save(image_folder / "cat" / "other.png")
    packed = pack(image_folder, "several-sizes")
    assert load(str(packed.path), FitConfig()).input_shape == (64, 64, 3)


def test_shards_are_random_samples_and_the_seed_decides(tiny_arrays, small_shards):
    first, again, other = (
        pack(tiny_arrays, name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    ids = {
        packed.path.name: np.load(packed.path / "ids-train.npy") for packed in (first, again, other)
    }
    assert ids["a"].tolist() == ids["b"].tolist()
    assert ids["a"].tolist() != sorted(ids["a"], key=lambda name: int(name.split("/")[1]))
    assert set(ids["a"]) != set(ids["c"])
    names = [path.name for path in first.path.glob("*.tfrecord*")]
    assert len(names) > 10
    assert contents(first.path) == contents(again.path)


def test_tfds_reads_it(image_folder, small_shards):
    import tensorflow_datasets as tfds

    packed = pack(image_folder)
    builder = tfds.builder_from_directory(packed.path)
    assert builder.info.features["label"].names == ["cat", "dog"]
    found = {}
    for split in SPLITS:
        assert builder.info.splits[split].num_examples == packed.images[split]
        for example in tfds.as_numpy(builder.as_dataset(split=split)):
            pixels, label = example["image"].tobytes(), int(example["label"])
            found[example["id"].decode()] = (split, pixels, label)
    assert found == whole(image_folder)


def test_the_card_counts_and_names(damaged_folder):
    folder, bad = damaged_folder
    card = (pack(folder, on_error="skip").path / "data-card.md").read_text()
    assert "| cat | 4 | 1 | 1 |" in card
    assert f"images left out: {len(bad)}" in card
    assert "cat/empty.png: it is empty" in card
    assert str(folder) in card.replace("\\", "")


def test_a_set_that_is_there_is_left_as_it_is(tiny_arrays, capsys):
    before = contents(pack(tiny_arrays).path)
    packed = kclassify.pack(tiny_arrays, "packed")
    assert "packed before" in capsys.readouterr().out
    assert contents(packed.path) == before


KILLED = """
import os, signal, sys
import kclassify
from kclassify.data import shards
shards.SHARD_BYTES = 4 * (192 + shards.OVERHEAD)
shards.WRITERS = 1
record, left = shards._record, [int(sys.argv[2])]
def counted(*arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return record(*arguments)
shards._record = counted
kclassify.pack(sys.argv[1], "packed", verbose=False)
"""


@pytest.mark.parametrize("images", [1, 6])
def test_what_was_cut_short_is_refused_then_goes_on(image_folder, small_shards, capsys, images):
    command = [sys.executable, "-c", KILLED, str(image_folder), str(images)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    there = [name for name in os.listdir("packed") if name.endswith(".json")]
    assert MANIFEST not in there
    assert BEGUN in there
    with pytest.raises(InputError, match=r"`data` must be packed to the end.*kclassify pack"):
        load_source("packed", FitConfig())
    with pytest.raises(InputError, match=r"`out` .* \(seed 0 before, 1 now\)"):
        pack(image_folder, seed=1)
    packed = kclassify.pack(image_folder, "packed")
    assert ("going on: 1 of" in capsys.readouterr().out) == (images == 6)
    assert contents(packed.path) == contents(pack(image_folder, "at-once").path)


def test_a_shard_that_was_damaged_meanwhile_is_written_again(image_folder, small_shards):
    whole_set = pack(image_folder, "whole")
    command = [sys.executable, "-c", KILLED, str(image_folder), "6"]
    subprocess.run(command)
    shard = next(path for path in pack_files("packed") if path.suffix != ".json")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert contents(pack(image_folder).path) == contents(whole_set.path)


def pack_files(folder):
    from pathlib import Path

    return sorted(Path(folder).glob("*.tfrecord*"))


def test_other_data_is_refused(image_folder, tiny_arrays):
    pack(image_folder)
    for data, differs in (
        (tiny_arrays, "name 'pets' before, 'arrays' now"),
        (image_folder, "validation_fraction 0.1 before, 0.2 now"),
    ):
        options = {"validation_fraction": 0.2} if data is image_folder else {}
        with pytest.raises(InputError, match=f"`out` must be .*{differs}"):
            pack(data, **options)
    next(image_folder.rglob("*.png")).write_bytes(b"")
    with pytest.raises(InputError, match="another fingerprint"):
        pack(image_folder, on_error="skip")


def test_what_fit_would_refuse_is_not_packed(tiny_arrays, tmp_path):
    images, labels = tiny_arrays
    known = labels != 2
    data = {"train": (images[known], labels[known]), "test": (images, labels)}
    with pytest.raises(InputError, match=r"every class in train. Received: '2' in test alone"):
        pack(data)
    assert not (tmp_path / "packed").exists()


def test_a_folder_of_something_else_is_left_alone(tiny_arrays, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"`out` .*holds something else"):
        pack(tiny_arrays, "mine")
    assert contents(tmp_path / "mine") == {"letter.txt": b"dear"}


def test_a_place_that_cannot_be_written_is_refused_before_the_data_is_read(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/packed"):
        with pytest.raises(InputError, match=r"`out` must be"):
            pack("no such data", out)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="`out` must be in a folder that you may write to"):
        pack("no such data", "packed")


def test_data_that_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(InputError, match="`data`"):
        pack("no-such-data")
    assert not (tmp_path / "packed").exists()


def test_options_that_concern_no_data_are_refused(tiny_arrays):
    with pytest.raises(InputError, match=r"`config` must be one of .*epochs"):
        pack(tiny_arrays, epochs=3)


def test_a_second_process_is_refused(tiny_arrays):
    code = """
import sys, time
from pathlib import Path
from kclassify.data.pack import _held
with _held(Path("packed")):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match=r"`out` .*no other process"):
            pack(tiny_arrays)
        other.kill()
    pack(tiny_arrays)


def test_an_image_that_tensorflow_cannot_decode_is_named(image_folder, monkeypatch):
    image = image_folder / "cat" / "0.png"
    settings = FitConfig(batch_size=1)
    source = load_source(image_folder, settings)
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(InputError, match=r"cat/0\.png"):
        pack(source)


def test_the_command_packs_and_says_what_is_next(image_folder, capsys):
    command = ["pack", str(image_folder), "packed", "--quiet", "--image-size", "16"]
    assert main(command) == 0
    assert "next: kclassify fit packed" in capsys.readouterr().out
    assert read_manifest(kclassify.pack(image_folder, "packed", image_size=16, verbose=False).path)[
        "input_shape"
    ] == (16, 16, 3)
    assert main([*command, "--seed", "4"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_manifest_has_what_it_is_checked_by(tiny_arrays):
    packed = pack(tiny_arrays)
    found = json.loads((packed.path / MANIFEST).read_text())
    for split in SPLITS:
        assert set(found["splits"][split]["tables"]) == set(TABLES)
        for row in found["splits"][split]["shards"]:
            assert os.path.getsize(packed.path / row["file"]) == row["bytes"]
    assert not [name for name in os.listdir(packed.path) if name.endswith(".tfrecord.json")]
    assert not (packed.path / BEGUN).exists()


@pytest.mark.parametrize("name", ["猫犬", "Äpfel", "3 pets", "x" * 230])
def test_any_name_is_one_that_tfds_takes(image_folder, name, tmp_path):
    import tensorflow_datasets as tfds

    image_folder.rename(tmp_path / name)
    packed = pack(tmp_path / name)
    assert tfds.builder_from_directory(packed.path).info.splits["train"].num_examples > 0


@pytest.mark.parametrize("out", [Path("s3://bucket/pets"), "s3:/bucket/pets"])
def test_a_url_that_was_made_a_path_is_refused(tiny_arrays, out, tmp_path):
    with pytest.raises(InputError, match="`out` must be a folder, or a URL as a text"):
        pack(tiny_arrays, out)
    assert list(tmp_path.iterdir()) == []
