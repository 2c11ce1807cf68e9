"""What the parts of a training step are worth on a CPU: each is left out in turn.

`whole` is `kclassify.fit` as it is, in float32. Its peers are the same with oneDNN off
(TF_ENABLE_ONEDNN_OPTS=0), with Keras's own batch normalization of a dozen operations, with the
autotuner of tf.data, and with XLA, whose first epoch compiles: `images_per_second` counts that,
`steady_images_per_second` does not.

    python scripts/bench/parts.py --network resnet20
"""

import os

import fits
import harness


def whole(options):
    from kclassify import runtime

    runtime.prepare()
    clock = fits.clock()
    fits.kclassify_fit(
        fits.splits(options.images), network=options.network, batch_size=options.batch_size,
        epochs=options.epochs, callbacks=[clock], mixed_precision=False,
    )  # fmt: skip
    return clock.speeds(options.images)


def without_onednn(options):
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    return whole(options)


def without_fused_normalization(options):
    from kclassify.models import training_form

    training_form.fuse = lambda layer: None
    return whole(options)


def with_autotune(options):
    from kclassify import runtime

    runtime.prepare()
    import tensorflow as tf

    from kclassify.data import pipeline

    pipeline.plain_options = tf.data.Options
    return whole(options)


def with_xla(options):
    from kclassify import runtime

    runtime.prepare()
    import keras

    plain = keras.Model.compile

    def compile(model, **arguments):
        plain(model, **{**arguments, "jit_compile": True})

    keras.Model.compile = compile
    return whole(options)


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "whole": whole,
        "without-onednn": without_onednn,
        "without-fused-normalization": without_fused_normalization,
        "with-autotune": with_autotune,
        "with-xla": with_xla,
    },
    options={
        **fits.OPTIONS,
        "images": harness.Option(4096, quick=512, help="images an epoch"),
        "epochs": harness.Option(3, quick=2, help="epochs, at least 2"),
    },
    targets=[
        harness.Target("images_per_second", "whole", over="without-onednn"),
        harness.Target("images_per_second", "whole", over="without-fused-normalization"),
        harness.Target("images_per_second", "whole", over="with-autotune"),
        harness.Target("images_per_second", "whole", over="with-xla"),
        harness.Target("steady_images_per_second", "whole", over="with-xla"),
    ],
    variant=("network", "batch_size"),
)

if __name__ == "__main__":
    BENCHMARK.main()
