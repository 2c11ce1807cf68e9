import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.config import DATA_FIELDS
from kclassify.data.datasets import make_datasets


def test_splits_of_arrays(labelled):
    splits = make_datasets(labelled(30), batch_size=4, epochs=3, class_names=("a", "b"))
    assert splits.class_names == ("a", "b")
    assert splits.input_shape == (8, 8, 3)
    assert splits.steps_per_epoch == len(splits.ids["train"]) // 4
    assert int(splits.train.cardinality()) == 3 * splits.steps_per_epoch
    assert sum(len(ids) for ids in splits.ids.values()) == 30


def test_ids_are_in_the_order_of_the_images(labelled):
    splits = make_datasets(labelled(30), batch_size=4)
    for name in ("validation", "test"):
        pixels = np.concatenate([images[:, 0, 0, 0] for images, _ in getattr(splits, name)])
        assert [f"arrays/{pixel}" for pixel in pixels] == splits.ids[name].tolist()


def test_train_is_shuffled_and_keyed_by_the_seed(labelled):
    first, same, other = (
        make_datasets(labelled(30), batch_size=4, seed=seed, augmentation="flip_crop")
        for seed in (0, 0, 1)
    )
    take = [np.concatenate([labels for _, labels in splits.train]) for splits in (first, same)]
    assert np.array_equal(*take)
    assert first.ids["test"].tolist() != other.ids["test"].tolist()


def test_mixing_gives_shares_in_every_split(labelled):
    splits = make_datasets(labelled(30), batch_size=4, augmentation="mixup")
    for dataset in (splits.train, splits.validation, splits.test):
        assert dataset.element_spec[1].shape[1:] == (2,)
        assert dataset.element_spec[1].dtype == "float32"


def test_misspelt_and_foreign_options(labelled):
    with pytest.raises(InputError, match="Did you mean 'image_size'"):
        make_datasets(labelled(30), imagesize=4)
    with pytest.raises(InputError, match="`options`"):
        make_datasets(labelled(30), learning_rate=0.1)
    with pytest.raises(InputError, match="`augmentation`"):
        make_datasets(labelled(30), augmentation="flipcrop")


def test_options_are_fields():
    from dataclasses import fields

    from kclassify.config import FitConfig

    assert set(DATA_FIELDS) < {item.name for item in fields(FitConfig)}


def test_batch_size_larger_than_the_data(labelled):
    with pytest.raises(InputError, match="`batch_size`"):
        make_datasets(labelled(30))
