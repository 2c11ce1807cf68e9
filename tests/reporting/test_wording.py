import pytest
from markupsafe import Markup

from kclassify.reporting.wording import amount, duration, escape_markdown, setting, words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.99, "1 min 0 s"), (3599.9, "1 h 0 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (62_006, "62,006"), (1e6, "1 million"), (2.5e9, "2.5 billion")],
)
def test_amount(number, text):
    assert amount(number) == text


@pytest.mark.parametrize(
    ("name", "text"), [("loss", "Loss"), ("f1_macro", "F1, macro"), ("val_loss", "Validation loss")]
)
def test_words(name, text):
    assert words(name) == text


@pytest.mark.parametrize(
    ("value", "text"), [({}, "none"), (False, "False"), (0, "0"), ([], "none")]
)
def test_setting(value, text):
    assert setting(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a|b", r"a\|b"),
        ("a\r\nb\tc", "a b c"),
        (r"a\|b", r"a\\\|b"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("[x](y) `z` _w_", r"\[x\](y) \`z\` \_w\_"),
        (Markup("a|b"), "a|b"),
    ],
)
def test_markdown_is_escaped(value, text):
    assert escape_markdown(value) == text
