"""The run that is made smaller, opened once, and the runs that come of it."""

import json
import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.atomic import file_hash, replacing
from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data.fingerprint import fingerprint
from kclassify.data.preparation import prepare
from kclassify.data.sources import load_source
from kclassify.data.spec import Source
from kclassify.runs import Run
from kclassify.training.beginning import run_facts

runtime.prepare()

import keras  # noqa: E402
import pandas as pd  # noqa: E402

from kclassify.evaluation.predictions import predict  # noqa: E402
from kclassify.evaluation.run_data import can_reload, source_of  # noqa: E402
from kclassify.models.saved import load_run_model  # noqa: E402
from kclassify.training.ending import save_network  # noqa: E402
from kclassify.training.place import Place  # noqa: E402

BATCH_SIZE = 256


@dataclass(frozen=True)
class Training:
    """The training that a run's weights come of: its own, or where it had none its parent's.

    Attributes:
        epochs: how many.
        seconds: what they took.
        begin: how far along its shape the learning rate began.
    """

    epochs: int
    seconds: float
    begin: float = 0.0


@dataclass(frozen=True)
class Parent:
    """A finished run that others come of.

    Attributes:
        run: the run, with its data.
        source: the data, split as it was.
        network: its model.
        config: its configuration.
        training: what its weights come of.
    """

    run: Run
    source: Source
    network: keras.Model
    config: FitConfig
    training: Training

    @property
    def epochs(self) -> int:
        """How many it was trained for."""
        return self.training.epochs

    @cached_property
    def right(self) -> np.ndarray:
        """Which of the validation images the run has right; asked for by all that is compared."""
        return self.right_on_validation(self.network)

    def right_on_validation(self, model: keras.Model) -> np.ndarray:
        """Return of each validation image whether `model` has it right."""
        examples = self.source.splits["validation"]
        found = predict(
            model, examples, self.source.class_names, batch_size=BATCH_SIZE, verbose=False
        )
        return found.probabilities.argmax(axis=1) == examples.class_ids

    def facts(self, config: FitConfig, compression: dict[str, Any]) -> dict[str, Any]:
        """Return what makes a run that comes of this one what it is."""
        manifest = self.run.config
        facts = run_facts(self.source, manifest["preset"], config, self.source)
        parent = {"run": str(self.run), "weights_sha256": self.run.summary["weights_sha256"]}
        asked = {"parent": parent, **compression}
        return {
            **facts,
            "reference": manifest["reference"],
            # As it is read again: lists, where somebody gave tuples.
            "compression": json.loads(json.dumps(asked)),
        }


def open_parent(run: Run | str | os.PathLike[str], *, data: Any, verbose: bool) -> Parent:
    """Open a run and load its data.

    Raises:
        InputError: there is no such run, its model is a quantized file, or its data cannot be had.
    """
    run = Run.open(run)
    if run.quantized_file is not None:
        raise InputError(
            f"`run` must have a Keras model to begin with. Received: {str(run)!r}, which serves "
            f"{run.quantized_file.name}. Pass the run that it came of, "
            f"{run.parent!r}."
        )
    config = FitConfig.from_json(run.config["config"])
    source = _source(run, config, data, verbose=verbose)
    network = load_run_model(run)
    return Parent(replace(run, source=source), source, network, config, _training_of(run))


def _training_of(run: Run) -> Training:
    summary = run.summary
    if "training" in summary:
        return Training(**summary["training"])
    begin = run.config.get("compression", {}).get("begin", 0.0)
    return Training(summary["epochs_trained"], summary["training_seconds"], begin)


def _source(run: Run, config: FitConfig, data: Any, *, verbose: bool) -> Source:
    if data is None or can_reload(run):
        return source_of(run, verbose=verbose)
    source = prepare(load_source(data, config), config, verbose=verbose)
    if fingerprint(source) != run.config["fingerprint"]:
        raise InputError(
            f"`data` must be what {str(run)!r} was trained on. Received: other images or labels. "
            "Pass what `fit` was called with."
        )
    return source


def child_path(parent: Parent, name: str, run_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder of what comes of a run: beside it, unless said otherwise."""
    # What ".." ends with is no name to begin another with.
    own = parent.run.path.resolve() if parent.run.path.name in ("", "..") else parent.run.path
    return Path(run_dir) if run_dir else own.with_name(f"{own.name}-{name}")


def keep_untrained(
    place: Place,
    parent: Parent,
    network: keras.Model,
    facts: dict[str, Any],
    *,
    accuracy: float,
    file: Path | None = None,
) -> None:
    """Write a run whose network needed no training.

    Args:
        place: its folder.
        parent: the run that it came of.
        network: its network.
        facts: its manifest.
        accuracy: on validation images, of what is served.
        file: what is served instead of the network, if it is quantized.
    """
    run = place.run
    place.begin(facts, parent.source)
    hashed = {}
    if file is not None:
        with replacing(run.path / file.name) as beside:
            beside.write_bytes(file.read_bytes())
        hashed = {"weights_sha256": file_hash(file)}
    run.write(run.history_file, _no_history(accuracy))
    untrained = {
        "best_epoch": 0, "epochs_trained": 0, "training_seconds": 0.0, "stopped": None,
        "training": asdict(parent.training),
    }  # fmt: skip
    save_network(run, network, {"val_accuracy": accuracy, **untrained, **hashed})
    place.tell(f"validation accuracy {accuracy:.4f}, kept in {run}")


def _no_history(accuracy: float) -> pd.DataFrame:
    """Return the history of a network that was not trained: where it stands."""
    columns = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")
    row = dict.fromkeys(columns, float("nan")) | {"epoch": 0, "val_accuracy": accuracy}
    return pd.DataFrame([row]).set_index("epoch")
