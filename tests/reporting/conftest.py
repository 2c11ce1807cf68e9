"""A run folder as fit and evaluate leave it, made by hand: 10 classes, 8 epochs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kclassify.config import resolve
from kclassify.runs import Run

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
EPOCHS = 8


def _write_run(path: Path, class_names: Sequence[str] = CLASSES, **changes) -> Run:
    run = Run(path)
    manifest = {
        "kclassify": "0.1.0",
        "data": "cifar10",
        "reference": "cifar10",
        "preset": "fast",
        "class_names": list(class_names),
        "input_shape": [32, 32, 3],
        "sizes": {"train": 45_000, "validation": 5_000, "test": 1_000},
        "skipped": [],
        "config": resolve("fast", {"epochs": EPOCHS, "batch_size": 64}).to_json(),
    }
    run.write(run.config_file, {**manifest, **changes})
    run.model_file.write_bytes(b"")
    _write_training(run)
    _write_evaluation(run, list(class_names))
    return run


def _write_training(run: Run) -> None:
    environment = {
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64-with-glibc2.36",
        "processor": "AMD EPYC 7B12",
        "cpu_count": 2,
        "packages": {"kclassify": "0.1.0", "tensorflow": "2.21.0", "tensorboard": None},
        "variables": {"KERAS_BACKEND": "tensorflow"},
    }
    summary = {
        "best_epoch": 7,
        "val_accuracy": 0.8712,
        "weights_sha256": "0123456789abcdef" * 4,
        "parameters": 1_204_938,
        "macs": 41_300_000,
        "training_seconds": 582.4,
        "epochs_trained": EPOCHS,
        "stopped": None,
    }
    epochs = np.arange(1, EPOCHS + 1)
    history = pd.DataFrame(
        {
            "loss": 2.1 / epochs**0.6,
            "accuracy": 1 - 0.62 / epochs**0.8,
            "val_loss": 2.0 / epochs**0.55,
            "val_accuracy": 1 - 0.6 / epochs**0.75,
            "learning_rate": 0.15 * (1 - np.abs(epochs - 3) / 6),
            "seconds": 72.8,
            "images_per_second": 618.2,
        },
        index=pd.Index(epochs, name="epoch"),
    )
    run.write(run.environment_file, environment)
    run.write(run.summary_file, summary)
    run.write(run.history_file, history)


def _write_evaluation(run: Run, names: list[str]) -> None:
    random = np.random.default_rng(0)
    classes = len(names)
    confusion = random.poisson(1.2, (classes, classes)) + np.diag(random.integers(75, 95, classes))
    right, given, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    per_class = pd.DataFrame(
        {
            "precision": right / predicted,
            "recall": right / given,
            "f1": 2 * right / (given + predicted),
            "support": given,
        },
        index=pd.Index(names, name="class"),
    )
    metrics = {"accuracy": right.sum() / confusion.sum(), "loss": 0.4821, "f1_macro": 0.8712}
    evaluation = {
        "split": "test",
        "images": int(confusion.sum()),
        "weights_sha256": run.summary["weights_sha256"],
        "metrics": metrics,
    }
    counts = pd.DataFrame(confusion, index=pd.Index(names, name="given"), columns=names)
    run.write(run.table_file("per_class"), per_class)
    run.write(run.table_file("confusion"), counts)
    run.write(run.errors_file, _make_errors(names))
    run.write(run.metrics_file, evaluation)


def _make_errors(
    names: Sequence[str] = CLASSES, *, images: int = 12, side: int = 32
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    coarse = random.integers(30, 226, (images, side // 8, side // 8, 3), "uint8")
    places = np.arange(images)
    return {
        "images": coarse.repeat(8, axis=1).repeat(8, axis=2),
        "ids": np.array([f"test/{place:05d}" for place in places], dtype=str),
        "given": np.array([names[place % len(names)] for place in places], dtype=str),
        "predicted": np.array([names[(place + 1) % len(names)] for place in places], dtype=str),
        "probability": np.linspace(0.999, 0.8, images).astype("float32"),
    }


@pytest.fixture(scope="session")
def class_names() -> tuple[str, ...]:
    return CLASSES


@pytest.fixture(scope="session")
def make_errors() -> Callable[..., dict[str, np.ndarray]]:
    """Return what makes the arrays of `errors.npz`."""
    return _make_errors


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Run]:
    """Return what writes a run: its path, its class names, changes to its `config.json`."""
    return _write_run


@pytest.fixture
def small_run(tmp_path: Path) -> Run:
    """Two classes: its report is made in a moment."""
    return _write_run(tmp_path / "small-run", CLASSES[:2])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return _write_run(tmp_path / "cifar10-run")
