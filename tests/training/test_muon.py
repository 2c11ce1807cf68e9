import keras
import numpy as np
import pytest

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
    kernel = 3.0 * rng.normal(size=(3, 3, 4, 8)).astype("float32")
    gradient = rng.normal(size=kernel.shape).astype("float32")
    # A gradient of very unlike directions, which only orthogonalizing makes equal.
    gradient *= np.geomspace(0.1, 10.0, 8, dtype="float32")
    norm, matrix = np.linalg.norm(kernel), kernel.reshape(-1, 8)
    left, _, right = np.linalg.svd(gradient.reshape(-1, 8), full_matrices=False)
    step = 0.1 * norm / np.sqrt(8)
    expected = matrix - step * left @ right
    expected *= norm / np.linalg.norm(expected)
    found = updated(kernel, gradient)
    assert np.linalg.norm(found) == pytest.approx(norm, rel=1e-4)
    # Five iterations bring the singular values to between 0.7 and 1.2, as the paper shows.
    assert np.linalg.norm(found.reshape(-1, 8) - expected, ord=2) < 0.35 * step


def test_depthwise_kernels_are_adams():
    kernel = np.ones((3, 3, 4, 1), "float32")
    moved = updated(kernel, kernel, adam_lr_ratio=0.5)
    np.testing.assert_allclose(moved, 0.95, atol=1e-4)


def test_the_size_of_the_gradient_does_not_matter_to_a_kernel():
    rng = np.random.default_rng(0)
    kernel, gradient = rng.normal(size=(2, 3, 3, 4, 8)).astype("float32")
    np.testing.assert_allclose(
        updated(kernel, gradient), updated(kernel, 100 * gradient), atol=1e-4
    )


def test_other_weights_are_adams():
    moved = updated(np.ones(4, "float32"), np.array([1, -1, 1, 0], "float32"), adam_lr_ratio=0.5)
    np.testing.assert_allclose(moved, [0.95, 1.05, 0.95, 1.0], atol=1e-4)
