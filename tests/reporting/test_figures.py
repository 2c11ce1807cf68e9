import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from kclassify.reporting.figures import (
    confusion_figure,
    learning_curves,
    shorten,
    trade_off_figure,
)


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg).replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def history(epochs: int, **changes) -> pd.DataFrame:
    column = np.linspace(1, 0.5, epochs)
    names = ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate")
    table = pd.DataFrame(dict.fromkeys(names, column)).assign(**changes)
    return table.assign(epoch=np.arange(1, epochs + 1))


def texts(svg: str) -> list[str]:
    return [item.text for item in parse(svg).iter("text")]


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_curves_name_their_axes_and_units(epochs):
    loss, accuracy, rate = map(texts, learning_curves(history(epochs), best_epoch=1))
    assert "loss (nats)" in loss
    assert "accuracy (%)" in accuracy
    assert "learning rate" in rate
    assert {"train", "validation", "best epoch"} <= set(loss)
    assert all("epoch (passes over the training images)" in x for x in (loss, accuracy, rate))


def test_curves_of_a_loss_that_was_no_number():
    table = history(3, loss=[1.0, np.nan, np.inf])
    assert "loss (nats)" in texts(learning_curves(table, best_epoch=1)[0])


def test_confusion_has_every_count_and_name():
    confusion = np.array([[31, 2], [5, 47]])
    found = texts(confusion_figure(confusion, ["cat", "dog"]))
    assert {"31", "2", "5", "47", "cat", "dog"} <= set(found)


def test_perfect_and_empty_classes_are_drawn():
    assert "9" in texts(confusion_figure(np.array([[9, 0], [0, 0]]), ["cat", "dog"]))


@pytest.mark.parametrize("name", ["<script>", "$x_1$", "猫", "#0072b2", 'a" id="b', "a\nb"])
def test_names_are_text_in_the_drawing(name):
    found = texts(confusion_figure(np.eye(2, dtype=int), [name, "other"]))
    assert " ".join(name.split()) in found


def test_colours_are_left_to_the_page():
    svg = confusion_figure(np.array([[31, 2], [5, 47]]), ["cat", "dog"])
    assert "var(--blue)" in svg
    assert not re.findall(r"(?:fill|stroke): #", svg)


def test_ids_of_two_drawings_never_meet():
    drawings = learning_curves(history(3), best_epoch=2)
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in drawings]
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]
    for svg, own in zip(drawings, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= own


def test_drawing_the_same_twice_gives_the_same():
    assert learning_curves(history(3), best_epoch=2) == learning_curves(history(3), best_epoch=2)


def test_long_names_are_shortened():
    assert shorten("a\n b") == "a b"
    assert shorten("x" * 30) == "x" * 19 + "…"


@pytest.mark.parametrize("sizes", [(4.1, 0.9, 0.3), (0.3308, 0.3314, 0.33), (700.0, 1.0, 0.001)])
def test_the_trade_off_has_a_point_a_run_and_numbers_that_can_be_read(sizes):
    rows = [
        {"run": name, "megabytes": size, "accuracy": 0.9, "accuracy_low": 0.88,
         "accuracy_high": 0.92, "pareto": name != "worse"}
        for name, size in zip(("whole", "small", "worse"), sizes, strict=True)
    ]  # fmt: skip
    drawing = trade_off_figure(rows, chosen="small")
    written = texts(drawing)
    assert {"whole", "small", "worse", "file (MB)", "validation accuracy (%)"} <= set(written)
    # Mathematical text would be shown as it is spelt.
    assert not [text for text in written if "$" in text or "\\" in text]
    assert "small" in str(drawing)
    assert f"{sizes[1]:.2f} MB" in str(drawing)
