"""Networks whose channels are no whole vectors of 16 train as quickly in bfloat16 as others.

Steps of a fastnet with 24, 48 and 96 filters: as a peer, with batch normalization as it is, for
which TensorFlow's kernel takes 5 to 20 times as long in bfloat16 where channels are no multiple of
16; and as `fit` trains it, which converts to float32 there. Processors without bfloat16 units train
in float32, and there is nothing to measure.

    python scripts/bench/odd_channels.py
"""

import statistics
import time

import harness


def seconds_a_step(options):
    import numpy as np
    import tensorflow as tf

    from kclassify.models.registry import build_model
    from kclassify.models.training_form import training_form

    shape = (32, 32, 3)
    network = build_model("fastnet", input_shape=shape, num_classes=10, filters=(24, 48, 96))
    form = training_form(network, policy="mixed_bfloat16")
    variables = [variable.value for variable in form.trainable_variables]
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (options.batch_size, *shape), np.uint8))
    labels = tf.constant(rng.integers(0, 10, options.batch_size, np.int32))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = tf.cast(form(images, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tape.gradient(losses, variables)

    times = []
    for _ in range(3 + options.steps):
        began = time.perf_counter()
        step()[0].numpy()
        times.append(time.perf_counter() - began)
    return {"milliseconds": 1000 * statistics.median(times[3:])}


def as_it_is(options):
    from kclassify.models import training_form

    training_form.VECTOR = 1
    return seconds_a_step(options)


def kclassify(options):
    return seconds_a_step(options)


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"as it is": as_it_is, "kclassify": kclassify},
    options={
        "batch_size": harness.Option(500, quick=50, help="images a step"),
        "steps": harness.Option(20, quick=2, help="measured, after three"),
    },
    targets=[harness.Target("milliseconds", "kclassify", over="as it is", at_most=0.7)],
)

if __name__ == "__main__":
    BENCHMARK.main()
