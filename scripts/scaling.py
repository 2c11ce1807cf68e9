"""How far a training scales: step time as compute, what replicas tell each other, and input.

    python scripts/scaling.py --model convnet --batch-size 256

    step = images * (compute + synchronized normalization) + collectives
    collective = 2 (n - 1) hops + 2 (n - 1) / n * bytes / bandwidth        a ring of n workers

The constants are those that `scripts/bench` measured on this machine's loopback and kept, or what
you say of another. What it says of more workers than were measured is arithmetic.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "bench" / "results"
# Of scripts/bench/collectives.py: numbers in its vectors, of 4 bytes each.
SHORT, LONG = 256 * 4, 1_000_000 * 4
# Of scripts/bench/synchronized.py: numbers in its layer.
LAYER = 64 * 32 * 32 * 32
DEVICES = (1, 2, 4, 8, 16, 64, 256, 1024)
DATASETS = {"CIFAR-10": 50_000, "ImageNet-1k": 1_281_167, "ImageNet-21k": 14_197_122,
            "a billion": 1_000_000_000}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """What a collective costs: seconds a hop, and bytes a second between neighbours."""

    hop: float
    bandwidth: float

    @classmethod
    def measured(cls) -> "Link":
        rows = read("collectives")["medians"]["2-workers"]
        short, long = rows["milliseconds_short"] / 1000, rows["milliseconds_long"] / 1000
        # Of two workers: two hops, and each sends as many bytes as the vector has.
        return cls(short / 2, (LONG - SHORT) / (long - short))

    def seconds(self, workers: int, size: float) -> float:
        return 2 * (workers - 1) * (self.hop + size / workers / self.bandwidth)


@dataclass(frozen=True)
class Work:
    """What a step is made of.

    Attributes:
        compute: seconds an image, on one worker.
        normalizing: further seconds an image where its layers look at the whole batch.
        layers: of batch normalization; each tells two vectors forward and two back.
        channels: of such a layer, on average.
        parameters: whose gradients are told.
        reading: seconds an image of making batches, which goes on beside the step.
    """

    compute: float
    normalizing: float
    layers: int
    channels: float
    parameters: int
    reading: float

    def step(self, workers: int, images: int, link: Link, *, cores: float = math.inf) -> float:
        """Return the seconds of a step with so many images a worker; the cores are shared."""
        each = self.compute + (self.normalizing if workers > 1 else 0.0)
        busy = images * each * max(1.0, workers / cores)
        told = 2 * self.layers * link.seconds(workers, 2 * 4 * self.channels)
        return max(busy + told + link.seconds(workers, 4 * self.parameters), images * self.reading)


def read(name: str) -> dict:
    """Return the medians that a benchmark has kept."""
    kept = json.loads((RESULTS / f"{name}.json").read_text())
    return {"medians": {peer: medians(rounds) for peer, rounds in kept["measured"].items()}}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of every number."""
    names = rounds[0]
    return {name: sorted(row[name] for row in rounds)[len(rounds) // 2] for name in names}


def work_of(model: str, rate: float, faster: float) -> Work:
    """Return what a step of a registered network is, on a worker that is so much faster than ours.

    Args:
        model: its name.
        rate: images a second of a worker here.
        faster: how many times as fast the worker is.
    """
    from kclassify import runtime

    runtime.prepare()
    import keras

    from kclassify.models.registry import build_model

    network = build_model(model, input_shape=(32, 32, 3), num_classes=10)
    norms = [layer for layer in network.layers
             if isinstance(layer, keras.layers.BatchNormalization)]  # fmt: skip
    numbers = sum(math.prod(layer.output.shape[1:]) for layer in norms)
    found = read("synchronized")["medians"]
    extra = (found["synchronized"]["milliseconds"] - found["fused"]["milliseconds"]) / 1000
    channels = sum(layer.output.shape[-1] for layer in norms) / max(1, len(norms))
    parameters = sum(math.prod(one.shape) for one in network.trainable_variables)
    seconds = (1 / rate / faster, numbers * extra / LAYER / faster)
    reading = 1 / read("packed-png")["medians"]["packed"]["training_images_per_second"]
    return Work(*seconds, len(norms), channels, parameters, reading)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="convnet", help="a registered network, at 32x32")
    parser.add_argument("--batch-size", type=int, default=256, help="images of a worker's step")
    parser.add_argument(
        "--rate", type=float, required=True, help="images a second of a worker here"
    )
    parser.add_argument("--faster", type=float, default=1.0, help="how many times as fast as here")
    parser.add_argument("--hop", type=float, help="microseconds of a hop (as measured)")
    parser.add_argument("--bandwidth", type=float, help="gigabytes a second (as measured)")
    parser.add_argument("--cores", type=float, default=math.inf, help="that all workers share")
    options = parser.parse_args()
    link, work = Link.measured(), work_of(options.model, options.rate, options.faster)
    if options.hop and options.bandwidth:
        link = Link(options.hop / 1e6, options.bandwidth * 1e9)
    print(f"a hop {1e6 * link.hop:.0f} us, {link.bandwidth / 1e9:.2f} GB/s; {work}")
    show(work, link, images=options.batch_size, cores=options.cores)


def show(work: Work, link: Link, *, images: int, cores: float) -> None:
    """Print a row for each number of workers."""
    print(f"| workers | step, ms | images/s | of ideal |{'|'.join(map(' {} '.format, DATASETS))}|")
    print("|---" * (4 + len(DATASETS)) + "|")
    for workers in DEVICES:
        seconds = work.step(workers, images, link, cores=cores)
        rate = workers * images / seconds
        ideal = workers * images / work.step(1, images, link)
        epochs = "|".join(f" {length(count / rate)} " for count in DATASETS.values())
        print(f"| {workers} | {1000 * seconds:,.0f} | {rate:,.0f} | {rate / ideal:.2f} |{epochs}|")


def length(seconds: float) -> str:
    """Return a time as a person says it."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


if __name__ == "__main__":
    main()
