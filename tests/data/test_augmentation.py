from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from kclassify.config import MIXING, Augmentation
from kclassify.data import augmentation
from kclassify.data.augmentation import AUGMENTATIONS

BATCH = 64


@pytest.fixture(params=[(32, 32, 3), (8, 8, 1), (4, 9, 3)], ids=str, scope="module")
def batch(request):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *request.param)).astype(np.uint8)
    return tf.constant(images), tf.one_hot(np.arange(BATCH) % 5, 5)


def apply(name, images, labels, seed):
    for change in AUGMENTATIONS[name]:
        images, labels = change(images, labels, tf.constant(seed, tf.int64))
    return images.numpy(), labels.numpy()


def test_the_names_are_those_that_the_configuration_takes():
    assert set(AUGMENTATIONS) == set(get_args(Augmentation))
    assert set(MIXING) < set(AUGMENTATIONS)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_contract_of_every_augmentation(batch, name):
    images, labels = apply(name, *batch, (0, 1))
    assert images.dtype == np.uint8
    assert images.shape == batch[0].shape
    assert labels.dtype == np.float32
    assert np.allclose(labels.sum(axis=1), 1, atol=1e-5)
    assert (labels >= 0).all()
    changed = not np.array_equal(labels, batch[1])
    assert changed == (name in MIXING)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_seed_decides(batch, name):
    first, again, other = (apply(name, *batch, seed) for seed in ((3, 1), (3, 1), (3, 2)))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert np.array_equal(first[0], other[0]) == (name == "none")


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_runs_in_a_graph_of_unknown_batch_size(name):
    shape, labels = (8, 8, 3), tf.TensorSpec((None, 5), tf.float32)
    seed = tf.TensorSpec((2,), tf.int64)

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.uint8), labels, seed])
    def run(images, labels, seed):
        for change in AUGMENTATIONS[name]:
            images, labels = change(images, labels, seed)
        return images

    images = np.random.default_rng(0).integers(0, 256, (6, *shape)).astype(np.uint8)
    once = run(images, tf.eye(6, 5), tf.constant((0, 1), tf.int64))
    assert np.array_equal(once, apply(name, tf.constant(images), tf.eye(6, 5), (0, 1))[0])


def test_crop_mirrors_those_that_it_is_told_to(batch):
    mirrored = np.arange(BATCH) % 3 == 0
    flipped = tf.where(mirrored[:, None, None, None], batch[0][:, :, ::-1], batch[0])
    images, _ = augmentation.crop(batch[0], None, (0, 0), mirrored=mirrored)
    assert np.array_equal(images, augmentation.crop(flipped, None, (0, 0))[0])


@pytest.mark.parametrize("name", augmentation.MIRRORING)
def test_what_mirrors_begins_with_the_crop_that_does_it(name):
    assert AUGMENTATIONS[name][0] is augmentation.crop


def test_crop_shifts_by_up_to_a_sixteenth():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None], (BATCH, 32, 32, 1))
    images, _ = augmentation.crop(tf.constant(ramp), None, (0, 0))
    middles = images.numpy()[:, 16, 16, 0].astype(int) - 16
    assert set(middles) == set(range(-2, 3))
    # The border is a reflection, so that there is no colour that the image does not have.
    assert images.numpy()[middles == 2][0, -1, 0, 0] == 31 - 2


def test_cutout_covers_at_most_a_square_of_a_quarter():
    images, _ = augmentation.cutout(tf.zeros((BATCH, 32, 32, 3), tf.uint8), None, (0, 0))
    covered = (images.numpy() == augmentation.MID_GREY).all(axis=-1).sum(axis=(1, 2))
    assert covered.max() == 8 * 8
    assert covered.min() >= 4 * 4
    assert len(set(covered)) > 1


def test_mixup_blends_pixels_and_labels_alike():
    values = np.array([0, 200] * (BATCH // 2), np.uint8)
    images = tf.constant(np.broadcast_to(values[:, None, None, None], (BATCH, 4, 4, 1)))
    mixed, labels = augmentation.mixup(images, tf.one_hot(values // 200, 2), (0, 0))
    assert np.abs(mixed.numpy()[:, 0, 0, 0] - labels.numpy()[:, 1] * 200).max() <= 0.51
    # Beta(0.2, 0.2) is near 0 or 1 for most.
    assert (np.abs(labels.numpy()[:, 1] - 0.5) > 0.4).mean() > 0.5


def test_cutmix_shares_are_the_areas():
    values = np.array([0, 200] * (BATCH // 2), np.uint8)
    images = tf.constant(np.broadcast_to(values[:, None, None, None], (BATCH, 16, 16, 1)))
    mixed, labels = augmentation.cutmix(images, tf.one_hot(values // 200, 2), (0, 0))
    areas = (mixed.numpy() == 200).mean(axis=(1, 2, 3))
    assert np.allclose(areas, labels.numpy()[:, 1], atol=1e-6)
    assert len(np.unique(areas)) > BATCH / 4


def test_randaugment_operations_do_what_they_say():
    pixels = tf.constant(np.arange(0, 256, 4, dtype=np.float32).reshape(1, 8, 8, 1))
    strength = tf.constant([augmentation.RANDAUGMENT_MAGNITUDE])

    def recoloured(name):
        choice = tf.constant([augmentation.COLOUR.index(name)])
        return augmentation._recolour(pixels, choice, strength).numpy()

    assert np.allclose(recoloured("brightness"), np.clip(pixels * 1.27, 0, 255), atol=1e-3)
    assert np.allclose(recoloured("saturation"), pixels)
    assert np.array_equal(recoloured("posterize") % 2, np.zeros((1, 8, 8, 1)))
    assert recoloured("solarize").max() < 256 * 0.7
    assert (recoloured("autocontrast").min(), recoloured("autocontrast").max()) == (0, 255)
    assert recoloured("contrast").std() > pixels.numpy().std()


def test_randaugment_leaves_images_without_a_geometric_change_in_place():
    pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)), tf.float32)
    strength = tf.constant([0.3, 0.3])
    choices = tf.constant([0, len(augmentation.GEOMETRIC)])
    matrix = augmentation._affine(choices, strength, (8, 8))
    assert np.allclose(augmentation._transform(pixels, matrix), pixels, atol=1e-3)
    turned = augmentation._affine(
        tf.constant([augmentation.GEOMETRIC.index("rotate")] * 2), strength, (8, 8)
    )
    assert not np.allclose(augmentation._transform(pixels, turned), pixels, atol=1)
