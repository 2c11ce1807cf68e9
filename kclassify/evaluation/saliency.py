"""Where in an image a network sees a class: the methods, by name.

A map says how much each pixel speaks for the class, float32 ``(n, height, width)``. Only what is
above zero is kept, since what speaks against a class is another question.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from kclassify import runtime

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

AT_ONCE = 128
# A map of fewer points than this a side says too little about where.
LEAST_SIDE = 5
INTEGRATION_STEPS = 16
NOISY_COPIES, NOISE = 16, 0.15
# An occluding square's side as a share of the image's; it moves by half of itself.
OCCLUSION = 0.25

Maps = np.ndarray
Probability = Callable[[np.ndarray, np.ndarray], np.ndarray]


def on_floats(model: keras.Model) -> keras.Model:
    """Return `model` for float pixels, so that it has gradients, with its last feature map.

    The layers and weights are the model's own. The feature map is the last one of four dimensions
    that is at least 5x5, or the largest where all are smaller, nested models included.

    Args:
        model: a functional model of images of any type.

    Returns:
        A model from float32 ``(batch_size, height, width, channels)``, still from 0 to 255, to
        the feature map and the logits.

    Example:
        >>> from kclassify.evaluation.saliency import on_floats
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("convnet", input_shape=(16, 16, 3), num_classes=2, depth=2)
        >>> [tuple(shape) for shape in on_floats(model).output_shape]
        [(None, 8, 8, 64), (None, 2)]
    """
    maps: list[keras.KerasTensor] = []

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            inside, outputs = on_floats(layer)(args[0])
            maps.append(inside)
        else:
            outputs = layer(*args, **kwargs)
        # What is padded on one side alone is not where it was in the image.
        if not isinstance(layer, keras.layers.ZeroPadding2D):
            maps.extend(one for one in keras.tree.flatten(outputs) if len(one.shape) == 4)
        return outputs

    images = keras.Input(model.input_shape[1:], dtype="float32")
    copy = keras.models.clone_model(
        model, input_tensors=images, clone_function=lambda layer: layer, call_function=called
    )
    return keras.Model(copy.inputs, [_chosen(maps), copy.outputs[0]])


def _chosen(maps: list[keras.KerasTensor]) -> keras.KerasTensor:
    sides = [min(feature_map.shape[1:3]) for feature_map in maps]
    least = min(LEAST_SIDE, max(sides))
    return next(one for one, side in zip(maps[::-1], sides[::-1], strict=True) if side >= least)


def grad_cam(model: keras.Model, images: np.ndarray, class_ids: np.ndarray) -> Maps:
    """Return the channels of the last feature map, weighted by their gradients.

    Selvaraju et al. 2017, "Grad-CAM", but for this: a place has its own gradient, not the mean of
    all places (Draelos and Carin 2020, "HiResCAM"). The two are one where the features are averaged
    before the last layer; where they are flattened, or the map is an earlier one, the mean says
    nothing of the place. The map is as coarse as the features, and enlarged.

    Args:
        model: uint8 images to logits.
        images: uint8 ``(n, height, width, channels)``.
        class_ids: ``(n,)``, the class that is asked for.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.saliency import grad_cam
        >>> from kclassify.models.registry import build_model
        >>> model = build_model("convnet", input_shape=(16, 16, 3), num_classes=2, depth=2)
        >>> grad_cam(model, np.zeros((5, 16, 16, 3), "uint8"), np.zeros(5, int)).shape
        (5, 16, 16)
    """
    floats = on_floats(model)

    def of_batch(some: np.ndarray, ids: np.ndarray) -> np.ndarray:
        with tf.GradientTape() as tape:
            features, logits = floats(tf.cast(some, tf.float32), training=False)
            target = tf.reduce_sum(tf.gather(logits, ids, batch_dims=1))
        weights = tape.gradient(target, features)
        cam = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
        return tf.image.resize(tf.cast(cam, tf.float32), images.shape[1:3])[..., 0].numpy()

    return _in_batches(of_batch, images, class_ids)


def integrated_gradients(model: keras.Model, images: np.ndarray, class_ids: np.ndarray) -> Maps:
    """Return the gradients on the way from the mean colour to the image, times that way.

    Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"; the integral is taken at
    the middles of 16 steps. Arguments as of `grad_cam`.
    """
    floats = on_floats(model)
    baseline = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    way = images - baseline
    total = np.zeros(images.shape, np.float32)
    for step in range(INTEGRATION_STEPS):
        total += _gradients(floats, baseline + (step + 0.5) / INTEGRATION_STEPS * way, class_ids)
    return np.maximum((total * way).sum(axis=-1) / INTEGRATION_STEPS, 0)


def smooth_grad(model: keras.Model, images: np.ndarray, class_ids: np.ndarray) -> Maps:
    """Return the mean size of the gradients on noisy copies of the image.

    Smilkov et al. 2017, "SmoothGrad"; 16 copies, whose noise has a standard deviation of 15 % of
    the image's range and the same seed. Arguments as of `grad_cam`.
    """
    floats, rng = on_floats(model), np.random.default_rng(0)
    span = np.ptp(images, axis=(1, 2, 3), keepdims=True).astype(np.float32)
    total = np.zeros(images.shape, np.float32)
    for _ in range(NOISY_COPIES):
        noise = rng.standard_normal(images.shape, np.float32) * NOISE * span
        total += _gradients(floats, images + noise, class_ids) ** 2
    return total.sum(axis=-1) / NOISY_COPIES


def occlusion(model: keras.Model, images: np.ndarray, class_ids: np.ndarray) -> Maps:
    """Return how far the class's probability falls where a square of the mean colour is laid.

    Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks". A pixel has
    the mean of the squares that cover it. Arguments as of `grad_cam`.
    """
    height, width = images.shape[1:3]
    side = max(1, round(OCCLUSION * min(height, width)))
    grey = images.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    probability = class_probability(model)
    whole = probability(images, class_ids)
    falls, times = np.zeros(images.shape[:3], np.float32), np.zeros((height, width), np.float32)
    for top in _starts(height, side):
        for left in _starts(width, side):
            square = (slice(None), slice(top, top + side), slice(left, left + side))
            hidden = images.copy()
            hidden[square] = grey
            falls[square] += (whole - probability(hidden, class_ids))[:, None, None]
            times[square[1:]] += 1
    return np.maximum(falls / times, 0)


METHODS: dict[str, Callable[[keras.Model, np.ndarray, np.ndarray], Maps]] = {
    "grad_cam": grad_cam,
    "integrated_gradients": integrated_gradients,
    "smooth_grad": smooth_grad,
    "occlusion": occlusion,
}


def class_probability(model: keras.Model) -> Probability:
    """Return the function of images and class indices ``(n,)`` to the classes' probabilities."""

    @tf.function(reduce_retracing=True, autograph=False)
    def probabilities(images: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(model(images, training=False), tf.float32)
        return tf.gather(tf.nn.softmax(logits), ids, batch_dims=1)

    def of_batch(some: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return probabilities(tf.constant(some), tf.constant(ids, tf.int32)).numpy()

    return lambda images, class_ids: _in_batches(of_batch, images, class_ids)


def _gradients(floats: keras.Model, pixels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    def of_batch(some: np.ndarray, ids: np.ndarray) -> np.ndarray:
        inputs = tf.constant(some, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            logits = floats(inputs, training=False)[1]
            target = tf.reduce_sum(tf.gather(logits, ids, batch_dims=1))
        return tape.gradient(target, inputs).numpy()

    return _in_batches(of_batch, pixels, class_ids)


def _in_batches(
    of_batch: Callable[[np.ndarray, np.ndarray], np.ndarray],
    images: np.ndarray,
    class_ids: np.ndarray,
) -> np.ndarray:
    starts = range(0, len(images), AT_ONCE)
    parts = [of_batch(images[start : start + AT_ONCE], class_ids[start : start + AT_ONCE])
             for start in starts]  # fmt: skip
    return np.concatenate(parts)


def _starts(length: int, side: int) -> list[int]:
    """Return where squares begin, so that they cover all of `length` and overlap by half."""
    return sorted({*range(0, length - side, max(1, side // 2)), length - side})
