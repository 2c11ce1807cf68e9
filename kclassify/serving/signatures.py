"""What a served model can be asked: functions of images of its own size, of any, and of files."""

from collections.abc import Sequence
from typing import Any

from kclassify import runtime
from kclassify.models.deciding import UNKNOWN, WITHHELD, Deciding

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.data.images import decode_image, resize_images  # noqa: E402

OUTPUTS = ("probabilities", "class_id", "label")
NOTHING_WITHHELD = Deciding()
SIGNATURES = ("serving_default", "serve_bytes", "probabilities")


def serving_functions(
    model: keras.Model, class_names: Sequence[str], *, deciding: Deciding = NOTHING_WITHHELD
) -> dict[str, Any]:
    """Return the `tf.function`s of `SIGNATURES`, each with a fixed input signature.

    They bring images to the model's size by the resizer that training used, and call the model
    with ``training=False``: layers of random augmentation do nothing.

    Args:
        model: takes uint8 images `(batch_size, height, width, channels)` and returns logits.
        class_names: one name an output, in order.
        deciding: when an answer is withheld, and sets of labels.

    Returns:
        `serving_default`, of `images`, uint8 `(batch_size, any height, any width, channels)`;
        `serve_bytes`, of `image_bytes`, encoded images `(batch_size,)`; `probabilities`, of
        `images` of the model's own size. The last answers with `probabilities` alone, float32
        `(batch_size, num_classes)`; the others add `class_id`, int64 `(batch_size,)`, and
        `label`, string `(batch_size,)`; and, where sets of labels are asked for, `label_set`, bool
        `(batch_size, num_classes)`. An answer that is withheld has -1 and "unknown".
    """
    image_size, channels = model.input_shape[1:3], model.input_shape[3]
    image = tf.TensorSpec(model.input_shape[1:], tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, channels), tf.uint8, "images")])
    def serve_images(images):
        return _classify(model, fitted(images, image_size), class_names, deciding)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def serve_bytes(image_bytes):
        images = tf.map_fn(
            lambda encoded: decoded(encoded, model.input_shape[1:]),
            image_bytes,
            fn_output_signature=image,
        )
        return _classify(model, images, class_names, deciding)

    functions = (serve_images, serve_bytes, probability_function(model))
    return dict(zip(SIGNATURES, functions, strict=True))


def probability_function(model: keras.Model) -> Any:
    """Return the `tf.function` of the signature `probabilities`."""

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8, "images")])
    def serve_probabilities(images):
        return {"probabilities": _probabilities(model, images)}

    return serve_probabilities


def decoded(encoded: tf.Tensor, input_shape: Sequence[int]) -> tf.Tensor:
    """Decode an image and bring it to `input_shape`, uint8 `(height, width, channels)`."""
    image = decode_image(encoded, channels=input_shape[2], least=max(input_shape[:2]))
    return fitted(image[tf.newaxis], input_shape[:2])[0]


def fitted(images: tf.Tensor, image_size: Sequence[int]) -> tf.Tensor:
    """Bring images to `(height, width)`, at no cost where they have it, as most that are served."""
    height, width = image_size
    fits = tf.reduce_all(tf.shape(images)[1:3] == (height, width))
    images = tf.cond(fits, lambda: images, lambda: resize_images(images, (height, width)))
    return tf.ensure_shape(images, (None, height, width, None))


def _classify(
    model: keras.Model, images: tf.Tensor, class_names: Sequence[str], deciding: Deciding
) -> dict[str, Any]:
    probabilities = _probabilities(model, images)
    class_id = tf.argmax(probabilities, axis=-1)
    # A constant in the graph: lookup tables can be left out of a SavedModel without a word.
    label = tf.gather(tf.constant(list(class_names)), class_id)
    if deciding.threshold:
        answered = tf.reduce_max(probabilities, axis=-1) >= deciding.threshold.probability
        class_id = tf.where(answered, class_id, WITHHELD)
        label = tf.where(answered, label, UNKNOWN)
    outputs = dict(zip(OUTPUTS, (probabilities, class_id, label), strict=True))
    if deciding.label_sets:
        outputs["label_set"] = probabilities >= deciding.label_sets.least_probability
    return outputs


def _probabilities(model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(tf.cast(model(images, training=False), tf.float32))
