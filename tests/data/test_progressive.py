import numpy as np
import pytest
import tensorflow as tf

from kclassify.data.images import resize_images
from kclassify.data.progressive import at_stage, growing, stage_of


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
    expected = resize_images(given[0], (4, 3))
    np.testing.assert_allclose(found[0][0].numpy() * 1.0, expected.numpy() * 1.0, atol=1)
    np.testing.assert_array_equal(found[3][0], given[3])
    assert [int(label) for _, label in found] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("scale", [0.01, 0.3])
def test_no_size_is_nothing(scale):
    dataset, _ = batches(1)
    ((images, _),) = growing(dataset, (scale,), steps=1)
    assert min(images.shape[1:3]) >= 1


def test_a_stage_is_looked_up_at_each_pass():
    dataset, given = batches(2)
    stage = tf.Variable(0, trainable=False)
    staged = at_stage(dataset, (0.5, 1.0), stage)
    assert [tuple(images.shape[1:3]) for images, _ in staged] == [(4, 3), (4, 3)]
    stage.assign(1)
    for (images, label), expected in zip(staged, given, strict=True):
        np.testing.assert_array_equal(images, expected)
        assert label.dtype == tf.int64


def test_stages_are_equal_parts():
    assert [int(stage_of(step, count=3, steps=7)) for step in range(9)] == [
        0, 0, 0, 1, 1, 2, 2, 2, 2,
    ]  # fmt: skip
