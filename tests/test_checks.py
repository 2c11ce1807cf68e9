from pathlib import Path

import pytest

from kclassify.checks import (
    InputError,
    check_choice,
    listing,
    make_folder,
    nearest,
    parse_address,
    parse_bytes,
)


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 2**30), ("1.5 mb", 3 * 2**19), (100, 100), ("7B", 7)]
)
def test_sizes(text, size):
    assert parse_bytes("memory_budget", text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "lots", 0, "infGB", "nan"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="`memory_budget` must be a size"):
        parse_bytes("memory_budget", text)


@pytest.mark.parametrize(
    "text", ["node1", "node1:0", "node1:65536", ":4000", "a..b:4000", f"{'x' * 64}:1", "\ud800:1"]
)
def test_what_is_no_address(text):
    assert parse_address(text) is None
    assert parse_address("node-1.example:4000") == ("node-1.example", 4000)


def test_a_choice_names_the_list_and_the_nearest():
    with pytest.raises(InputError) as error:
        check_choice("model", "resnt", ["convnet", "resnet"])
    assert str(error.value) == (
        "`model` must be one of ['convnet', 'resnet']. Received: model='resnt'. "
        "Did you mean 'resnet'?"
    )
    assert nearest("qqq", ["convnet"]) == ""


def test_a_long_list_says_how_much_was_left_out():
    assert listing([str(n) for n in range(12)]).splitlines()[-1] == "... and 2 more"
    assert listing(["a", "b"]) == "a\nb"


def test_a_folder_that_the_system_refuses_is_a_mistake_in_the_argument(tmp_path):
    with pytest.raises(InputError, match=r"`out` must be a place where.*/proc/none/x"):
        make_folder("out", Path("/proc/none/x"))
    with pytest.raises(FileExistsError):
        make_folder("out", tmp_path)
    make_folder("out", tmp_path, exist_ok=True)
