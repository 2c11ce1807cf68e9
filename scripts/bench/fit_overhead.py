"""An epoch of `kclassify.fit` takes at most 1.03 times that of a bare loop of the same step.

The peer is a `tf.function` of the same layers, loss and optimizer, called for the batches of the
same input pipeline, and nothing else: no metrics, callbacks or files. The validation, which the
loop does not have, is taken off the fit's epochs.

    python scripts/bench/fit_overhead.py --network resnet20
"""

import statistics
import time
from itertools import pairwise

import fits
import harness


def loop(options):
    from kclassify.data.sources import load_source, prepare
    from kclassify.training.session import build_session, train_batches

    config = fits.config_of(options.network, batch_size=options.batch_size)
    source = prepare(load_source(fits.splits(options.images), config), config, verbose=False)
    session = build_session(source, config)
    step, steps = bare_step(session.model), options.images // options.batch_size
    times = [time.perf_counter()]
    for done, batch in enumerate(train_batches(session, source, epochs=options.epochs), start=1):
        step(*batch)
        if done % steps == 0:
            times.append(time.perf_counter())
    return {"seconds_an_epoch": typical([end - start for start, end in pairwise(times)])}


def bare_step(model):
    import tensorflow as tf

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = model.loss(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step


def kclassify(options):
    from kclassify import runtime

    runtime.prepare()
    clock = fits.clock()
    fits.kclassify_fit(
        fits.splits(options.images), network=options.network, batch_size=options.batch_size,
        epochs=options.epochs, callbacks=[clock],
    )  # fmt: skip
    epochs = pairwise([*clock.begins, clock.end])
    seconds = [end - start - test for (start, end), test in zip(epochs, clock.tests, strict=True)]
    return {"seconds_an_epoch": typical(seconds)}


def typical(seconds):
    """Return the median of all the epochs but the first, which traces."""
    return statistics.median(seconds[1:])


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"loop": loop, "kclassify": kclassify},
    options={
        **fits.OPTIONS,
        "images": harness.Option(8192, quick=1024, help="images an epoch"),
        "epochs": harness.Option(4, quick=3, help="epochs, at least 2"),
    },
    targets=[harness.Target("seconds_an_epoch", "kclassify", over="loop", at_most=1.03)],
    variant=("network", "batch_size"),
)

if __name__ == "__main__":
    BENCHMARK.main()
