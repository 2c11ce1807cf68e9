import keras
import numpy as np

from kclassify.training.muon import ConvolutionMuon


def updated(kernel, gradient, **options):
    variable = keras.Variable(kernel)
    optimizer = ConvolutionMuon(
        learning_rate=0.1, weight_decay=0.0, adam_weight_decay=0.0, ns_steps=5, **options
    )
    optimizer.build([variable])
    optimizer.apply([keras.ops.convert_to_tensor(gradient)])
    return np.array(variable)


def test_a_kernel_keeps_its_norm_and_moves_by_an_orthogonal_matrix():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 4, 8)).astype("float32")
    gradient = rng.normal(size=kernel.shape).astype("float32")
    normed = kernel * np.sqrt(8) / np.linalg.norm(kernel)
    moved = (normed - updated(kernel, gradient)).reshape(-1, 8) / 0.1
    # Five iterations bring the singular values near 1, as the paper shows.
    values = np.linalg.svd(moved, compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # It goes where the gradient points.
    assert np.sum(moved * gradient.reshape(-1, 8)) > 0


def test_the_size_of_the_gradient_does_not_matter_to_a_kernel():
    rng = np.random.default_rng(0)
    kernel, gradient = rng.normal(size=(2, 3, 3, 4, 8)).astype("float32")
    np.testing.assert_allclose(
        updated(kernel, gradient), updated(kernel, 100 * gradient), atol=1e-4
    )


def test_other_weights_are_adams():
    moved = updated(np.ones(4, "float32"), np.array([1, -1, 1, 0], "float32"), adam_lr_ratio=0.5)
    np.testing.assert_allclose(moved, [0.95, 1.05, 0.95, 1.0], atol=1e-4)
