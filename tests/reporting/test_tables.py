import numpy as np
import pandas as pd
import pytest

from kclassify.checks import InputError
from kclassify.reporting.tables import TEXTS, read_csv, read_tables
from kclassify.runs import read_json


def test_pairs_are_counted_from_the_confusion_matrix(run, class_names):
    tables = read_tables(run)
    wrong = tables.confusion - np.diag(np.diag(tables.confusion))
    first = tables.pairs[0]
    given, predicted = class_names.index(first.given), class_names.index(first.predicted)
    assert first.count == wrong.max() == wrong[given, predicted]
    assert first.share == pytest.approx(first.count / tables.confusion[given].sum())
    assert [pair.count for pair in tables.pairs] == sorted(wrong.ravel())[:-13:-1]


def test_mistakes_keep_their_order_and_form(run):
    mistakes = read_tables(run).mistakes
    assert mistakes[0].image.shape == (32, 32, 3)
    assert (mistakes[0].id, mistakes[0].given) == ("test/00000", "airplane")
    assert mistakes[0].probability == pytest.approx(0.999)


def test_history_has_the_epochs(run):
    assert read_tables(run).history["epoch"].tolist() == list(range(1, 9))


@pytest.mark.parametrize("name", ["metrics.json", "per_class.csv", "confusion.csv", "errors.npz"])
def test_missing_file_is_named(run, name):
    (run.path / name).unlink()
    with pytest.raises(InputError, match=f"without {name}"):
        read_tables(run)


@pytest.mark.parametrize("name", ["metrics.json", "per_class.csv", "confusion.csv", "errors.npz"])
def test_damaged_file_is_named(run, name):
    (run.path / name).write_bytes(b"")
    with pytest.raises(InputError, match=name):
        read_tables(run)


def test_metrics_of_other_weights_are_refused(run):
    run.write(run.metrics_file, {**read_json(run.metrics_file), "weights_sha256": "other"})
    with pytest.raises(InputError, match="metrics are of other weights"):
        read_tables(run)


def test_metrics_of_other_classes_are_refused(tmp_path, write_run, class_names):
    run = write_run(tmp_path / "run")
    other = write_run(tmp_path / "other", class_names[:4])
    run.table_file("confusion").write_bytes(other.table_file("confusion").read_bytes())
    with pytest.raises(InputError, match="metrics are of other classes"):
        read_tables(run)


def test_names_that_look_like_numbers_or_like_nothing_stay_names(tmp_path):
    table = pd.DataFrame({"id": ["007", "NA"], "given": ["00001", "None"], "label": ["1", "null"]})
    table.set_index("id").to_csv(tmp_path / "table.csv")
    found = read_csv(tmp_path / "table.csv", texts=TEXTS).reset_index()
    assert found.to_numpy().tolist() == table.to_numpy().tolist()


def test_a_history_that_is_not_there_cannot_be_had_by_evaluating(run):
    run.history_file.unlink()
    with pytest.raises(InputError, match=r"history\.csv', which is not there\. Restore it, or tr"):
        read_tables(run)
