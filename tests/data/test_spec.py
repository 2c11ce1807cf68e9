import numpy as np
import pytest

from kclassify.data.spec import Examples, FileImages, Source


def files(count):
    return FileImages(np.array([f"{index}.png" for index in range(count)]))


def test_take_keeps_images_labels_and_ids_together():
    examples = Examples(files(4), np.arange(4, dtype=np.int32), np.array(list("abcd")))
    taken = examples.take(np.array([3, 1]))
    assert taken.images.paths.tolist() == ["3.png", "1.png"]
    assert taken.labels.tolist() == [3, 1]
    assert taken.ids.tolist() == ["d", "b"]
    assert len(taken) == 2


def test_some_are_from_all_over():
    examples = Examples(files(90), np.arange(90, dtype=np.int32) // 30, np.arange(90).astype(str))
    some = examples.some(12, seed=1)
    assert len(some) == 12
    assert set(some.labels) == {0, 1, 2}
    assert (np.diff(some.ids.astype(int)) > 0).all()
    assert some.ids.tolist() == examples.some(12, seed=1).ids.tolist()
    assert examples.some(90, seed=1) is examples


def test_class_ids_of_soft_labels_are_the_largest_shares():
    labels = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    examples = Examples(np.zeros((2, 4, 4, 1), np.uint8), labels, np.array(["a", "b"]))
    assert examples.soft
    assert examples.class_ids.tolist() == [1, 0]
    assert examples.class_ids.dtype == np.int32


def test_input_shape_of_files_is_known_once_prepared():
    examples = Examples(files(1), np.zeros(1, np.int32), np.array(["a"]))
    with pytest.raises(ValueError, match="until they are prepared"):
        _ = Source("x", {"train": examples}, ("a",)).input_shape
    ready = FileImages(examples.images.paths, (4, 6), 1)
    assert Source("x", {"train": Examples(ready, *[None] * 2)}, ("a",)).input_shape == (4, 6, 1)
