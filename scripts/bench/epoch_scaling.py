"""The time of an epoch grows with the images, within 5 %, from 1 to 2 to 4 times as many.

The peer is stock Keras `fit` of float32 arrays, whose input pipeline makes an epoch's end wait.
Each validates on a tenth as many images. Measured are the epochs after the first, which traces.

    python scripts/bench/epoch_scaling.py
"""

from functools import partial

import fits
import harness

TIMES = (1, 2, 4)


def keras(options, times):
    data = data_of(options, times)
    clock = fits.clock()
    (x, y), (validation_x, validation_y) = data["train"], data["validation"]
    fits.keras_model(options.network).fit(
        fits.as_guide(x), y, validation_data=(fits.as_guide(validation_x), validation_y),
        batch_size=options.batch_size, epochs=options.epochs, callbacks=[clock], verbose=0,
    )  # fmt: skip
    return per_image(clock, len(x))


def kclassify(options, times):
    from kclassify import runtime

    runtime.prepare()
    data, clock = data_of(options, times), fits.clock()
    fits.kclassify_fit(
        data, network=options.network, batch_size=options.batch_size, epochs=options.epochs,
        callbacks=[clock],
    )  # fmt: skip
    return per_image(clock, len(data["train"][0]))


def data_of(options, times):
    images = times * options.images
    return fits.splits(images, validation=images // 10)


def per_image(clock, images):
    speed = clock.speeds(images)["steady_images_per_second"]
    return {"seconds_an_epoch": images / speed, "microseconds_an_image": 1e6 / speed}


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        f"{name}-{times}x": partial(peer, times=times)
        for name, peer in (("kclassify", kclassify), ("keras", keras))
        for times in TIMES
    },
    options={
        **fits.OPTIONS,
        "images": harness.Option(2560, quick=256, help="training images of the smallest"),
        "epochs": harness.Option(4, quick=2, help="epochs, at least 2"),
    },
    targets=[
        harness.Target(
            "microseconds_an_image", f"kclassify-{times}x", over="kclassify-1x", at_least=0.95,
            at_most=1.05,
        )
        for times in TIMES[1:]
    ],
    variant=("network", "batch_size"),
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main()
