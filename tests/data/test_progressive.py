import numpy as np
import pytest
import tensorflow as tf

from kclassify.data.images import resize_images
from kclassify.data.progressive import growing


def batches(count=5, size=(8, 6)):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 2, *size, 3), dtype=np.uint8)
    return tf.data.Dataset.from_tensor_slices((images, np.arange(count))), images


def test_each_size_has_an_equal_part_and_the_last_one_what_comes_after():
    dataset, _ = batches()
    sizes = [tuple(images.shape[1:3]) for images, _ in growing(dataset, (0.5, 1.0), steps=4)]
    assert sizes == [(4, 3), (4, 3), (8, 6), (8, 6), (8, 6)]


def test_images_are_resized_as_everywhere_else_and_labels_kept():
    dataset, given = batches()
    found = list(growing(dataset, (0.5, 1.0), steps=4))
    np.testing.assert_array_equal(found[0][0], resize_images(given[0], (4, 3)))
    np.testing.assert_array_equal(found[3][0], given[3])
    assert [int(label) for _, label in found] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("scale", [0.01, 0.3])
def test_no_size_is_nothing(scale):
    dataset, _ = batches(1)
    ((images, _),) = growing(dataset, (scale,), steps=1)
    assert min(images.shape[1:3]) >= 1
