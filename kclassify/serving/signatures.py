"""What a served model can be asked: a function of images and one of encoded bytes."""

from collections.abc import Sequence
from typing import Any

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.images import decode_image, resize_images  # noqa: E402

OUTPUTS = ("probabilities", "class_id", "label")


def serving_functions(model: keras.Model, class_names: Sequence[str]) -> tuple[Any, Any]:
    """Return ``(serve_images, serve_bytes)``, two `tf.function`s with fixed signatures.

    Both bring images to the model's size by the resizer that training used, and call the model
    with ``training=False``: layers of random augmentation do nothing.

    Args:
        model: takes uint8 images `(batch_size, height, width, channels)` and returns logits.
        class_names: one name an output, in order.

    Returns:
        `serve_images`, of `images`, uint8 `(batch_size, any height, any width, channels)`, and
        `serve_bytes`, of `image_bytes`, encoded images `(batch_size,)`. Each returns the mapping
        `probabilities`, float32 `(batch_size, num_classes)`, `class_id`, int64 `(batch_size,)`,
        `label`, string `(batch_size,)`.
    """
    height, width, channels = input_shape = model.input_shape[1:]
    image = tf.TensorSpec(input_shape, tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, channels), tf.uint8, "images")])
    def serve_images(images):
        return _classify(model, resize_images(images, (height, width)), class_names)

    def decode(encoded):
        images = decode_image(encoded, channels=channels)[tf.newaxis]
        return tf.ensure_shape(resize_images(images, (height, width))[0], input_shape)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def serve_bytes(image_bytes):
        images = tf.map_fn(decode, image_bytes, fn_output_signature=image)
        return _classify(model, images, class_names)

    return serve_images, serve_bytes


def _classify(model: keras.Model, images: tf.Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    probabilities = tf.nn.softmax(tf.cast(model(images, training=False), tf.float32))
    class_id = tf.argmax(probabilities, axis=-1)
    # A constant in the graph: lookup tables can be left out of a SavedModel without a word.
    label = tf.gather(tf.constant(list(class_names)), class_id)
    return dict(zip(OUTPUTS, (probabilities, class_id, label), strict=True))
