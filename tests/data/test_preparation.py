import numpy as np
import pytest
from PIL import Image

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data.pipeline import eval_dataset
from kclassify.data.preparation import as_trained, choose_size, prepare, to_memory
from kclassify.data.sources import load_source
from kclassify.data.spec import FileImages


def prepared(data, config):
    return prepare(load_source(data, config), config, verbose=False)


def test_files_that_fit_are_decoded(image_folder, config):
    source = prepared(image_folder, config)
    assert source.input_shape == (8, 8, 3)
    for part in source.splits.values():
        for image, id in zip(part.images, part.ids, strict=True):
            assert np.array_equal(image, np.asarray(Image.open(image_folder / id)))


def test_files_that_do_not_fit_stay_files_and_give_the_same_pixels(image_folder, config):
    decoded = prepared(image_folder, config)
    streamed = prepared(image_folder, config.replace(memory_budget="1KB"))
    assert streamed.input_shape == decoded.input_shape
    for split, part in streamed.splits.items():
        assert isinstance(part.images, FileImages)
        batches = [images for images, _ in eval_dataset(part, batch_size=4)]
        assert np.array_equal(np.concatenate(batches), decoded.splits[split].images)


@pytest.mark.parametrize(
    ("own", "wanted", "expected"),
    [
        ((96, 32), None, (96, 32)),
        ((97, 32), None, (64, 64)),
        (None, None, (64, 64)),
        ((8, 8), 16, (16, 16)),
    ],
)
def test_size_of_files(config, own, wanted, expected):
    assert choose_size(own, config.replace(image_size=wanted)) == expected


def test_files_of_several_sizes_are_brought_to_one(image_folder, config):
    Image.new("RGB", (20, 30)).save(image_folder / "cat" / "larger.png")
    assert prepared(image_folder, config).input_shape == (64, 64, 3)
    assert prepared(image_folder, config.replace(image_size=10)).input_shape == (10, 10, 3)


def test_channels_are_those_of_the_images_unless_given(image_folder, config):
    for path in image_folder.glob("*/*.png"):
        Image.open(path).convert("L").save(path)
    assert prepared(image_folder, config).input_shape == (8, 8, 1)
    assert prepared(image_folder, config.replace(channels=3)).input_shape == (8, 8, 3)


def test_arrays_keep_their_size_unless_given(labelled, config):
    pair = labelled(12, size=(100, 5))
    assert prepared(pair, config).input_shape == (100, 5, 3)
    assert prepared(pair, config.replace(image_size=6)).input_shape == (6, 6, 3)
    assert prepared(pair, config.replace(channels=1)).input_shape == (100, 5, 1)
    assert prepared(labelled(12, channels=4), config).input_shape == (8, 8, 3)


def test_splits_of_several_shapes_get_one(labelled, config):
    parts = {"train": labelled(12), "test": labelled(4, size=(9, 9), channels=1)}
    source = prepared(parts, config)
    assert {part.images.shape[1:] for part in source.splits.values()} == {(64, 64, 3)}


def test_batch_size_larger_than_the_training_images(labelled, config):
    with pytest.raises(InputError, match=r"`batch_size` must be at most .* 10"):
        prepared(labelled(14), config.replace(batch_size=11))


def test_a_file_that_only_tensorflow_cannot_decode_is_named(image_folder, config):
    source = load_source(image_folder, config)
    (image_folder / "cat" / "3.png").write_bytes(b"changed meanwhile")
    with pytest.raises(InputError, match=r"TensorFlow can decode.*cat/3\.png"):
        prepare(source, config, verbose=False)


def test_as_trained_maps_classes_by_name_and_shapes(image_folder, config):
    source = load_source(image_folder, config)
    names = ("ant", "dog", "cat")
    examples = as_trained(source, "train", class_names=names, input_shape=(4, 4, 1))
    assert set(examples.labels[:6]) == {2}
    assert set(examples.labels[6:]) == {1}
    decoded = to_memory(examples, config, verbose=False)
    assert decoded.images.shape == (12, 4, 4, 1)
    small = config.replace(memory_budget="1KB")
    wide = as_trained(source, "train", class_names=names, input_shape=(64, 64, 3))
    assert isinstance(to_memory(wide, small, verbose=False).images, FileImages)


def test_as_trained_refuses_other_classes(image_folder, config):
    source = load_source(image_folder, config)
    with pytest.raises(InputError, match=r"'cat'\. Did you mean 'cats'"):
        as_trained(source, "train", class_names=("cats", "dog"), input_shape=(8, 8, 3))


def test_as_trained_spreads_soft_labels(labelled, config):
    images, _ = labelled(2)
    named = config.replace(class_names=("a", "b"))
    source = load_source((images + 5, [[0.25, 0.75], [1, 0]]), named)
    kwargs = {"class_names": ("b", "x", "a"), "input_shape": (8, 8, 3)}
    examples = as_trained(source, "train", **kwargs)
    assert examples.labels.tolist() == [[0.75, 0, 0.25], [0, 0, 1]]


def test_a_class_with_a_share_of_soft_labels_is_trained(labelled, config):
    images, _ = labelled(4)
    train = [[0.6, 0.0, 0.4], [0.1, 0.6, 0.3], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]
    data = {"train": (images, train), "validation": (images[:2], [[0.1, 0.2, 0.7], [1, 0, 0]]),
            "test": (images[2:], train[:2])}  # fmt: skip
    assert prepared(data, config).num_classes == 3
    data["train"] = (images, [[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]] * 2)
    with pytest.raises(InputError, match=r"every class in train. Received: '2' in validation"):
        prepared(data, config)


def test_a_class_that_is_only_measured_is_refused(tiny_arrays):
    images, labels = tiny_arrays
    names = np.array(["cat", "dog", "Cat"])[labels]
    known = names != "Cat"
    data = {"train": (images[known], names[known]), "test": (images, names)}
    config = FitConfig(batch_size=4)
    with pytest.raises(InputError, match=r"every class in train. Received: 'Cat' in test alone"):
        prepare(load_source(data, config), config, verbose=False)
