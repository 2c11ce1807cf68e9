import numpy as np

from kclassify.data.selection import select

LOSSES = np.array([0.1, 3.0, 0.2, 1.0, 2.0, 0.3, 4.0, 0.4, 5.0, 6.0], np.float32)
OPTIONS = {"share": 0.4, "positions": 9, "seed": 0, "epoch": 2}


def test_the_smallest_losses_are_left_out_and_the_others_come_before_any_comes_again():
    found = select(LOSSES, **OPTIONS)
    assert found.shown == 6
    assert sorted(found.indices[:6]) == [1, 3, 4, 6, 8, 9]
    again = found.indices[6:]
    assert len(set(again)) == 3
    assert set(again) <= {1, 3, 4, 6, 8, 9}


def test_the_order_is_of_seed_and_epoch_alone():
    first = select(LOSSES, **OPTIONS).indices.tolist()
    assert first == select(LOSSES, **OPTIONS).indices.tolist()
    assert first != select(LOSSES, **{**OPTIONS, "epoch": 3}).indices.tolist()
    assert first != select(LOSSES, **{**OPTIONS, "seed": 1}).indices.tolist()


def test_what_was_never_seen_comes():
    losses = LOSSES.copy()
    losses[0] = np.inf
    assert 0 in select(losses, **OPTIONS).indices


def test_of_equal_losses_the_first_are_kept():
    found = select(np.ones(10, np.float32), **OPTIONS)
    assert set(found.indices) == set(range(6))


def test_an_image_is_left_where_nearly_all_are_left_out():
    assert set(select(LOSSES, **{**OPTIONS, "share": 0.99}).indices) == {9}
