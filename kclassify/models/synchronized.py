"""Batch normalization over the batch of all replicas, by TensorFlow's fused kernels.

Its statistics are those of the whole batch, so several devices learn what one learns from it. Keras
does the same with a dozen operations; here the kernels do the passes over the images, and what
replicas tell each other are two vectors forward and two back.
"""

from kclassify import runtime

runtime.prepare()

import tensorflow as tf  # noqa: E402


def normalized(inputs, scale, offset, *, epsilon: float):
    """Return the normalized inputs, and the mean and variance of the whole batch.

    Args:
        inputs: ``(batch_size, height, width, channels)`` of one replica, as many as of the others.
        scale: float32 ``(channels,)``.
        offset: float32 ``(channels,)``.
        epsilon: added to the variance.

    Returns:
        What has the shape of the inputs, and two float32 ``(channels,)``.
    """
    mean, variance = _statistics(inputs, scale, offset, epsilon)

    @tf.custom_gradient
    def apply(inputs, scale, offset):
        def gradients(upstream):
            return _gradients(upstream, inputs, scale, mean, variance, epsilon)

        outputs, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=mean, variance=variance,
            epsilon=epsilon, is_training=False,
        )  # fmt: skip
        return outputs, gradients

    return apply(inputs, scale, offset), mean, variance


def _statistics(inputs, scale, offset, epsilon: float):
    count = _count(inputs)
    _, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.stop_gradient(inputs), scale=tf.stop_gradient(scale), offset=tf.stop_gradient(offset),
        mean=[], variance=[], epsilon=epsilon, is_training=True,
    )  # fmt: skip
    # The kernel divides by count - 1.
    square = variance * (count - 1.0) / count + tf.square(mean)
    mean, square = tf.unstack(_over_replicas("MEAN", tf.stack([mean, square])))
    return mean, tf.maximum(square - tf.square(mean), 0.0)


def _gradients(upstream, inputs, scale, mean, variance, epsilon: float):
    """Return the gradients of this replica's inputs, and its part of those of scale and offset.

    Ioffe and Szegedy 2015, section 3: mean and variance depend on every image of the batch.
    """
    direct, of_scale, of_offset, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=upstream, x=inputs, scale=scale, reserve_space_1=mean,
        reserve_space_2=variance, reserve_space_3=[], epsilon=epsilon, is_training=False,
    )  # fmt: skip
    sums = _over_replicas("SUM", tf.stack([of_scale, of_offset]))
    inverse = tf.math.rsqrt(variance + epsilon)
    count = _count(inputs) * tf.distribute.get_replica_context().num_replicas_in_sync
    slope = scale * tf.square(inverse) * sums[0] / count
    level = scale * inverse * sums[1] / count - slope * mean
    # Slope times inputs and level, for each channel: the kernel is much quicker at it. Variance and
    # epsilon are 1 together; not every version of cuDNN takes an epsilon of 0.
    through, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=slope, offset=level, mean=tf.zeros_like(mean),
        variance=tf.fill(variance.shape, 0.5), epsilon=0.5, is_training=False,
    )  # fmt: skip
    return direct - through, of_scale, of_offset


def _count(inputs):
    return tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)


def _over_replicas(how: str, values):
    return tf.distribute.get_replica_context().all_reduce(how, values)
