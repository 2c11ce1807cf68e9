import numpy as np
import pytest
import tensorflow as tf

from kclassify.checks import InputError
from kclassify.data.arrays import load


def test_uint8_images_are_kept(labelled, config):
    images, labels = labelled(6)
    source = load((images, labels), config)
    train = source.splits["train"]
    assert np.array_equal(train.images, images)
    assert train.labels.tolist() == labels.tolist()
    assert train.ids[:2].tolist() == ["arrays/0", "arrays/1"]
    assert source.class_names == ("0", "1")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_other_numbers_become_the_same_uint8(labelled, config, kind):
    images, labels = labelled(6)
    source = load((images.astype(kind), np.asarray(labels)), config.replace(class_names=None))
    factor = 255 if kind != np.int64 and images.max() <= 1 else 1
    assert np.array_equal(source.splits["train"].images, images * factor)


def test_floats_up_to_one_are_scaled(config):
    images = (np.arange(256) / 255).astype(np.float32).reshape(1, 16, 16)
    found = load((images, [0]), config).splits["train"].images
    assert found.ravel().tolist() == list(range(256))
    assert found.shape == (1, 16, 16, 1)


def test_all_the_splits_have_one_scale(config):
    bright, dark = np.full((2, 4, 4, 3), 200.0), np.full((2, 4, 4, 3), 1.0)
    source = load({"train": (bright, [0, 1]), "test": (dark, [0, 1])}, config)
    assert source.splits["test"].images.max() == 1
    assert source.splits["test"].ids.tolist() == ["test/0", "test/1"]


def test_string_labels(labelled, config):
    images, _ = labelled(3)
    found = load((images, ["dog", "cat", "cat"]), config)
    assert found.splits["train"].labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.5), (-0.1, 0.5), (0.0, 256.0)])
def test_floats_out_of_range(config, low, high):
    images = np.full((2, 4, 4, 3), low)
    images[1] = high
    with pytest.raises(InputError, match=r"in \[0, 1\] or \[0, 255\]"):
        load((images, [0, 1]), config)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(config, value):
    images = np.zeros((2, 4, 4, 3))
    images[1, 2, 3, 0] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        load((images, [0, 1]), config)


def test_lengths_differ(labelled, config):
    images, labels = labelled(6)
    with pytest.raises(InputError, match="6 images and 5 labels"):
        load((images, labels[:5]), config)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_out_of_range(labelled, config, wrong):
    images, labels = labelled(6)
    labels = labels.copy()
    labels[0] = wrong
    with pytest.raises(InputError, match="from 0 to 2"):
        load((images, labels), config.replace(class_names=("a", "b", "c")))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2), (0, 4, 4, 3), (2, 3, 4, 4, 3)])
def test_shapes_that_are_no_images(config, shape):
    with pytest.raises(InputError, match="of the shape"):
        load((np.zeros(shape, np.uint8), np.zeros(shape[0], int)), config)


def test_ragged_and_textual_images(config):
    with pytest.raises(InputError, match="of one shape"):
        load(([np.zeros((4, 4)), np.zeros((5, 4))], [0, 1]), config)
    with pytest.raises(InputError, match="numbers"):
        load((np.full((2, 4, 4, 3), "a"), [0, 1]), config)


def test_mapping_keys_and_values(labelled, config):
    pair = labelled(4)
    assert set(load({"train": pair, "val": pair}, config).splits) == {"train", "validation"}
    with pytest.raises(InputError, match=r"'trian'\. Did you mean 'train'"):
        load({"trian": pair}, config)
    with pytest.raises(InputError, match="must have pairs"):
        load({"train": pair[0]}, config)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_tf_dataset_batched_or_not(labelled, config, batched, grey):
    images, labels = labelled(7)
    images = images[..., 0] if grey else images
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    source = load(dataset.batch(3) if batched else dataset, config)
    train = source.splits["train"]
    assert np.array_equal(train.images, images[..., np.newaxis] if grey else images)
    assert train.labels.tolist() == labels.tolist()


def test_tf_datasets_in_a_mapping_with_one_hot_labels(labelled, config):
    images, labels = labelled(4)
    dataset = tf.data.Dataset.from_tensor_slices((images, tf.one_hot(labels, 3)))
    source = load({"train": dataset, "test": dataset.batch(2)}, config)
    assert source.num_classes == 3
    assert source.splits["test"].labels.tolist() == labels.tolist()


def test_infinite_datasets_are_refused(labelled, config):
    dataset = tf.data.Dataset.from_tensor_slices(labelled(4))
    with pytest.raises(InputError, match="infinite"):
        load(dataset.repeat(), config)
    unknown = dataset.repeat().filter(lambda image, label: True)
    with pytest.raises(InputError, match="`memory_budget`"):
        load(unknown, config.replace(memory_budget="20KB"))


def test_datasets_that_are_no_pairs_or_empty_or_of_several_sizes(labelled, config):
    images, labels = labelled(4)
    with pytest.raises(InputError, match=r"dataset of \(image, label\)"):
        load(tf.data.Dataset.from_tensor_slices(images), config)
    with pytest.raises(InputError, match="empty dataset"):
        load(tf.data.Dataset.from_tensor_slices((images, labels)).take(0), config)
    sizes = tf.data.Dataset.range(2).map(lambda i: (tf.zeros((4 + i, 4, 3), tf.uint8), i))
    with pytest.raises(InputError, match="of one shape"):
        load(sizes, config)


def test_masks_are_black_and_white(config):
    images = np.arange(2 * 4 * 4).reshape(2, 4, 4) % 2 == 0
    found = load((images, [0, 1]), config).splits["train"].images
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 255}


@pytest.mark.parametrize("images", [np.full((2, 4, 4), 1.02), np.ones((2, 4, 4), np.uint8)])
def test_a_scale_that_is_in_doubt_is_refused(config, images):
    with pytest.raises(InputError, match=r"floats in \[0, 1\]. Received: values up to 1"):
        load((images, [0, 1]), config)


def test_a_dataset_of_single_images_may_not_know_its_channels(config):
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    dataset = tf.data.Dataset.from_generator(
        lambda: zip(images, [0, 1] * 3, strict=True),
        output_signature=(tf.TensorSpec((8, 8, None), tf.uint8), tf.TensorSpec((), tf.int64)),
    )
    found = load(dataset, config).splits["train"]
    assert np.array_equal(found.images, images)
    assert found.labels.tolist() == [0, 1] * 3
