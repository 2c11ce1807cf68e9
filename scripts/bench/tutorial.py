"""The preset `tutorial` against the loop that it is named after, at batch 4, in images a second.

The peer is the training loop of PyTorch's CIFAR-10 tutorial over images in memory, eager, as the
tutorial writes it. Both train the same network with the same recipe on the same images, in turn.

    python scripts/bench/tutorial.py --images 8000 --repeats 3     (pip install torch)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

PEERS = ("kclassify", "pytorch")


def kclassify_speed(images: str) -> float:
    """Return the images a second of the fit's second epoch: the first one traces the step."""
    import kclassify

    x, y = load(images)
    with tempfile.TemporaryDirectory() as folder:
        run = kclassify.fit(
            (x, y), preset="tutorial", run_dir=f"{folder}/run", epochs=2, verbose=False,
            validation_fraction=0.02, test_fraction=0.02,
        )  # fmt: skip
        return float(run.history["images_per_second"].iloc[-1])


def pytorch_speed(images: str) -> float:
    """Return the images a second of the tutorial's loop, over one epoch after a warm-up."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
            self.pool = nn.MaxPool2d(2, 2)
            self.fc1, self.fc2, self.fc3 = (
                nn.Linear(400, 120),
                nn.Linear(120, 84),
                nn.Linear(84, 10),
            )

        def forward(self, x):
            x = self.pool(F.relu(self.conv1(x)))
            x = torch.flatten(self.pool(F.relu(self.conv2(x))), 1)
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

    x, y = load(images)
    inputs = torch.tensor(x).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.tensor(y).long()
    net, loss = Net(), nn.CrossEntropyLoss()
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
    return len(inputs) / (time.perf_counter() - started)


def load(path: str):
    with np.load(path) as arrays:
        return arrays["images"], arrays["labels"]


def save_cifar10(path: str, images: int) -> None:
    """Write the first training images, so that no peer's process starts by reading TFDS."""
    import tensorflow_datasets as tfds

    (found,) = tfds.load("cifar10", split=[f"train[:{images}]"], batch_size=-1)
    np.savez(path, images=found["image"].numpy(), labels=found["label"].numpy())


def measure(peer: str, images: str) -> float:
    command = [sys.executable, __file__, "--peer", peer, "--saved", images]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--saved", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        measured = {"kclassify": kclassify_speed, "pytorch": pytorch_speed}[options.peer]
        print(measured(options.saved))
        return
    speeds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    with tempfile.TemporaryDirectory() as folder:
        images = f"{folder}/cifar10.npz"
        save_cifar10(images, options.images)
        for peer in PEERS * options.repeats:
            speeds[peer].append(measure(peer, images))
    medians = {peer: statistics.median(values) for peer, values in speeds.items()}
    print(json.dumps({"images_per_second": speeds, "medians": medians}, indent=2))
    print(f"kclassify / pytorch: {medians['kclassify'] / medians['pytorch']:.2f}")


if __name__ == "__main__":
    main()
