import subprocess
import sys

import numpy as np
import pytest

from kclassify.checks import InputError
from kclassify.config import MIXING
from kclassify.data.augmentation import AUGMENTATIONS
from kclassify.data.pipeline import eval_dataset, plain_options, to_device, train_dataset
from kclassify.data.sources import load_source, prepare
from kclassify.data.spec import Examples, Share

OPTIONS = {"batch_size": 4, "epochs": 2, "seed": 0, "augmentation": "none"}


@pytest.fixture
def examples(labelled):
    images, labels = labelled(10)
    return Examples(images, labels.astype(np.int32), np.arange(10).astype(str))


@pytest.fixture
def streamed(image_folder, config):
    small = config.replace(memory_budget="1KB")
    return prepare(load_source(image_folder, small), small, verbose=False).splits["train"]


def indices(dataset):
    """The images' indices, which the fixture wrote into their pixels, a row a batch."""
    return np.array([images[:, 0, 0, 0].numpy() for images, _ in dataset])


def batches(dataset):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def same(first, second):
    pairs = zip(batches(first), batches(second), strict=True)
    return all(np.array_equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))


def test_an_epoch_takes_each_image_once(examples):
    found = indices(train_dataset(examples, **{**OPTIONS, "batch_size": 5, "epochs": 3}))
    assert found.shape == (6, 5)
    for epoch in found.reshape(3, 10):
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in found.reshape(3, 10)}) == 3


def test_the_last_partial_batch_is_dropped_in_training_alone(examples):
    found = indices(train_dataset(examples, **OPTIONS))
    assert found.shape == (4, 4)
    for epoch in found.reshape(2, 8):
        assert len(set(epoch)) == 8
    assert [len(labels) for _, labels in eval_dataset(examples, batch_size=4)] == [4, 4, 2]


def test_images_keep_their_labels(examples):
    for images, labels in train_dataset(examples, **OPTIONS):
        assert np.array_equal(images[:, 0, 0, 0].numpy() % 2, labels)
        assert labels.dtype == "int32"


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_two_passes_are_equal_and_seeds_differ(examples, augmentation):
    options = {**OPTIONS, "augmentation": augmentation, "num_classes": 2}
    dataset = train_dataset(examples, **options)
    assert same(dataset, dataset)
    assert same(dataset, train_dataset(examples, **options))
    assert not same(dataset, train_dataset(examples, **{**options, "seed": 1}))


def test_every_other_epoch_shows_an_image_the_other_way_round():
    images = np.zeros((20, 8, 8, 3), np.uint8)
    images[:, :, 4:] = 10 * np.arange(1, 21)[:, None, None, None]
    examples = Examples(images, np.arange(20, dtype=np.int32), np.arange(20).astype(str))
    options = {**OPTIONS, "batch_size": 20, "epochs": 4, "augmentation": "flip_crop"}
    ways = np.zeros((4, 20), bool)
    for epoch, (shown, labels) in enumerate(train_dataset(examples, **options)):
        ways[epoch, labels] = shown.numpy()[:, 4, 0, 0] > shown.numpy()[:, 4, 7, 0]
    assert (ways[0] != ways[1]).all()
    assert (ways[0] == ways[2]).all()
    assert 0 < ways[0].sum() < 20


@pytest.mark.parametrize("augmentation", ["none", "flip_crop", "cutmix"])
def test_position_is_the_step_alone(examples, augmentation):
    options = {**OPTIONS, "augmentation": augmentation, "num_classes": 2}
    whole = train_dataset(examples, **{**options, "epochs": 5})
    assert same(whole.take(4), train_dataset(examples, **options))
    assert batches(whole.skip(3))[0][0].tolist() == batches(whole)[3][0].tolist()


def test_files_stream_in_the_same_order_as_memory(streamed):
    images = np.concatenate([images for images, _ in eval_dataset(streamed, batch_size=4)])
    decoded = Examples(images, streamed.labels, streamed.ids)
    for augmentation in ("none", "flip_crop", "mixup"):
        options = {**OPTIONS, "augmentation": augmentation, "num_classes": 2}
        assert same(train_dataset(streamed, **options), train_dataset(decoded, **options))
    assert same(eval_dataset(streamed, batch_size=3), eval_dataset(decoded, batch_size=3))


def test_num_classes_gives_shares(examples):
    for dataset in (
        train_dataset(examples, **OPTIONS, num_classes=3),
        eval_dataset(examples, batch_size=4, num_classes=3),
    ):
        for images, labels in dataset:
            assert labels.dtype == "float32"
            assert labels.shape == (len(images), 3)
            assert np.array_equal(labels.numpy().argmax(1), images[:, 0, 0, 0].numpy() % 2)


def test_soft_labels_stay(examples):
    labels = np.full((10, 2), 0.5, np.float32)
    soft = Examples(examples.images, labels, examples.ids)
    assert (
        next(iter(train_dataset(soft, **OPTIONS, num_classes=2)))[1].numpy().tolist()
        == [[0.5, 0.5]] * 4
    )


@pytest.mark.parametrize("augmentation", MIXING)
def test_mixing_needs_shares(examples, augmentation):
    with pytest.raises(InputError, match="`num_classes`"):
        train_dataset(examples, **{**OPTIONS, "augmentation": augmentation})


def test_sizes_are_known_and_autotune_is_off(examples, streamed):
    for part in (examples, streamed):
        train = train_dataset(part, **OPTIONS)
        assert int(train.cardinality()) == 2 * (len(part) // 4)
        assert train.element_spec[0].shape == (4, 8, 8, 3)
        validation = eval_dataset(part, batch_size=4)
        assert int(validation.cardinality()) == -(-len(part) // 4)
        for dataset in (train, validation):
            assert dataset.options().autotune.enabled is False
            assert dataset.options().deterministic is True
    assert plain_options().autotune.enabled is False


def test_no_images_give_no_batches(examples):
    nothing = examples.take(np.array([], int))
    assert batches(eval_dataset(nothing, batch_size=4)) == []


def test_the_host_needs_no_transfer(examples):
    dataset = eval_dataset(examples, batch_size=4)
    assert to_device(dataset, "CPU:0") is dataset


def test_batches_land_on_another_device():
    code = """
from kclassify import runtime
runtime.prepare()
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kclassify.data.pipeline import to_device, train_dataset
from kclassify.data.spec import Examples, Share
examples = Examples(np.zeros((8, 8, 8, 3), "uint8"), np.zeros(8, "int32"), np.zeros(8, str))
dataset = train_dataset(examples, batch_size=4, epochs=2, seed=0, augmentation="flip_crop")
found = [(images.device, labels.device) for images, labels in to_device(dataset, "CPU:1")]
print(len(found), {device.rsplit("/", 1)[1] for pair in found for device in pair})
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "4 {'device:CPU:1'}"


def shares(count):
    return [Share(index, count) for index in range(count)]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_the_shares_of_a_batch_are_the_batch(examples, augmentation):
    num_classes = 10 if augmentation in MIXING else None
    options = {**OPTIONS, "augmentation": augmentation, "num_classes": num_classes, "start": 1}
    whole = batches(train_dataset(examples, **options))
    parts = [batches(train_dataset(examples, **options, share=share)) for share in shares(2)]
    for (images, labels), *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([half[0] for half in halves]), images)
        np.testing.assert_array_equal(np.concatenate([half[1] for half in halves]), labels)


def test_files_are_shared_as_memory_is(streamed):
    whole = indices(train_dataset(streamed, **OPTIONS))
    parts = [indices(train_dataset(streamed, **OPTIONS, share=share)) for share in shares(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize(("count", "batch_size"), [(2, 4), (3, 6), (3, 9), (4, 10)])
def test_shares_of_a_split_are_the_split_and_as_many_batches(
    examples, streamed, kind, count, batch_size
):
    split = {"memory": examples, "files": streamed}[kind]
    parts = [
        batches(eval_dataset(split, batch_size=batch_size, share=share)) for share in shares(count)
    ]
    sizes = [[len(labels) for _, labels in part] for part in parts]
    assert len({len(part) for part in sizes}) == 1
    assert min(map(min, sizes)) >= max(map(max, sizes)) - 1 >= 0
    assert min(map(min, sizes)) > 0
    shared = np.concatenate([images for step in zip(*parts, strict=True) for images, _ in step])
    whole = np.concatenate([images for images, _ in batches(eval_dataset(split, batch_size=4))])
    np.testing.assert_array_equal(shared, whole)
