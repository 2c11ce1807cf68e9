"""The preset `tutorial` is faster than the loop that it is named after, at batch 4.

The peer is the training loop of PyTorch's CIFAR-10 tutorial over images in memory, eager, as the
tutorial writes it. Both train the same network with the same recipe on the same images.

    python scripts/bench/tutorial.py     (pip install 'kclassify[bench]')
"""

import tempfile
import time

import harness
import networks


@harness.needs("torch")
def torch(options):
    """Return the speed of the tutorial's loop, over one epoch after a warm-up."""
    import torch

    x, y = harness.cifar10(options.images)
    inputs = torch.tensor(x).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.tensor(y)
    net, loss = networks.torch_tutorial(), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def epoch() -> float:
        running = 0.0
        for batch in torch.randperm(len(inputs)).split(4):
            optimizer.zero_grad()
            value = loss(net(inputs[batch]), labels[batch])
            value.backward()
            optimizer.step()
            running += value.item()
        return running

    epoch()
    started = time.perf_counter()
    epoch()
    return {"images_per_second": len(inputs) / (time.perf_counter() - started)}


def kclassify(options):
    """Return the speed of the fit's second epoch: the first one traces the step."""
    import kclassify

    with tempfile.TemporaryDirectory() as folder:
        run = kclassify.fit(
            harness.cifar10(options.images), preset="tutorial", run_dir=f"{folder}/run", epochs=2,
            verbose=False, validation_fraction=0.02, test_fraction=0.02,
        )  # fmt: skip
        return {"images_per_second": float(run.history["images_per_second"].iloc[-1])}


BENCHMARK = harness.Benchmark(
    __doc__,
    peers={"torch": torch, "kclassify": kclassify},
    options={"images": harness.Option(8000, quick=4000, help="training images")},
    targets=[harness.Target("images_per_second", "kclassify", over="torch", at_least=1.0)],
)

if __name__ == "__main__":
    BENCHMARK.main()
