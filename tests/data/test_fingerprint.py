from dataclasses import replace

import numpy as np
import pytest

from kclassify import FitConfig
from kclassify.data.fingerprint import fingerprint
from kclassify.data.sources import load_source, prepare


@pytest.fixture(scope="module")
def source():
    config = FitConfig()
    return prepare(load_source("digits", config), config, verbose=False)


def test_the_same_data_has_the_same_fingerprint(source):
    config = FitConfig()
    again = prepare(load_source("digits", config), config, verbose=False)
    assert fingerprint(source) == fingerprint(again)
    assert len(fingerprint(source)) == 64


@pytest.mark.parametrize("part", ["images", "labels", "ids"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_any_change_is_seen(source, split, part):
    examples = source.splits[split]
    values = getattr(examples, part).copy()
    values[3] = "other" if part == "ids" else (values[3] + 1) % 10
    changed = replace(source, splits={**source.splits, split: replace(examples, **{part: values})})
    assert fingerprint(changed) != fingerprint(source)


def test_names_and_order_count(source):
    assert fingerprint(replace(source, class_names=source.class_names[::-1])) != fingerprint(source)
    train = source.splits["train"]
    turned = train.take(np.arange(len(train))[::-1])
    assert fingerprint(replace(source, splits={**source.splits, "train": turned})) != fingerprint(
        source
    )
