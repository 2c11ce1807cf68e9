import shutil
from functools import partial

import numpy as np
import pytest

import kclassify
from kclassify.config import FitConfig
from kclassify.data import shards
from kclassify.data.augmentation import AUGMENTATIONS
from kclassify.data.pipeline import eval_dataset, train_dataset
from kclassify.data.sources import load_source, prepare
from kclassify.data.spec import Share
from kclassify.data.windows import Windows, shuffled_batches

OPTIONS = {"batch_size": 8, "epochs": 3, "seed": 0}
# Windows of one step, of two, and of a whole epoch.
BUDGETS = ["5KB", "14KB", "200KB"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Images whose first two pixels say which they are, in files of about five."""
    images = np.random.default_rng(0).integers(0, 255, (256, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(256)
    out = tmp_path_factory.mktemp("windows") / "packed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 5 * (192 + shards.OVERHEAD))
        return kclassify.pack((images, np.arange(256) % 4), out, verbose=False).path


def loaded(packed, memory_budget):
    config = FitConfig(batch_size=8, memory_budget=memory_budget)
    return load_source(packed, config).splits["train"]


@pytest.fixture(scope="module")
def train(packed):
    return partial(loaded, packed)


def shown(examples, **options):
    """The images' indices, a row a step, once the images have been compared with them."""
    rows = []
    everything = examples.images.take(np.arange(len(examples)))
    for step, indices, images in shuffled_batches(examples.images, **{**OPTIONS, **options}):
        assert np.array_equal(images, everything[indices])
        rows.append((int(step), *indices.numpy().tolist()))
    return rows


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    return all(
        np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("budget", BUDGETS)
def test_an_epoch_has_each_image_once_and_an_order_of_its_own(train, budget):
    examples = train(budget)
    steps = len(examples) // 8
    rows = shown(examples)
    assert [row[0] for row in rows] == list(range(3 * steps))
    epochs = np.array(rows)[:, 1:].reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == steps * 8
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert shown(examples, seed=1) != rows == shown(examples)


def test_the_budgets_make_windows_of_several_lengths(train):
    found = [Windows.of(train(budget).images, batch_size=8) for budget in BUDGETS]
    assert [windows.steps for windows in found] == [1, 2, len(train("5KB")) // 8]
    assert found[-1].count == found[-1].share_of_epoch == 1


@pytest.mark.parametrize("budget", ["1KB", "7KB", "30KB", "1MB"])
def test_a_window_takes_a_third_of_the_memory_or_one_step(train, budget):
    images = train(budget).images
    windows = Windows.of(images, batch_size=8)
    record = images.sizes.sum() / len(images)
    assert windows.images * record <= images.memory / 3 or windows.steps == 1
    assert (windows.count - 1) * windows.steps < len(images) // 8 <= windows.count * windows.steps


def test_a_window_mixes_the_images_of_its_files(train):
    """Neighbours are no likelier to be of one file; of `index_shuffle`'s they are, nine times."""
    examples = train("200KB")
    ends = np.cumsum(examples.images.counts)
    order = np.concatenate([row[1:] for row in shown(examples, epochs=20)])
    files = np.searchsorted(ends, order, side="right")
    together = np.mean(files[1:] == files[:-1])
    counts, total = examples.images.counts, len(examples)
    expected = np.sum(counts * (counts - 1)) / (total * (total - 1))
    assert 0.7 < together / expected < 1.3


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("start", [1, 27])
def test_what_comes_before_the_start_is_left_out(train, budget, start):
    examples = train(budget)
    assert shown(examples)[start:] == shown(examples, start=start)


def test_what_comes_before_the_window_is_not_read(packed):
    examples = loaded(shutil.copytree(packed, "copy"), "5KB")
    steps = len(examples) // 8
    first, later = shown(examples, epochs=1)[0], shown(examples, epochs=1)[-1]
    ends = np.cumsum(examples.images.counts)
    only_first = set(np.searchsorted(ends, first[1:], side="right")) - set(
        np.searchsorted(ends, later[1:], side="right")
    )
    for file in only_first:
        path = examples.images.paths[file]
        with open(path, "r+b") as shard:
            shard.write(b"damaged damaged")
    dataset = shuffled_batches(examples.images, **{**OPTIONS, "epochs": 1}, start=steps - 1)
    assert [int(step) for step, *_ in dataset] == [steps - 1]


@pytest.mark.parametrize("budget", BUDGETS)
def test_shares_are_disjoint_and_together_the_whole(train, budget):
    count, examples = 2, train(budget)
    parts = [shown(examples, share=Share(index, count)) for index in range(count)]
    steps = len(examples) // 8
    for epoch in range(3):
        rows = [row for part in parts for row in part[epoch * steps : (epoch + 1) * steps]]
        taken = [image for row in rows for image in row[1:]]
        assert len(taken) == len(set(taken)) == steps * 8
    for index, part in enumerate(parts):
        assert shown(examples, share=Share(index, count), start=7) == part[7:]


def test_files_are_read_side_by_side_in_the_same_order(train):
    tight, loose = train("14KB").images, train("14KB").images
    vars(loose)["memory"] = tight.memory
    sequential = list(shuffled_batches(tight, **OPTIONS))
    from kclassify.data import windows

    loose.sizes[:] = tight.sizes
    before, windows.WAITING = windows.WAITING, 0
    try:
        parallel = list(shuffled_batches(loose, **OPTIONS))
    finally:
        windows.WAITING = before
    assert same(sequential, parallel)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_training_batches_are_a_function_of_the_step(train, augmentation):
    options = {**OPTIONS, "augmentation": augmentation, "num_classes": 4}
    whole = train_dataset(train("14KB"), **options)
    assert int(whole.cardinality()) == 3 * (len(train("14KB")) // 8)
    assert whole.element_spec[0].shape == (8, 8, 8, 3)
    later = train_dataset(train("14KB"), **options, start=30)
    assert same(list(whole)[30:], list(later))


def test_every_other_epoch_shows_an_image_the_other_way_round(train):
    examples = train("14KB")
    options = {**OPTIONS, "epochs": 2, "augmentation": "flip_crop"}
    turned = {}
    # Pixels at the border move with the crop; the labels of images are told by their index.
    for (_, indices, images), (changed, _) in zip(
        shuffled_batches(examples.images, **{**OPTIONS, "epochs": 2}),
        train_dataset(examples, **options),
        strict=True,
    ):
        for index, before, after in zip(indices.numpy(), images, changed, strict=True):
            straight, mirrored = (
                min(
                    np.abs(np.roll(one, (down, across), (0, 1))[2:6, 2:6].astype(int)
                           - after.numpy()[2:6, 2:6]).sum()
                    for down in (-1, 0, 1) for across in (-1, 0, 1)
                )
                for one in (before.numpy(), before.numpy()[:, ::-1])
            )  # fmt: skip
            assert min(straight, mirrored) == 0
            turned.setdefault(int(index), []).append(mirrored < straight)
    both = [ways for ways in turned.values() if len(ways) == 2]
    assert len(both) > 150
    assert all(first != second for first, second in both)
    assert 0.3 < np.mean([first for first, _ in both]) < 0.7


@pytest.mark.parametrize("num_classes", [None, 4])
def test_evaluation_is_in_order_and_the_same_as_in_memory(packed, num_classes):
    options = {"batch_size": 7, "num_classes": num_classes}
    small, large = (
        prepare(load_source(packed, config), config, verbose=False).splits["test"]
        for config in (FitConfig(memory_budget=budget) for budget in ("9KB", "1GB"))
    )
    first, second = (eval_dataset(part, **options) for part in (small, large))
    assert int(first.cardinality()) == int(second.cardinality())
    assert same(list(first), list(second))


def test_labels_come_from_the_examples(train):
    """A model with more classes takes packed labels as it takes others: changed, not read."""
    examples = train("14KB")
    changed = type(examples)(examples.images, np.asarray(examples.labels) + 1, examples.ids)
    pairs = zip(
        train_dataset(examples, **OPTIONS, augmentation="none"),
        train_dataset(changed, **OPTIONS, augmentation="none"),
        strict=True,
    )
    assert all(np.array_equal(first + 1, second) for (_, first), (_, second) in pairs)
