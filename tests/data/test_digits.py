import numpy as np

from kclassify.data.digits import load


def test_all_the_digits_on_the_whole_scale(config):
    source = load("digits", config)
    train = source.splits["train"]
    assert train.images.shape == (1797, 8, 8, 1)
    assert train.images.dtype == np.uint8
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert len(np.unique(train.images)) == 17
    assert source.class_names == tuple("0123456789")
    assert len(set(train.ids)) == 1797
