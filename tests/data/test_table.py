import pandas as pd
import pytest

from kclassify.checks import InputError
from kclassify.data.table import column, load


@pytest.fixture
def table(image_folder):
    rows = [(f"{name}/{i}.png", name) for name in ("dog", "cat") for i in range(6)]
    return pd.DataFrame(rows, columns=["path", "label"])


def written(table, image_folder):
    path = image_folder / "list.csv"
    table.to_csv(path, index=False)
    return str(path)


def test_csv_paths_start_at_its_folder(table, image_folder, config):
    source = load(written(table, image_folder), config)
    assert source.class_names == ("cat", "dog")
    assert source.splits["train"].ids.tolist() == table["path"].tolist()
    assert source.splits["train"].labels.tolist() == [1] * 6 + [0] * 6


def test_frame_paths_start_at_the_working_folder(table, image_folder, config, monkeypatch):
    monkeypatch.chdir(image_folder)
    assert len(load(table, config).splits["train"]) == 12


def test_splits(table, image_folder, config):
    table["split"] = ["train", "train", "train", "train", "validation", "test"] * 2
    source = load(written(table, image_folder), config)
    assert {name: len(part) for name, part in source.splits.items()} == {
        "train": 8,
        "validation": 2,
        "test": 2,
    }


def test_whole_number_labels(table, image_folder, config):
    table["label"] = [10] * 6 + [9] * 6
    source = load(written(table, image_folder), config)
    assert source.class_names == ("9", "10")
    table["label"] = [1] * 6 + [0] * 6
    named = load(written(table, image_folder), config.replace(class_names=("a", "b", "c")))
    assert named.class_names == ("a", "b", "c")


def test_a_class_called_none(table, image_folder, config):
    table["label"] = ["None"] * 6 + ["cat"] * 6
    assert load(written(table, image_folder), config).class_names == ("None", "cat")


@pytest.mark.parametrize("column", ["path", "label"])
def test_missing_column(table, image_folder, config, column):
    renamed = table.rename(columns={column: column + "s"})
    with pytest.raises(InputError, match=f"Did you mean '{column}s'"):
        load(written(renamed, image_folder), config)


def test_a_row_with_more_cells_than_the_header_is_refused(table, image_folder, config):
    path = image_folder / "wide.csv"
    rows = [f"{name},{label},yes" for name, label in table.itertuples(index=False)]
    path.write_text("\n".join(["path,label", *rows]))
    with pytest.raises(InputError, match="more cells than its header"):
        load(str(path), config)


def test_missing_value(table, image_folder, config):
    table.loc[2, "label"] = None
    with pytest.raises(InputError, match="1 rows without"):
        load(written(table, image_folder), config)


def test_missing_files_are_listed(table, image_folder, config):
    table.loc[2, "path"] = "dog/lost.png"
    with pytest.raises(InputError, match=r"(?s)files that exist.*1 of 12.*lost\.png"):
        load(written(table, image_folder), config)


def test_unknown_split(table, image_folder, config):
    table["split"] = ["train"] * 11 + ["tset"]
    with pytest.raises(InputError, match=r"'tset'\. Did you mean 'test'"):
        load(written(table, image_folder), config)


def test_no_rows_and_no_table(table, image_folder, config, tmp_path):
    with pytest.raises(InputError, match="no rows"):
        load(written(table[:0], image_folder), config)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="must be a CSV file"):
        load(str(tmp_path / "empty.csv"), config)


def test_unreadable_images_are_listed_and_skipped(damaged_folder, config):
    folder, bad = damaged_folder
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    table = pd.DataFrame({"path": paths, "label": [path[:3] for path in paths]})
    with pytest.raises(InputError, match=r"truncated.jpg: it is damaged"):
        load(written(table, folder), config)
    source = load(written(table, folder), config.replace(on_error="skip"))
    assert sorted(path for path, _ in source.skipped) == bad


def test_a_column_has_the_ids_of_the_images(table, image_folder, config):
    table["camera"] = [f"camera {place % 2}" for place in range(12)]
    path = written(table, image_folder)
    found = column(path, "camera")
    assert found.index.tolist() == load(path, config).splits["train"].ids.tolist()
    assert found.tolist() == table["camera"].tolist()


def test_an_image_that_is_listed_twice_has_one_value(table):
    table["camera"] = "a"
    twice = pd.concat([table, table.head(1)])
    assert len(column(twice, "camera")) == 12
    twice["camera"] = ["a"] * 12 + ["b"]
    with pytest.raises(InputError, match="one thing of each image in the column 'camera'"):
        column(twice, "camera")


def test_a_column_that_is_not_there_names_the_nearest(table):
    table["camera"] = "a"
    with pytest.raises(InputError, match="Did you mean 'camera'"):
        column(table, "kamera")
