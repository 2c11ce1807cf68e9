import shutil

import pytest

from kclassify.checks import InputError
from kclassify.data.folder import load
from kclassify.data.sources import load_source, prepare


def test_class_folders_alone(image_folder, config):
    source = load(str(image_folder), config)
    assert source.class_names == ("cat", "dog")
    assert list(source.splits) == ["train"]
    train = source.splits["train"]
    assert train.ids.tolist() == [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(6)]
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    assert train.images.image_size == (8, 8)
    assert train.images.channels == 3


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_splits_and_a_class_that_one_of_them_lacks(image_folder, tmp_path, config, validation):
    root = tmp_path / "split"
    shutil.copytree(image_folder, root / "train")
    shutil.copytree(image_folder / "dog", root / validation / "dog")
    shutil.copytree(image_folder / "dog", root / "test" / "emu")
    source = load(str(root), config)
    assert list(source.splits) == ["train", "validation", "test"]
    assert source.class_names == ("cat", "dog", "emu")
    assert set(source.splits["validation"].labels) == {1}
    assert set(source.splits["test"].labels) == {2}
    assert source.splits["test"].ids[0] == "test/emu/0.png"


def test_a_class_may_be_called_train(image_folder, config):
    (image_folder / "dog").rename(image_folder / "train")
    assert load(str(image_folder), config).class_names == ("cat", "train")


def test_other_files_are_passed_over(image_folder, config):
    (image_folder / "cat" / "notes.txt").write_text("x")
    (image_folder / "cat" / ".hidden.png").write_text("x")
    (image_folder / "cat" / ".thumbnails").mkdir()
    (image_folder / "cat" / ".thumbnails" / "1.png").write_text("x")
    (image_folder / ".git").mkdir()
    assert len(load(str(image_folder), config).splits["train"]) == 12


def test_missing_folder(config):
    with pytest.raises(InputError, match=r"`data` must be a folder"):
        load("nowhere", config)


def test_no_images(tmp_path, config):
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="with images in class folders"):
        load(str(tmp_path / "empty"), config)


def test_misspelt_split_folder(image_folder, tmp_path, config):
    root = tmp_path / "split"
    shutil.copytree(image_folder, root / "train")
    shutil.copytree(image_folder, root / "validaton")
    with pytest.raises(InputError, match="Did you mean 'validation'"):
        load(str(root), config)


def test_unreadable_images_are_listed(damaged_folder, config):
    folder, bad = damaged_folder
    with pytest.raises(InputError, match=r"`data` must have images that can be read") as error:
        load(str(folder), config)
    assert f"{len(bad)} of {12 + len(bad)}" in str(error.value)
    for path in bad:
        assert f"\n{path}: it" in str(error.value)


def test_unreadable_images_are_skipped_and_counted(damaged_folder, config):
    folder, bad = damaged_folder
    source = load(str(folder), config.replace(on_error="skip"))
    assert sorted(path for path, _ in source.skipped) == bad
    assert len(source.splits["train"]) == 12
    assert not set(bad) & set(source.splits["train"].ids)


def test_nothing_left_to_skip_to(tmp_path, config):
    (tmp_path / "all" / "cat").mkdir(parents=True)
    (tmp_path / "all" / "cat" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="1 of 1 that cannot"):
        load(str(tmp_path / "all"), config.replace(on_error="skip"))


def test_one_class_only(image_folder, config):
    shutil.rmtree(image_folder / "dog")
    with pytest.raises(InputError, match="at least two classes"):
        prepare(load_source(image_folder, config), config, verbose=False)
