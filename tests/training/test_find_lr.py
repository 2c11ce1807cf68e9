import numpy as np
import pandas as pd
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.training import find_lr
from kclassify.training.find_lr import HIGHEST, LOWEST, proposals


def curve(losses):
    rates = np.geomspace(LOWEST, HIGHEST, len(losses))
    return pd.DataFrame({"learning_rate": rates, "loss": losses, "smoothed": losses})


def test_the_rules_propose_what_they_say():
    # Flat, then down as a line of the rate's logarithm that is steepest at 50, then up.
    steps = np.arange(100)
    losses = 2.0 - 1.0 / (1.0 + np.exp(-(steps - 50) / 3.0)) + np.exp((steps - 85) / 3.0)
    table = curve(losses)
    found = proposals(table)
    least = table["learning_rate"][int(np.argmin(losses))]
    assert found["minimum/10"] == pytest.approx(least / 10)
    assert found["steepest"] == pytest.approx(table["learning_rate"][50])


@pytest.fixture
def options(tiny_options):
    return {name: value for name, value in tiny_options.items() if name != "epochs"}


def test_the_curve_and_the_table_are_written(tiny_arrays, options, tmp_path):
    found = kclassify.find_lr(tiny_arrays, steps=24, out="lr.png", **options)
    assert found.learning_rate == found.proposals["minimum/10"]
    assert "recommended" in str(found)
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "lr.csv")
    assert table["learning_rate"].iloc[0] == pytest.approx(LOWEST)
    assert (table["learning_rate"].diff().iloc[1:] > 0).all()
    assert len(table) == len(found.table) >= 20


def test_nothing_else_is_written(tiny_arrays, options, tmp_path):
    kclassify.find_lr(tiny_arrays, steps=20, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_nan_from_the_start_is_said(tiny_arrays, options):
    with pytest.raises(InputError, match="a number at small learning rates"):
        kclassify.find_lr(tiny_arrays, steps=20, class_weights={"0": 1e38}, loss="focal", **options)


def test_too_few_steps_before_the_loss_diverges_are_said():
    rows = [(10.0**power, 1.0, 1.0) for power in range(-6, 0)]
    with pytest.raises(
        InputError, match=r"`steps` must be enough .* after 6 steps, at the rate 0\.1"
    ):
        find_lr._check_enough(rows)
    with pytest.raises(InputError, match="a number at small learning rates"):
        find_lr._check_enough(rows[:1])
    find_lr._check_enough(rows * 4)


def test_the_default_is_two_passes_within_limits(tiny_arrays, options, monkeypatch):
    monkeypatch.setattr(find_lr, "LEAST_STEPS", 20)
    found = kclassify.find_lr(tiny_arrays, **{**options, "batch_size": 2})
    # Two passes over 39 images in pairs.
    assert 20 <= len(found.table) <= 38
    assert found.table["learning_rate"].iloc[1] == pytest.approx(LOWEST * 1e7 ** (1 / 37))


@pytest.mark.parametrize(("given", "expected"), [({}, 8), ({"batch_size": "auto"}, 8)])
def test_few_images_have_the_batches_that_fit_takes(tiny_arrays, options, given, expected):
    del options["batch_size"]
    found = kclassify.find_lr(tiny_arrays, steps=20, preset="fast", **options, **given)
    assert found.batch_size == expected


def test_what_is_held_out_changes_nothing(tiny_arrays, options):
    images, labels = tiny_arrays
    found = [
        kclassify.find_lr(
            {"train": (images[:40], labels[:40]), "validation": held_out, "test": held_out},
            steps=20,
            **options,
        )
        for held_out in ((images[40:], labels[40:]), (255 - images[40:], 2 - labels[40:]))
    ]
    assert np.allclose(found[0].table["loss"], found[1].table["loss"])


def test_quiet_is_quiet(tiny_arrays, options, capfd):
    kclassify.find_lr(tiny_arrays, steps=20, **options)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("steps", [3, 2.5, True])
def test_too_few_steps_are_refused(tiny_arrays, steps):
    with pytest.raises(InputError, match="`steps`"):
        kclassify.find_lr(tiny_arrays, steps=steps)


def test_a_curve_that_the_table_would_overwrite_is_refused():
    with pytest.raises(InputError, match=r"`out` must be the name of a PNG file"):
        kclassify.find_lr("no such data", out="curve.csv")


def test_a_place_that_cannot_be_written_is_refused_first():
    with pytest.raises(InputError, match="`out`"):
        kclassify.find_lr("no such data", out="no/such/folder/lr.png")


@pytest.mark.parametrize("taken", ["lr.png", "lr.csv"])
def test_nothing_is_overwritten(taken, tmp_path):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match="`out` must not exist yet"):
        kclassify.find_lr("digits", out="lr.png")
    assert (tmp_path / taken).read_text() == "mine"
