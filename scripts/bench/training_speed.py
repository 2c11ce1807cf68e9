"""`kclassify.fit` trains the same network at least 2.0 times as fast as Keras, 1.1 times PyTorch.

The peers are stock Keras `fit` of float32 arrays, as its guides show, and an eager PyTorch loop,
channels last, whose images are uint8 in memory and made float in the loop. Each is also measured
in bfloat16, which is kclassify's default where the CPU has the units. All have the same layers,
recipe and images; kclassify alone also validates (256 images) and writes its files within its
epochs. `gflops` is what the convolutions and the dense layer need, 6 operations a
multiply-accumulate, and the limit is what a product of 2048x2048 matrices reaches.

    python scripts/bench/training_speed.py --network conv289 --batch-size 512
"""

import time

import fits
import harness
import networks

LIMIT_SIZE, LIMIT_SECONDS = 2048, 3.0


def keras(options, policy="float32"):
    import keras

    keras.config.set_dtype_policy(policy)
    x, y = harness.cifar10(options.images)
    clock = fits.clock()
    fits.keras_fit(
        fits.as_guide(x), y, network=options.network, batch_size=options.batch_size,
        epochs=options.epochs, callbacks=[clock],
    )  # fmt: skip
    return with_gflops(clock.speeds(options.images), options.network)


@harness.needs(flags=harness.BFLOAT16)
def keras_bfloat16(options):
    return keras(options, policy="mixed_bfloat16")


@harness.needs("torch")
def torch(options, *, bfloat16=False):
    import torch

    x, y = map(torch.from_numpy, harness.cifar10(options.images))
    net, loss = networks.torch_network(options.network), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=fits.LEARNING_RATE, momentum=fits.MOMENTUM, nesterov=True
    )

    def epoch():
        for batch in torch.randperm(len(x)).split(options.batch_size):
            # uint8 images that lie as (n, height, width, channels) are channels last already.
            inputs = x[batch].permute(0, 3, 1, 2).float().div_(255)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                value = loss(net(inputs), y[batch])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    times = [time.perf_counter()]
    for _ in range(options.epochs):
        epoch()
        times.append(time.perf_counter())
    speeds = fits.speeds(options.images, options.epochs, times[0], times[1], times[-1])
    return with_gflops(speeds, options.network)


@harness.needs("torch", flags=harness.BFLOAT16)
def torch_bfloat16(options):
    return torch(options, bfloat16=True)


def kclassify(options, mixed_precision=None):
    from kclassify import runtime

    runtime.prepare()
    clock = fits.clock()
    fits.kclassify_fit(
        fits.splits(options.images), network=options.network, batch_size=options.batch_size,
        epochs=options.epochs, callbacks=[clock], mixed_precision=mixed_precision,
    )  # fmt: skip
    return with_gflops(clock.speeds(options.images), options.network)


def kclassify_float32(options):
    return kclassify(options, mixed_precision=False)


def limit(_, dtype="float32"):
    from kclassify import runtime

    runtime.prepare()
    import tensorflow as tf

    values = tf.random.normal((LIMIT_SIZE, LIMIT_SIZE))
    matrix = tf.cast(values, dtype)
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
    product()
    times = []
    while sum(times) < LIMIT_SECONDS:
        started = time.perf_counter()
        float(product())
        times.append(time.perf_counter() - started)
    return {"gflops": 2 * LIMIT_SIZE**3 / min(times) / 1e9}


@harness.needs(flags=harness.BFLOAT16)
def limit_bfloat16(options):
    return limit(options, dtype="bfloat16")


def with_gflops(speeds, network):
    macs = networks.MACS[network]
    return {**speeds, "gflops": 6 * macs * speeds["steady_images_per_second"] / 1e9}


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={
        "keras": keras,
        "torch": torch,
        "kclassify-float32": kclassify_float32,
        "kclassify": kclassify,
        "keras-bfloat16": keras_bfloat16,
        "torch-bfloat16": torch_bfloat16,
        "limit": limit,
        "limit-bfloat16": limit_bfloat16,
    },
    options={
        **fits.OPTIONS,
        "images": harness.Option(8192, quick=512, help="images an epoch"),
        "epochs": harness.Option(3, quick=2, help="epochs, at least 2"),
    },
    targets=[
        harness.Target("images_per_second", "kclassify", over="keras", at_least=2.0),
        harness.Target("images_per_second", "kclassify", over="torch", at_least=1.1),
        harness.Target("images_per_second", "kclassify-float32", over="keras"),
        harness.Target("images_per_second", "kclassify-float32", over="torch"),
        harness.Target("images_per_second", "kclassify", over="keras-bfloat16"),
        harness.Target("images_per_second", "kclassify", over="torch-bfloat16"),
        harness.Target("gflops", "kclassify-float32", over="limit"),
        harness.Target("gflops", "kclassify", over="limit-bfloat16"),
    ],
    variant=("network", "batch_size"),
)

if __name__ == "__main__":
    BENCHMARK.main()
