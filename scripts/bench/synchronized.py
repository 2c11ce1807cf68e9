"""What batch normalization over all replicas costs besides telling: its passes, forward and back.

The peer is TensorFlow's fused kernel, which normalizes by the batch of one device; what replicas
tell each other is left out on both sides. One layer of 64 images of 32x32x32, one thread.

    python scripts/bench/synchronized.py
"""

import os
import time

import harness

SHAPE, EPSILON, TIMES = (64, 32, 32, 32), 1e-3, 30


def fused(options):
    tf = tensorflow()
    scale, offset = tf.ones(SHAPE[-1:]), tf.zeros(SHAPE[-1:])

    @tf.function
    def both_ways(images, upstream):
        normal = tf.raw_ops.FusedBatchNormV3(
            x=images, scale=scale, offset=offset, mean=[], variance=[], epsilon=EPSILON,
            is_training=True,
        )  # fmt: skip
        return tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream, x=images, scale=scale, reserve_space_1=normal.reserve_space_1,
            reserve_space_2=normal.reserve_space_2, reserve_space_3=normal.reserve_space_3,
            epsilon=EPSILON, is_training=True,
        )[0]  # fmt: skip

    return measured(tf, both_ways)


def synchronized(options):
    tf = tensorflow()
    from kclassify.models import synchronized as layer

    layer._over_replicas = lambda how, values: values
    scale, offset = tf.ones(SHAPE[-1:]), tf.zeros(SHAPE[-1:])

    @tf.function
    def both_ways(images, upstream):
        with tf.GradientTape() as tape:
            tape.watch(images)
            found, _, _ = layer.normalized(images, scale, offset, epsilon=EPSILON)
        return tape.gradient(found, images, upstream)

    return measured(tf, both_ways)


def tensorflow():
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    from kclassify import runtime

    runtime.prepare()
    import tensorflow as tf

    return tf


def measured(tf, both_ways):
    images, upstream = tf.random.normal(SHAPE), tf.random.normal(SHAPE)
    both_ways(images, upstream)
    began = time.perf_counter()
    for _ in range(TIMES):
        both_ways(images, upstream)
    return {"milliseconds": 1000 * (time.perf_counter() - began) / TIMES}


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"fused": fused, "synchronized": synchronized},
    options={},
    targets=[harness.Target("milliseconds", "synchronized", over="fused")],
    on_cifar10=False,
)

if __name__ == "__main__":
    BENCHMARK.main()
