"""`evaluate`: the numbers of a run on a split. The only reader of the test split."""

import os
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number
from kclassify.config import FitConfig
from kclassify.data.fingerprint import fingerprint
from kclassify.data.preparation import as_trained, prepare, to_memory
from kclassify.data.sources import load_source
from kclassify.data.spec import SPLITS, Examples, Source
from kclassify.runs import Run

runtime.prepare()

from kclassify.evaluation import metrics  # noqa: E402
from kclassify.evaluation.predictions import Predictions, predict, worst_errors  # noqa: E402
from kclassify.models.saved import load_run_model  # noqa: E402
from kclassify.models.test_time import VIEWS, with_test_time  # noqa: E402


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. Every part is derived from the same pass.

    Attributes:
        split: which images.
        metrics: names and values: accuracy, top-5 accuracy (more than 5 classes), loss in nats,
            and precision, recall and F1, macro and weighted.
        per_class: precision, recall, F1 and support of each class.
        confusion: counts, a row for each given class, a column for each predicted one.
        predictions: a row an image: id, given, predicted, probability, correct.
        tta: the test-time augmentation.
    """

    split: str
    metrics: dict[str, float]
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    predictions: pd.DataFrame
    tta: str = "none"

    def __str__(self) -> str:
        numbers = pd.Series(self.metrics).map("{:.4f}".format).to_string()
        table = self.per_class.to_string(float_format="{:.4f}".format)
        views = "" if self.tta == "none" else f", test-time augmentation {self.tta}"
        return f"{self.split}, {len(self.predictions):,} images{views}\n{numbers}\n\n{table}"


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    split: str = "test",
    data: Any = None,
    tta: str = "none",
    batch_size: int = 256,
    verbose: bool = True,
) -> Evaluation:
    """Evaluate a run's saved model in one pass, and write the numbers into the run folder.

    The model is the one in ``model.keras``, read from disk; that it is the one that `fit` chose
    is checked by the hash of its weights.

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
        batch_size: images or views of them at a time; changes the speed only.
        verbose: show a progress bar when it takes longer than a second or two.

    Returns:
        An `Evaluation`.

    Raises:
        InputError: the run is not whole, or its data cannot be found.

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
    run = Run.open(run)
    model = with_test_time(load_run_model(run), tta)
    examples = _examples(run, split=split, data=data, verbose=verbose)
    class_names = tuple(run.config["class_names"])
    at_a_time = max(1, batch_size // VIEWS[tta])
    predictions = predict(model, examples, class_names, batch_size=at_a_time, verbose=verbose)
    evaluation = _measure(predictions, split, tta)
    _write(run, evaluation, predictions, examples)
    return evaluation


def _examples(run: Run, *, split: str, data: Any, verbose: bool) -> Examples:
    if data is not None:
        return _given_examples(run, split=split, data=data, verbose=verbose)
    source = run.source or _reload(run, verbose=verbose)
    return source.splits[split]


def _reload(run: Run, *, verbose: bool) -> Source:
    """Load the run's data again, split as it was."""
    reference = run.config["reference"]
    if reference is None:
        raise InputError(
            f"`data` must be given for a run that was trained on data in memory. Received: None "
            f"for {str(run)!r}. Pass data=(images, labels), or --data with a folder or CSV file."
        )
    config = FitConfig.from_json(run.config["config"])
    source = prepare(load_source(reference, config), config, verbose=verbose)
    sizes = {name: len(examples) for name, examples in source.splits.items()}
    if sizes != run.config["sizes"] or list(source.class_names) != run.config["class_names"]:
        raise InputError(
            f"`run` must be evaluated on the data it was split from. Received: {reference!r}, "
            f"which now has {sizes} images; the run had {run.config['sizes']}. "
            "Restore the data, or pass `data`."
        )
    if fingerprint(source) != run.config.get("fingerprint"):
        raise InputError(
            f"`run` must be evaluated on the data it was split from. Received: {reference!r}, "
            "whose images or labels are others now. Restore the data, or pass `data`."
        )
    return source


def _given_examples(run: Run, *, split: str, data: Any, verbose: bool) -> Examples:
    class_names = tuple(run.config["class_names"])
    config = FitConfig.from_json(run.config["config"]).replace(class_names=class_names)
    source = load_source(data, config)
    part = split if split in source.splits else next(iter(source.splits))
    examples = as_trained(
        source, part, class_names=class_names, input_shape=tuple(run.config["input_shape"])
    )
    return to_memory(examples, config, verbose=verbose)


def _measure(predictions: Predictions, split: str, tta: str) -> Evaluation:
    names = predictions.class_names
    pair = (predictions.labels, predictions.probabilities)
    return Evaluation(
        split,
        metrics.all_metrics(*pair),
        metrics.per_class(*pair, names),
        metrics.confusion(*pair, names),
        predictions.table(),
        tta,
    )


def _write(run: Run, evaluation: Evaluation, found: Predictions, examples: Examples) -> None:
    values = pd.Series(evaluation.metrics, name="value").rename_axis("metric")
    run.write(run.predictions_file(evaluation.split), found.arrays())
    run.write(run.errors_file, worst_errors(found, examples))
    run.write(run.table_file("metrics"), values)
    run.write(run.table_file("per_class"), evaluation.per_class)
    run.write(run.table_file("confusion"), evaluation.confusion)
    summary = {
        "split": evaluation.split,
        "tta": evaluation.tta,
        "images": len(examples),
        "weights_sha256": run.summary["weights_sha256"],
        "metrics": evaluation.metrics,
    }
    # Last, since it is what says that the evaluation is whole.
    run.write(run.metrics_file, summary)
