"""What is read from the graph; that it is right is seen in `test_narrowing.py`, by the answers."""

import numpy as np

from kclassify.compression.channels import channel_groups, channels_of, in_order
from kclassify.models.registry import build_model


def resnet():
    return build_model("resnet", input_shape=(8, 8, 3), num_classes=3, depth=8, filters=6)


def test_what_is_added_together_goes_together():
    channels = channels_of(resnet())
    groups = channel_groups(channels)
    # A stage of one block: its stream has the shortcut or the stem, and the second convolution.
    found = sorted((len(group), len(group.producers)) for group in groups)
    assert found == [(6, 1), (6, 2), (12, 1), (12, 2), (24, 1), (24, 2)]


def test_each_output_of_a_group_has_its_place():
    channels = channels_of(resnet())
    for group in channel_groups(channels):
        for name, places in zip(group.producers, group.places, strict=True):
            made = channels.roots(channels.outputs[name])
            assert np.array_equal(group.channels[places], made)


def test_what_reads_comes_after_what_is_read():
    sources = {"d": ["b", "c"], "c": ["a"], "b": ["a"], "a": []}
    order = in_order(sources)
    assert sorted(order) == ["a", "b", "c", "d"]
    assert all(order.index(read) < order.index(name) for name in sources for read in sources[name])
