import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data import sources
from kclassify.data.sources import (
    DATASETS,
    default_preset,
    load_source,
    prepare,
    reference,
    source_name,
)
from kclassify.data.spec import SPLITS, Examples, Source
from kclassify.presets import PRESETS


@pytest.fixture(params=DATASETS)
def source(request, monkeypatch):
    """Every named dataset, prepared; the one that has to be downloaded from a made-up TFDS."""

    def few(reference, config):
        images = np.zeros((60, 32, 32, 3), np.uint8)
        labels, ids = np.arange(60, dtype=np.int32) % 10, np.arange(60).astype(str)
        return Source("cifar10", {"train": Examples(images, labels, ids)}, tuple("abcdefghij"))

    monkeypatch.setattr("kclassify.data.cifar10.tfds.load", few)
    config = FitConfig(batch_size=8)
    return prepare(load_source(request.param, config), config, verbose=False)


def test_contract_of_every_dataset(source):
    assert source.name in DATASETS
    assert tuple(source.splits) == SPLITS
    assert source.num_classes == 10
    for part in source.splits.values():
        assert part.images.dtype == np.uint8
        assert part.images.shape == (len(part), *source.input_shape)
        assert part.labels.dtype == np.int32
        assert len(part.ids) == len(part)
        assert set(part.labels) <= set(range(10))
    ids = np.concatenate([part.ids for part in source.splits.values()])
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_is_described(name):
    dataset = DATASETS[name]
    assert dataset.preset in PRESETS
    assert dataset.description
    assert callable(sources._function(dataset.load))
    assert (default_preset(name), source_name(name), reference(name)) == (
        dataset.preset,
        name,
        name,
    )


def test_dispatch_names_and_references(image_folder, labelled):
    csv = image_folder / "list.csv"
    csv.write_text("path,label\ncat/0.png,cat\n")
    pair = labelled(4)
    dataset = tf.data.Dataset.from_tensor_slices(pair)
    cases = [
        (image_folder, "pets", str(image_folder)),
        (str(csv), "list", str(csv)),
        ("tfds:mnist", "mnist", "tfds:mnist"),
        (pair, "arrays", None),
        (list(pair), "arrays", None),
        ({"train": pair}, "arrays", None),
        (dataset, "dataset", None),
        (pd.DataFrame({"path": [], "label": []}), "table", None),
    ]
    for data, name, text in cases:
        assert (source_name(data), reference(data), default_preset(data)) == (name, text, "fast")


def test_what_is_loaded_has_the_name_that_was_told_before(image_folder, config, labelled):
    for data in (image_folder, labelled(4), "digits"):
        assert load_source(data, config).name == source_name(data)


def test_a_source_is_taken_as_it_is(config, labelled):
    source = load_source(labelled(4), config)
    assert load_source(source, config) == source
    assert (source_name(source), reference(source)) == ("arrays", None)


def test_a_relative_folder_has_a_name_and_can_be_found_again(image_folder, monkeypatch):
    monkeypatch.chdir(image_folder)
    assert source_name(".") == "pets"
    assert reference(".") == str(image_folder)


@pytest.mark.parametrize("call", [load_source, default_preset, source_name])
def test_misspelt_dataset(config, call):
    arguments = (config,) if call is load_source else ()
    with pytest.raises(InputError, match=r"`data` must be one of .*Did you mean 'cifar10'"):
        call("cifar01", *arguments)


@pytest.mark.parametrize("path", ["./nowhere", "a/b", "list.csv"])
def test_missing_path(config, path):
    with pytest.raises(InputError, match=r"`data` must be a folder or file that exists"):
        load_source(path, config)


def test_files_and_values_of_no_known_kind(config, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="official CIFAR-10 archive"):
        load_source(tmp_path / "a.txt", config)
    for data in (5, None, (1, 2, 3), np.zeros(3)):
        with pytest.raises(InputError, match="`data` must be a dataset's name"):
            load_source(data, config)


def test_import_is_light():
    heavy = "{'tensorflow', 'keras', 'pandas', 'sklearn', 'tensorflow_datasets'}"
    code = f"import sys, kclassify.data.sources; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
