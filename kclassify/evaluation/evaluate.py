"""`evaluate`: the numbers of a run on a split. The only reader of the test split."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from typing import Any

import pandas as pd

from kclassify import runtime
from kclassify.checks import check_choice, check_number
from kclassify.config import FitConfig
from kclassify.data.sources import reference, source_name
from kclassify.data.spec import SPLITS, Examples
from kclassify.runs import Run

runtime.prepare()

import keras  # noqa: E402

from kclassify.evaluation import metrics  # noqa: E402
from kclassify.evaluation.abstention import check_abstention  # noqa: E402
from kclassify.evaluation.calibration import (  # noqa: E402
    Calibration,
    needed_calibration,
    of_probabilities,
    reliability,
    tempered,
)
from kclassify.evaluation.deciding import (  # noqa: E402
    coverage_of,
    deciding_of,
    measured,
    thresholds_of,
)
from kclassify.evaluation.intervals import Interval, intervals  # noqa: E402
from kclassify.evaluation.predictions import (  # noqa: E402
    Predictions,
    hash_of_ids,
    hash_of_images,
    predict,
    worst_errors,
)
from kclassify.evaluation.run_data import (  # noqa: E402
    can_reload,
    examples_of,
    source_of,
    with_own_data,
)
from kclassify.models.deciding import Deciding  # noqa: E402
from kclassify.models.saved import load_run_model  # noqa: E402
from kclassify.models.temperature import as_evaluated  # noqa: E402
from kclassify.models.test_time import VIEWS  # noqa: E402
from kclassify.training.cluster import find_cluster  # noqa: E402
from kclassify.training.replicas import joined  # noqa: E402
from kclassify.training.together import check_same_work, in_turn  # noqa: E402


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Every part is derived from the same pass.

    Attributes:
        split: which images.
        metrics: names and values: accuracy, top-5 accuracy (more than 5 classes), loss in nats,
            precision, recall and F1, macro and weighted, the Brier score and three expected
            calibration errors.
        per_class: precision, recall, F1 and support of each class.
        confusion: counts, a row for each given class, a column for each predicted one.
        predictions: a row an image: id, given, predicted, probability, correct.
        tta: the test-time augmentation.
        intervals: for every metric, where it lies with 95 % of chance.
        temperature: what the logits were divided by; 1 where it could not be fitted.
        uncalibrated: the metrics that it changes, without it.
        deciding: when an answer is withheld, and sets of labels, where that was asked for.
        decided: what that came to on these images, see `deciding.measured`.
        data: where other images than the run's own were measured, their name.
        reference: the text that those are loaded by; None where they were in memory.
    """

    split: str
    metrics: dict[str, float]
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    predictions: pd.DataFrame
    tta: str = "none"
    intervals: dict[str, Interval] = field(default_factory=dict)
    temperature: float = 1.0
    uncalibrated: dict[str, float] = field(default_factory=dict)
    deciding: Deciding = field(default_factory=Deciding)
    decided: dict[str, float] = field(default_factory=dict)
    data: str | None = None
    reference: str | None = None

    @property
    def measured_on(self) -> str:
        """The split, or where other images than the run's own were measured, their name."""
        return self.split if self.data is None else f"other data ({self.data})"

    @property
    def table(self) -> pd.DataFrame:
        """The metrics with their intervals, and their values before the calibration."""
        rows = {
            name: (value, *self.intervals.get(name, (None, None)), self.uncalibrated.get(name))
            for name, value in self.metrics.items()
        }
        columns = ["value", "low", "high", "uncalibrated"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
        return table.rename_axis("metric").dropna(axis="columns", how="all")

    def __str__(self) -> str:
        views = "" if self.tta == "none" else f", test-time augmentation {self.tta}"
        parts = [
            f"{self.measured_on}, {len(self.predictions):,} images{views}; "
            "low and high: 95 % of chance",
            _text(self.table),
            "",
            _text(self.per_class),
        ]
        if self.decided:
            found = pd.Series(self.decided).to_string(float_format="{:.4f}".format)
            parts += ["", str(self.deciding), found]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.measured_on)}, {len(self.predictions):,} images</p>" + "".join(
            table.to_html(float_format="{:.4f}".format, na_rep="")
            for table in (self.table, self.per_class)
        )


def _text(table: pd.DataFrame) -> str:
    return table.to_string(float_format="{:.4f}".format, na_rep="")


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    split: str = "test",
    data: Any = None,
    tta: str = "none",
    abstain_at: Mapping[str, float] | None = None,
    label_sets: float | None = None,
    batch_size: int = 256,
    verbose: bool = True,
    cluster: str | Sequence[str] | None = None,
    worker: int | None = None,
) -> Evaluation:
    """Evaluate a run's saved model in one pass, and write the numbers into the run folder.

    The model is the one in ``model.keras``, read from disk; that it is the one that `fit` chose
    is checked by the hash of its weights. Its probabilities are calibrated on the validation
    images, see `calibrate`, as those of an export are; what the temperature changed is shown.

    Args:
        run: a `Run` or its folder.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        data: images to evaluate on instead of the run's own, in any form that `fit` takes. Where
            they come in splits, `split` is used; otherwise all of them. Needed when the run was
            trained on arrays in another process.
        tta: test-time augmentation: the mean of the network's logits over several views of an
            image. ``"none"``; ``"flip"``, over it and its mirror image; ``"flip_shift"``, over
            these and their shifts by a pixel, six views in all. Each view costs a pass. Export
            with the same `tta` to serve what was evaluated.
        abstain_at: such as ``{"accuracy": 0.99}``: withhold the answers that are not sure enough
            for that, by a threshold that the validation images guarantee, see `threshold_for`.
        label_sets: such as 0.9: name sets of labels, the right one in so large a share of them,
            see `label_sets_for`.
        batch_size: images or views of them at a time; changes the speed only.
        verbose: show a progress bar when it takes longer than a second or two.
        cluster: as in `fit`, several processes that each predict their share of the images. Each
            returns the same; the chief writes it.
        worker: which of `cluster` this process is.

    Returns:
        An `Evaluation`.

    Raises:
        InputError: the run is not whole, its data cannot be found, or its validation images
            cannot guarantee what is asked for.
        WorkerLostError: another worker is gone; nothing was written.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> evaluation = kclassify.evaluate(run, verbose=False)
        >>> evaluation.confusion.shape
        (10, 10)
    """
    check_choice("split", split, SPLITS)
    check_number("batch_size", batch_size, expected="a whole number above 0", ok=batch_size > 0)
    check_choice("tta", tta, VIEWS)
    asked = check_abstention(abstain_at, label_sets)
    run = Run.open(run)
    replicas = joined(FitConfig(), find_cluster(cluster, worker))
    with replicas.watched("run the same command on all workers again"):
        network, examples, calibration, deciding, other = in_turn(
            replicas, partial(_ready, run, split=split, data=data, tta=tta, asked=asked,
                              verbose=verbose and replicas.chief)
        )  # fmt: skip
        check_same_work(
            replicas,
            {"run": run.summary["weights_sha256"], "data": hash_of_ids(examples.ids),
             "batch_size": batch_size, "tta": tta},
        )  # fmt: skip
        predictions = predict(
            as_evaluated(run, network, tta=tta),
            examples,
            tuple(run.config["class_names"]),
            batch_size=max(1, batch_size // VIEWS[tta]),
            verbose=verbose and replicas.chief,
            replicas=replicas,
        )
    predictions = replace(predictions, tta=tta, pixels=hash_of_images(examples.images))
    temperature = calibration.temperature if calibration else 1.0
    evaluation = replace(_measure(predictions, split, tta, temperature, deciding), **other)
    if replicas.chief:
        _write(run, evaluation, predictions, examples)
    return evaluation


def _ready(
    run: Run,
    *,
    split: str,
    data: Any,
    tta: str,
    asked: tuple[float | None, float | None],
    verbose: bool,
) -> tuple[keras.Model, Examples, Calibration | None, Deciding, dict[str, Any]]:
    """Return who predicts what, and what validation says of it; the run has that from then on.

    And what the data is called and loaded by, where it is not the run's own.
    """
    run, data = with_own_data(run, data, verbose=verbose)
    if data is None and can_reload(run):
        # Once for both: the validation images calibrate what the others are predicted with.
        run = replace(run, source=source_of(run, verbose=verbose))
    network = load_run_model(run)
    examples = examples_of(run, split=split, data=data, verbose=verbose)
    calibration = needed_calibration(run, tta, verbose=verbose)
    other = {} if data is None else {"data": source_name(data), "reference": reference(data)}
    return network, examples, calibration, deciding_of(run, tta, *asked), other


def _measure(
    found: Predictions, split: str, tta: str, temperature: float, deciding: Deciding
) -> Evaluation:
    names = found.class_names
    pair = (found.labels, found.probabilities)
    raw = tempered(found.probabilities, 1 / temperature)
    return Evaluation(
        split,
        metrics.all_metrics(*pair),
        metrics.per_class(*pair, names),
        metrics.confusion(*pair, names),
        found.table(),
        tta,
        intervals(*pair),
        temperature,
        of_probabilities(found.labels, raw) if temperature != 1.0 else {},
        deciding,
        measured(deciding, *pair),
    )


def _write(run: Run, evaluation: Evaluation, found: Predictions, examples: Examples) -> None:
    pair = (found.labels, found.probabilities)
    contents = {
        run.predictions_file(evaluation.split): found.arrays(),
        run.errors_file: worst_errors(found, examples),
        run.table_file("metrics"): evaluation.table,
        run.table_file("per_class"): evaluation.per_class,
        run.table_file("confusion"): evaluation.confusion,
        run.table_file("reliability"): _reliabilities(*pair, evaluation.temperature),
        run.table_file("coverage"): coverage_of(*pair),
        run.table_file("thresholds"): thresholds_of(run, evaluation.tta, *pair),
    }
    # It says that the evaluation is whole: until the last file is there, there is none.
    run.metrics_file.unlink(missing_ok=True)
    for file, content in contents.items():
        run.write(file, content)
    run.write(run.metrics_file, _summary(run, evaluation, found))


def _summary(run: Run, evaluation: Evaluation, found: Predictions) -> dict[str, Any]:
    return {
        "split": evaluation.split,
        "tta": evaluation.tta,
        "images": len(found.ids),
        "data": evaluation.data,
        "reference": evaluation.reference,
        "evaluated": found.key(evaluation.split),
        "weights_sha256": run.summary["weights_sha256"],
        "metrics": evaluation.metrics,
        "intervals": evaluation.intervals,
        "temperature": evaluation.temperature,
        "uncalibrated": evaluation.uncalibrated,
        "deciding": evaluation.deciding.to_json(),
        "decided": evaluation.decided,
    }


def _reliabilities(labels: Any, probabilities: Any, temperature: float) -> pd.DataFrame:
    """Return the bins of confidence, of the calibrated and of the network's own probabilities."""
    parts = {"calibrated": probabilities}
    if temperature != 1.0:
        parts["uncalibrated"] = tempered(probabilities, 1 / temperature)
    tables = {which: reliability(labels, values) for which, values in parts.items()}
    return pd.concat(tables, names=["which", "bin"]).reset_index("bin")
