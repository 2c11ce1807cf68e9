import shutil
from pathlib import Path

import numpy as np
import pytest

import kclassify
from kclassify.checks import InputError
from kclassify.compression.clipping import check_shares, choose_share, clipped, rounded
from kclassify.compression.parent import open_parent
from kclassify.compression.pruning import kernels
from kclassify.models.registry import build_model
from kclassify.runs import Run


def network():
    return build_model("convnet", input_shape=(8, 8, 3), num_classes=3, filters=8, depth=2)


def test_each_kernel_is_clipped_at_its_own_quantile_and_nothing_else_is_changed():
    model = network()
    small = clipped(model, share=0.9)
    for before, after in zip(kernels(model), kernels(small), strict=True):
        limit = np.quantile(np.abs(before.numpy()), 0.9)
        np.testing.assert_allclose(after.numpy(), np.clip(before.numpy(), -limit, limit), atol=1e-7)
    others = [(a, b) for a, b in zip(model.weights, small.weights, strict=True)
              if "kernel" not in a.name]  # fmt: skip
    assert others
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in others)


def test_rounded_kernels_have_no_more_values_a_channel_than_8_bits():
    model = build_model("convnet", input_shape=(8, 8, 3), num_classes=3, filters=64, depth=2)
    small = rounded(model)
    for before, after in zip(kernels(model), kernels(small), strict=True):
        whole, columns = (k.numpy().reshape(-1, k.shape[-1]) for k in (before, after))
        assert all(len(np.unique(column)) <= 255 for column in columns.T)
        step = np.abs(whole).max(axis=0) / 127
        assert (np.abs(whole - columns) <= 0.501 * step).all()
        assert not np.array_equal(whole, columns)


def test_the_share_that_is_best_in_8_bits_is_chosen_among_those_that_keep_the_accuracy(tiny_run):
    parent = open_parent(tiny_run, data=None, verbose=False)
    share, table = choose_share(parent, shares=[0.9, 0.3], max_drop=0.1)
    assert table["share"].tolist() == [1.0, 0.9, 0.3]
    assert table["largest"].is_monotonic_decreasing
    kept = table[table["accuracy"] >= table["accuracy"].iloc[0] - 0.1]
    assert share in kept["share"].tolist()
    assert kept.set_index("share")["accuracy_int8"][share] == kept["accuracy_int8"].max()


def test_the_run_has_the_sweep(tiny_run, no_measuring):
    parent = Run(Path(shutil.copytree(tiny_run.path, "parent")), tiny_run.source)
    run = kclassify.compress(
        parent, technique="clip", shares=[0.9], run_dir="clipped", verbose=False
    ).run
    header = run.table_file("clip").read_text().splitlines()[0]
    assert header == "share,largest,accuracy,accuracy_int8,accuracy_noise"


@pytest.mark.parametrize("shares", [[], [1.0], [0], "all", 0.9, [0.5, "x"]])
def test_shares_that_are_none_are_named(shares):
    with pytest.raises(InputError, match="`shares` must be numbers between 0 and 1"):
        check_shares(shares)
