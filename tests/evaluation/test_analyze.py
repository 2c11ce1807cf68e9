import pandas as pd
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.evaluation import features, subject
from kclassify.evaluation.analyze import ANALYSES, USUAL, analyze


def counted(monkeypatch, module, name):
    """Let each call of a function of `module` be counted."""
    calls, original = [], getattr(module, name)

    def count(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, count)
    return calls


def test_the_model_is_opened_once_and_finds_what_each_part_finds_alone(run, others, monkeypatch):
    opened = counted(monkeypatch, subject, "load_run_model")
    asked = counted(monkeypatch, features, "outputs_of")
    parts = ("learned", "slices", "out_of_distribution")
    found = analyze(run, parts=parts, data=others, verbose=False)
    assert list(found) == list(parts)
    assert len(opened) == 1
    # Two parts ask for the training images.
    sizes = [len(examples) for _, examples in asked]
    assert sizes.count(len(run.source.splits["train"])) == 1
    alone = kclassify.evaluation.out_of_distribution.out_of_distribution(
        run, data=others, verbose=False
    )
    pd.testing.assert_frame_equal(alone.table, found["out_of_distribution"].table)
    for part in parts:
        assert run.analysis_file(part).is_file()


def test_options_reach_their_part(run, others):
    options = {"out_of_distribution": {"images": 7}}
    found = analyze(run, parts="out_of_distribution", options=options, data=others, verbose=False)
    assert found["out_of_distribution"].images == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parts": ["slice"]}, "Did you mean 'slices'"),
        ({"parts": []}, "at least one"),
        ({"options": {"costs": {}}}, "Did you mean 'cost'"),
    ],
)
def test_a_users_mistake_is_said(tiny_run, given, message):
    with pytest.raises(InputError, match=message):
        analyze(tiny_run, **given, verbose=False)


def test_all_but_robustness_is_usual():
    assert set(ANALYSES) - set(USUAL) == {"robustness"}
