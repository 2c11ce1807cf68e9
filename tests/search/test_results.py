import keras_tuner
import pandas as pd
import pytest

import kclassify
from kclassify.search.board import Board
from kclassify.search.results import interval, table

OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")


def rows(values):
    return [{"trial": str(n), "val_accuracy": value, "seconds": 1.0, "run": "r"}
            for n, value in enumerate(values)]  # fmt: skip


def test_the_best_is_first_and_failures_are_last():
    found = table([*rows([0.5, 0.9]), {"trial": "2", "seconds": None}], OBJECTIVE, images=100)
    assert found["trial"].tolist() == ["1", "0", "2"]


def test_what_chance_may_explain_is_tied():
    found = table(rows([0.90, 0.895, 0.88, 0.5]), OBJECTIVE, images=5000)
    assert found["tied"].tolist() == [True, True, False, False]
    few = table(rows([0.90, 0.895, 0.88, 0.5]), OBJECTIVE, images=100)
    assert few["tied"].tolist() == [True, True, True, False]


def test_of_two_that_are_equal_the_cheaper_is_first():
    values = rows([0.9, 0.9])
    values[1]["seconds"] = 0.5
    assert table(values, OBJECTIVE, images=100)["trial"].tolist() == ["1", "0"]


def test_less_is_better_for_a_loss():
    loss = keras_tuner.Objective("val_loss", "min")
    values = [{"trial": "a", "val_loss": 2.0, "seconds": 1.0},
              {"trial": "b", "val_loss": 1.0, "seconds": 1.0}]  # fmt: skip
    assert table(values, loss, images=100)["trial"].tolist() == ["b", "a"]


def test_an_interval_of_nothing_and_all_stays_within_one():
    assert interval(0.0, 50)[0] == pytest.approx(0.0)
    assert interval(1.0, 50)[1] == pytest.approx(1.0)


def test_what_is_printed_names_ties_report_and_command(finished):
    text = str(finished)
    assert "images" in text
    assert "cannot be told apart" in text or "better than the others" in text
    assert f"report    {finished.folder}/report.html" in text
    assert text.splitlines()[-1].startswith("next: kclassify.fit(data, ")


def test_the_table_is_kept(finished):
    kept = pd.read_csv(finished.folder.trials_file, dtype={"trial": str})
    assert kept["trial"].tolist() == finished.trials["trial"].tolist()
    assert {"label_smoothing", "learning_rate", "val_accuracy", "tied"} <= set(kept)


def test_a_named_dataset_gets_a_command(capsys):
    found = kclassify.tune(
        "digits", tuner="random", max_trials=1, epochs=1, filters=4,
        space={"label_smoothing": [0.0, 0.2]},
    )  # fmt: skip
    assert found.command.startswith("kclassify fit digits --preset digits")
    shown = capsys.readouterr().out
    assert "search    random: 1 trials" in shown
    assert "trial 0: done, val_accuracy" in shown
    assert f"next: {found.command}" in shown


def test_the_board_shows_trials_in_work_by_their_history(finished):
    trial = finished.trials["trial"].iloc[0]
    rows = [
        {"trial": trial, "state": "unfinished", "epochs": None, "run": None, "filters": 4},
        {"trial": "9", "state": "failed", "epochs": None, "run": None, "filters": 8},
    ]
    board = Board(finished.folder, lambda: rows, objective=OBJECTIVE, left=lambda: 90.0)
    shown = board.table()
    board.console.width = 120
    with board.console.capture() as captured:
        board.console.print(shown)
    text = captured.get()
    assert "00:01:30 left" in text
    assert "unfinished" in text
    assert "failed" in text
    assert f"{finished.trials['val_accuracy'].iloc[0]:.2g}"[:3] in text
