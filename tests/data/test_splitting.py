import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.data.spec import Examples, Source
from kclassify.data.splitting import split_source


def source(counts, *, extra=()):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    ids = np.array([f"arrays/{index}" for index in range(len(labels))])
    examples = Examples(np.zeros((len(labels), 4, 4, 1), np.uint8), labels, ids)
    splits = {"train": examples, **dict.fromkeys(extra, examples)}
    return Source("made", splits, tuple(f"class {index}" for index in range(len(counts))))


def counts(examples):
    return np.bincount(examples.class_ids).tolist()


def test_shares_are_those_of_each_class(config):
    splits = split_source(source([100, 50, 10]), config)
    assert list(splits) == ["train", "validation", "test"]
    assert counts(splits["test"]) == [10, 5, 1]
    # Of what the test split left.
    assert counts(splits["validation"]) == [9, 4, 1]
    assert counts(splits["train"]) == [81, 41, 8]


def test_every_image_is_in_one_split(config):
    splits = split_source(source([20, 30]), config)
    ids = np.concatenate([part.ids for part in splits.values()])
    assert len(ids) == len(set(ids)) == 50


def test_the_seed_decides(config):
    first, same = (split_source(source([20, 30]), config) for _ in range(2))
    other = split_source(source([20, 30]), config.replace(seed=1))
    assert first["test"].ids.tolist() == same["test"].ids.tolist()
    assert first["test"].ids.tolist() != other["test"].ids.tolist()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.49])
def test_the_fewest_images_leave_one_for_each_split(config, fraction):
    fractions = {"validation_fraction": fraction, "test_fraction": fraction}
    splits = split_source(source([3, 4]), config.replace(**fractions))
    for part in splits.values():
        assert min(counts(part)) >= 1


def test_splits_that_are_there_stay(config):
    given = source([10, 10], extra=["test"])
    splits = split_source(given, config)
    assert splits["test"] is given.splits["test"]
    assert counts(splits["validation"]) == [1, 1]
    whole = source([1, 1], extra=["test", "validation"])
    assert split_source(whole, config)["train"] is whole.splits["train"]


def test_too_few_images_of_a_class(config):
    with pytest.raises(InputError, match=r"at least 3 images of each class.*2 of 'class 1'"):
        split_source(source([9, 2]), config)
    with pytest.raises(InputError, match=r"at least 2 images of each class.*1 of 'class 0'"):
        split_source(source([1, 5], extra=["validation"]), config)


def test_one_class_only(config):
    with pytest.raises(InputError, match=r"at least two classes.*'class 0' only"):
        split_source(source([9, 0]), config)


def test_no_train(config):
    given = source([9, 9])
    with pytest.raises(InputError, match="must have a train split"):
        split_source(Source("x", {"test": given.splits["train"]}, given.class_names), config)
