import numpy as np
import pytest

from kclassify.config import FitConfig
from kclassify.data.sources import load_source, prepare
from kclassify.models.registry import build_model
from kclassify.models.whitening import PATCH, has_whitening, set_whitening, whitening_kernel
from kclassify.training import session

RNG = np.random.default_rng(0)


def smooth_images(channels=3):
    """Images whose neighbouring pixels are alike, as those of photographs."""
    coarse = RNG.integers(0, 256, (200, 5, 5, channels)).repeat(2, axis=1).repeat(2, axis=2)
    return np.clip(coarse[:, :8, :8] + RNG.integers(-30, 30, (200, 8, 8, channels)), 0, 255).astype(
        np.uint8
    )


def test_the_answers_on_the_images_are_white():
    images = smooth_images()
    kernel = whitening_kernel(images)
    windows = np.lib.stride_tricks.sliding_window_view(
        images.astype("float32") / 127.5 - 1, (PATCH, PATCH), axis=(1, 2)
    )
    answers = np.einsum("nyxchw,hwcf->nyxf", windows, kernel).reshape(-1, 12)
    covariance = np.cov(answers, rowvar=False)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.01
    np.testing.assert_allclose(np.diag(covariance), 1, atol=0.1)


def test_the_layer_of_a_model_holds_the_filters_and_their_negatives_frozen():
    images = smooth_images(channels=1)
    model = build_model("fastnet", input_shape=(8, 8, 1), num_classes=3, filters=(4, 8))
    set_whitening(model, images)
    layer = model.get_layer("whitening")
    kernel = np.asarray(layer.kernel)
    assert kernel.shape == (2, 2, 1, 8)
    np.testing.assert_allclose(kernel[..., :4], whitening_kernel(images), rtol=1e-6)
    np.testing.assert_array_equal(kernel[..., 4:], -kernel[..., :4])
    assert not [weight for weight in model.trainable_variables if "whitening" in weight.path]


@pytest.mark.parametrize(("name", "expected"), [("fastnet", [12]), ("convnet", [])])
def test_images_are_read_for_the_layer_alone_and_fewer_of_large_ones(
    name, expected, tiny_arrays, monkeypatch
):
    read = []
    first_images = session.first_images

    def counted(examples, count):
        found = first_images(examples, count)
        read.append(len(found))
        return found

    monkeypatch.setattr(session, "first_images", counted)
    monkeypatch.setattr(session, "WHITENING_PIXELS", 12 * 8 * 8)
    config = FitConfig(model=name, model_args={"filters": (8,)}, batch_size=8)
    source = prepare(load_source(tiny_arrays, config), config, verbose=False)
    network = session.build_session(source, config).network
    assert read == expected
    assert has_whitening(network) == bool(expected)


def test_widths_may_be_given_one_by_one():
    model = build_model("convnet", input_shape=(8, 8, 3), num_classes=3, filters=[4, 6])
    assert sorted({layer.filters for layer in model.layers if hasattr(layer, "filters")}) == [4, 6]
