import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.data.labels import encode_labels


def test_names_are_the_sorted_union_over_the_splits():
    parts = {"train": np.array(["dog", "ant"]), "test": np.array(["cat", "dog"])}
    labels, names = encode_labels(parts, None)
    assert names == ("ant", "cat", "dog")
    assert labels["train"].tolist() == [2, 0]
    assert labels["test"].tolist() == [1, 2]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, bool])
def test_integers_keep_their_number(kind):
    labels, names = encode_labels({"train": np.array([0, 1, 1]).astype(kind)}, None)
    assert names == ("0", "1")
    assert labels["train"].dtype == np.int32
    assert labels["train"].tolist() == [0, 1, 1]


def test_a_column_is_as_good_as_a_row_and_a_later_split_may_hold_the_highest():
    labels, names = encode_labels({"train": np.array([[0], [1]]), "test": np.array([2])}, None)
    assert names == ("0", "1", "2")
    assert labels["train"].tolist() == [0, 1]


def test_class_names_name_integers():
    _, names = encode_labels({"train": np.array([0, 1])}, ("a", "b", "c"))
    assert names == ("a", "b", "c")


@pytest.mark.parametrize("wrong", [[0, -1], [0, 3]])
def test_integers_out_of_range(wrong):
    with pytest.raises(InputError, match=r"`data` must have labels that are from 0 to 2"):
        encode_labels({"train": np.array(wrong)}, ("a", "b", "c"))


@pytest.mark.parametrize("wrong", [[0, 0.5], [0, np.nan]])
def test_numbers_that_are_not_whole(wrong):
    with pytest.raises(InputError, match="whole numbers"):
        encode_labels({"train": np.array(wrong)}, None)


def test_one_hot_becomes_integer_and_soft_stays():
    one_hot, names = encode_labels({"train": np.eye(3)[[2, 0]]}, None)
    assert names == ("0", "1", "2")
    assert one_hot["train"].tolist() == [2, 0]
    soft, _ = encode_labels({"train": np.array([[0.25, 0.75], [1, 0]])}, ("a", "b"))
    assert soft["train"].dtype == np.float32
    assert soft["train"].tolist() == [[0.25, 0.75], [1, 0]]


@pytest.mark.parametrize("row", [[0.5, 0.4], [1.5, -0.5], [1, 1], [np.nan, 1]])
def test_rows_that_do_not_sum_to_one(row):
    with pytest.raises(InputError, match="sum to 1 in each row"):
        encode_labels({"train": np.array([[1, 0], row])}, None)


def test_as_many_columns_as_class_names():
    with pytest.raises(InputError, match="3 class names"):
        encode_labels({"train": np.eye(2)}, ("a", "b", "c"))


def test_missing_text_labels():
    with pytest.raises(InputError, match="none missing"):
        encode_labels({"train": np.array(["a", None], dtype=object)}, None)


def test_bytes_are_text():
    _, names = encode_labels({"train": np.array([b"b", b"a"])}, None)
    assert names == ("a", "b")


def test_numbers_that_do_not_occur_are_no_classes():
    labels, names = encode_labels({"train": np.array([7, 3, 1001]), "test": np.array([3])}, None)
    assert names == ("3", "7", "1001")
    assert labels["train"].tolist() == [1, 0, 2]
    assert labels["test"].tolist() == [0]


def test_numbers_below_zero_are_no_labels():
    with pytest.raises(InputError, match=r"labels that are of at least 0. Received: -1"):
        encode_labels({"train": np.array([0, -1, 2])}, None)


def test_a_blank_does_not_make_another_class():
    with pytest.raises(InputError, match=r"Received: 'cat ' and without blanks"):
        encode_labels({"train": np.array(["cat", "cat ", "dog"])}, None)


def test_what_is_no_number_is_shown_with_its_place():
    with pytest.raises(InputError, match=r"Received: nan at place 2, one of 1 such"):
        encode_labels({"train": np.array([1.0, 2.0, np.nan, 3.0])}, None)
