import numpy as np
import pytest
import tensorflow as tf

from kclassify.data.images import resize_images
from kclassify.serving import signatures
from kclassify.serving.signatures import SIGNATURES, fitted, serving_functions


def any_size(images, image_size):
    """Ask as a served model does, which learns the size only from the images."""
    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    return tf.function(lambda x: fitted(x, image_size), input_signature=signature)(images)


def test_images_of_the_models_size_pass_the_resizer_by(images, monkeypatch):
    monkeypatch.setattr(signatures, "resize_images", lambda images, size: images[:, :1, :1] * 0)
    np.testing.assert_array_equal(any_size(images, (12, 10)), images)


@pytest.mark.parametrize("image_size", [(12, 5), (24, 10), (3, 30)])
def test_others_are_resized_as_in_training(images, image_size):
    found = any_size(images, image_size)
    assert found.dtype == tf.uint8
    np.testing.assert_array_equal(found, resize_images(images, image_size))


def test_every_signature_gives_the_same_probabilities(model, images, expected):
    functions = serving_functions(model, ["a", "b", "c", "d"])
    assert tuple(functions) == SIGNATURES
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    for name, given in zip(SIGNATURES, (images, tf.constant(encoded), images), strict=True):
        found = functions[name](given)["probabilities"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
