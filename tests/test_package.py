"""The public names: each exists, is documented, and its example runs."""

import doctest
import inspect
from importlib import import_module

import pytest

import kclassify


@pytest.mark.parametrize("name", kclassify.__all__)
def test_every_public_name_loads_and_is_documented(name):
    thing = getattr(kclassify, name)
    assert inspect.getdoc(thing)
    assert name in dir(kclassify)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="fti"):
        kclassify.fti  # noqa: B018


def test_the_two_lists_of_names_agree():
    assert sorted(kclassify._HOME) == sorted(kclassify.__all__)


@pytest.mark.parametrize(
    "name",
    [
        "FitConfig",
        "build_model",
        "evaluate",
        "export",
        "find_lr",
        "fit",
        "load",
        "make_datasets",
        "report",
    ],
)
def test_every_example_runs(name):
    module = import_module(kclassify._HOME[name])
    examples = doctest.DocTestFinder(recurse=False).find(getattr(module, name), name, globs={})
    assert examples
    assert examples[0].examples, f"{name} has no example"
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples[0])
    assert result.attempted > 0
    assert result.failed == 0
