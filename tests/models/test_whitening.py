import numpy as np

from kclassify.models.registry import build_model
from kclassify.models.whitening import PATCH, set_whitening, whitening_kernel

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


def test_a_model_without_the_layer_is_left_alone():
    model = build_model("lenet", input_shape=(32, 32, 3), num_classes=3)
    before = model.get_weights()
    set_whitening(model, smooth_images())
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_widths_may_be_given_one_by_one():
    model = build_model("convnet", input_shape=(8, 8, 3), num_classes=3, filters=[4, 6])
    assert sorted({layer.filters for layer in model.layers if hasattr(layer, "filters")}) == [4, 6]
