from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core import download

import kclassify
from kclassify.checks import InputError
from kclassify.data import cifar10
from kclassify.data.pipeline import first_images
from kclassify.data.preparation import prepare
from kclassify.data.sources import load_source, source_name
from kclassify.data.spec import FileImages
from kclassify.data.tfds import load
from kclassify.data.tfds_files import _unpack_into


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Images of several sizes; the pixels of each hold its index."""

    VERSION = tfds.core.Version("1.0.0")
    IMAGE_SHAPE = (None, None, 3)
    SPLITS = ("train", "valid", "test", "unlabelled")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.IMAGE_SHAPE),
            "label": tfds.features.ClassLabel(names=["round", "square"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(4) for split in self.SPLITS}

    def _generate_examples(self, count=4):
        height, width, channels = self.IMAGE_SHAPE
        for index in range(count):
            shape = (height or 8 + index, width or 10, channels)
            yield index, {"image": np.full(shape, index, np.uint8), "label": index % 2}


class TinyFixed(TinyShapes):
    """All of one size, grey, with a train split only."""

    IMAGE_SHAPE = (6, 8, 1)
    SPLITS = ("train",)


class TinyPlain(TinyShapes):
    """Has no image."""

    def _info(self):
        features = tfds.features.FeaturesDict({"label": tfds.features.ClassLabel(num_classes=2)})
        return tfds.core.DatasetInfo(builder=self, features=features)


@pytest.fixture
def local(config, tmp_path):
    return config.replace(data_dir=str(tmp_path / "tfds"))


@pytest.mark.filterwarnings("default")
def test_images_of_several_sizes_are_resized(local):
    source = load_source("tfds:tiny_shapes", local.replace(image_size=5))
    assert list(source.splits) == ["train", "validation", "test"]
    assert source.class_names == ("round", "square")
    for name, part in source.splits.items():
        assert part.images.shape == (4, 5, 5, 3)
        assert part.ids.tolist() == [f"tiny_shapes/{name}/{index}" for index in range(4)]
        assert np.array_equal(part.images[:, 0, 0, 0] % 2, part.labels)
    again = load_source("tfds:tiny_shapes", local.replace(image_size=5))
    assert np.array_equal(again.splits["train"].images, source.splits["train"].images)


@pytest.mark.filterwarnings("default")
def test_images_of_one_small_size_keep_it(local):
    source = load_source("tfds:tiny_fixed", local)
    assert source.input_shape == (6, 8, 1)
    assert list(source.splits) == ["train"]
    assert load("tfds:tiny_fixed", local.replace(channels=3)).input_shape == (6, 8, 3)


def test_unknown_builder(local):
    with pytest.raises(InputError, match=r"'mnits'\. Did you mean 'mnist'"):
        load("tfds:mnits", local)


def test_unknown_configuration(local):
    with pytest.raises(InputError, match="configuration and version"):
        load("tfds:tiny_shapes/none", local)


def test_no_image(local):
    with pytest.raises(InputError, match="dataset of images"):
        load("tfds:tiny_plain", local)


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("no route"),
        TimeoutError("late"),
        download.util.DownloadError("503"),
        download.download_manager.NonMatchingChecksumError("a url", "a file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_network_failure_points_at_local_data(local, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(InputError, match=r"`data_dir` or TFDS_DATA_DIR.*official archive"):
        cifar10.load("cifar10", local)


@pytest.mark.filterwarnings("default")
def test_data_dir_may_come_from_the_environment(config, local, monkeypatch):
    load("tfds:tiny_fixed", local)
    monkeypatch.setenv("TFDS_DATA_DIR", local.data_dir)
    monkeypatch.setattr(TinyFixed, "_generate_examples", None)
    assert len(load("tfds:tiny_fixed", config).splits["train"]) == 4


def test_name_is_fit_for_a_file():
    assert source_name("tfds:patch_camelyon/small:1.0.0") == "patch_camelyon-small-1.0.0"


@pytest.mark.filterwarnings("default")
def test_images_past_the_memory_budget_are_unpacked_once(local, monkeypatch):
    # 12 images of 5x5x3.
    small = local.replace(image_size=5)
    held = prepare(load_source("tfds:tiny_shapes", small), small, verbose=False)
    little = small.replace(memory_budget="800B")
    source = prepare(load_source("tfds:tiny_shapes", little), little, verbose=False)
    monkeypatch.setattr("kclassify.data.tfds_files._unpack", None)
    again = prepare(load_source("tfds:tiny_shapes", little), little, verbose=False)
    assert again.class_names == source.class_names == held.class_names
    for split, part in held.splits.items():
        for files in (source.splits[split], again.splits[split]):
            assert isinstance(files.images, FileImages)
            assert files.ids.tolist() == part.ids.tolist()
            assert files.labels.tolist() == part.labels.tolist()
            assert np.array_equal(first_images(files, 4), part.images)


@pytest.mark.filterwarnings("default")
def test_what_another_process_has_unpacked_meanwhile_is_taken(local, monkeypatch):
    little = local.replace(memory_budget="100KB")
    load_source("tfds:tiny_shapes", little)
    folder = next(tmp for tmp in (Path(local.data_dir) / "tfds-images").rglob("train"))
    monkeypatch.setattr("kclassify.data.tfds_files._unpack", None)
    _unpack_into(folder, None, "train")


@pytest.mark.filterwarnings("default")
def test_unpacked_files_are_not_named_for_another_format(local):
    found = kclassify.check("tfds:tiny_shapes", data_dir=local.data_dir, memory_budget="100KB")
    assert "file name" not in {finding.kind for finding in found.findings}


@pytest.mark.filterwarnings("default")
def test_an_unpacking_that_was_cut_is_begun_again(local, monkeypatch):
    little = local.replace(memory_budget="100KB")
    with monkeypatch.context() as patch:
        patch.setattr("kclassify.data.tfds_files.np.save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load_source("tfds:tiny_shapes", little)
    assert len(load_source("tfds:tiny_shapes", little).splits["test"]) == 4


@pytest.mark.filterwarnings("default")
def test_what_memory_does_not_hold_is_packed_and_trained_on(local):
    options = {"data_dir": local.data_dir, "image_size": 8, "memory_budget": "1KB",
               "validation_fraction": 0.4, "seed": 1}  # fmt: skip
    packed = kclassify.pack("tfds:tiny_shapes", "packed", verbose=False, **options)
    assert packed.images == {"train": 4, "validation": 4, "test": 4}
    run = kclassify.fit(
        "tfds:tiny_shapes", preset="digits", run_dir="r", epochs=1, verbose=False, **options
    )
    assert run.complete
