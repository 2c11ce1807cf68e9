"""`find_label_errors`: which labels of a dataset are wrong, by models that have not seen them."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from kclassify import runtime
from kclassify.checks import InputError, check_number, is_whole
from kclassify.config import FitConfig, own_rate
from kclassify.data.fingerprint import fingerprint
from kclassify.data.sources import default_preset, load_source, prepare, source_name
from kclassify.data.spec import SPLITS, Examples, FileImages, Images, PackedImages, Source
from kclassify.evaluation.confident_learning import margins, wrong_labels
from kclassify.runs import Run, run_path

runtime.prepare()

from kclassify.data.pipeline import first_images  # noqa: E402
from kclassify.evaluation.predictions import predict, read_predictions  # noqa: E402
from kclassify.evaluation.run_data import source_of  # noqa: E402
from kclassify.models.saved import load_run_model  # noqa: E402
from kclassify.training.batch_size import before_loading  # noqa: E402
from kclassify.training.cluster import check_alone  # noqa: E402
from kclassify.training.fit import fit  # noqa: E402
from kclassify.training.notes import say, silent  # noqa: E402

BATCH = 256
# Of a class, so that each fold's training part has one to train on and one to validate on.
LEAST_IMAGES = 4
MOST_PICTURES = 40
MOST_PAIRS = 12
MOST_SIDE = 64
# Wrong labels have the largest losses: they would come twice.
SHOWN = {"skip_learned": None}


@dataclass(frozen=True)
class LabelErrors:
    """The labels of a dataset, the least probable first.

    Attributes:
        split: which images were looked at.
        folds: in how many parts.
        table: a row an image: `id`; its `given` label; the `suggested` one, which is the most
            probable; `self_confidence`, the probability of the given one; `margin`, that less the
            highest of another; and whether the label is `estimated` to be wrong.
        file: where the table is kept, as CSV.
    """

    split: str
    folds: int
    table: pd.DataFrame
    file: Path

    @property
    def wrong(self) -> pd.DataFrame:
        """The rows of the labels that are estimated to be wrong."""
        return self.table[self.table["estimated"]]

    @property
    def estimated(self) -> int:
        """How many labels are estimated to be wrong."""
        return len(self.wrong)

    @property
    def accuracy(self) -> float:
        """The share of the labels that models predicted which had not seen the images."""
        return float((self.table["given"] == self.table["suggested"]).mean())

    @property
    def pairs(self) -> list[tuple[str, str, int]]:
        """Given and suggested label of those, and of how many images, most images first."""
        counts = Counter(zip(self.wrong["given"], self.wrong["suggested"], strict=True))
        return [(*pair, images) for pair, images in counts.most_common()]

    @property
    def verdict(self) -> str:
        """One sentence."""
        images, wrong = len(self.table), self.estimated
        most = ", most often {} that looks like {} ({})".format(*self.pairs[0]) if wrong else ""
        return (
            f"{wrong:,} of {images:,} labels of {self.split} are estimated to be wrong "
            f"({100 * wrong / images:.1f} %){most}; models that had not seen the images predicted "
            f"{100 * self.accuracy:.1f} % of all labels"
        )

    def __str__(self) -> str:
        rows = self._head().to_string(index=False, float_format="{:.3f}".format)
        return f"{rows}\n{self.verdict}\nall of them, the worst first: {self.file}"

    def _repr_html_(self) -> str:
        return self._head().to_html(index=False, float_format="{:.3f}".format)

    def _head(self) -> pd.DataFrame:
        return self.wrong.drop(columns="estimated").head(MOST_PICTURES)


def find_label_errors(
    data: Any,
    *,
    folds: int = 5,
    run: Run | str | os.PathLike[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    **config: Any,
) -> LabelErrors:
    """Find labels that are wrong, by confident learning (Northcutt, Jiang and Chuang 2021).

    The images are put in `folds` parts, alike in classes. For each part a classifier is trained on
    the others, where its validation images are taken from too, and says how probable each class
    is for the part that it has not seen. See `kclassify.evaluation.confident_learning` for what
    follows from that; `folds` trainings are what it costs. The better the classifier, the fewer
    right labels are taken to be wrong.

    All images are looked at but those of a test split that the data comes with.

    Each training is a run in `directory`. What was stopped goes on with the same call: trainings
    that ended are not made again. The folder can be deleted afterwards.

    Args:
        data: as for `fit`; with `run`, what that was trained on.
        folds: at least 2; each class must have as many images, and at least 4.
        run: a finished run on the same data, or its folder, whose report then shows what was found.
        directory: where the trainings are kept. By default beside the run, named after it, or a
            new folder in ``saved_models/``.
        verbose: show each training.
        **config: `preset` and what else `fit` takes of each training, its `time_budget` too. By
            default that of the run, unless a `preset` is given, but with all images shown: the
            ones with wrong labels are the last that `skip_learned` leaves out.

    Returns:
        A `LabelErrors`. Its table is ``label_errors.csv`` in the run, which has the ``.json`` and
        the images, ``.npz``, for its report too; without a run it is in `directory`.

    Raises:
        InputError: an option is not what it should be, a class has too few images, or the run was
            trained on other data.
        KeyboardInterrupt: Ctrl-C, after the step was saved.

    Example:
        >>> import kclassify
        >>> from kclassify.evaluation.label_errors import find_label_errors
        >>> found = find_label_errors(
        ...     "digits", folds=2, epochs=1, directory="label-errors", verbose=False
        ... )
        >>> len(found.table), found.split
        (1797, 'train, validation and test')
    """
    check_alone("find_label_errors")
    expected = "a whole number of at least 2"
    check_number("folds", folds, expected=expected, ok=is_whole(folds, least=2))
    run = None if run is None else Run.open(run)
    preset, options = _recipe(data, run, config)
    settings = before_loading(preset, options)
    place = _directory(data, run, directory)
    source, split = _looked_at(data, run, settings, verbose=verbose)
    _check_counts(source, folds)
    probabilities = _out_of_fold(
        source, _parts(source, folds, settings.seed), place,
        preset=preset, verbose=verbose, **options,
    )  # fmt: skip
    kept = run or Run(place)
    table, order = _ranked(source, probabilities)
    found = LabelErrors(split, int(folds), table, kept.table_file("label_errors"))
    kept.write(found.file, table.set_index("id"))
    if run is not None:
        _write_for_report(run, found, source.splits["train"].take(order))
    return found


def _recipe(data: Any, run: Run | None, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the preset and the options of the trainings: the run's, where no preset is given."""
    options = dict(config)
    preset = options.pop("preset", None)
    if preset is None and run is not None:
        return run.config["preset"], {**_options_of(run, options), **SHOWN, **options}
    return preset or default_preset(data), {**SHOWN, **options}


def _options_of(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's configuration without what `given` makes void."""
    own = FitConfig.from_json(run.config["config"]).to_json()
    # It may have been stopped since.
    del own["data_service"]
    if "epochs" in given:
        del own["time_budget"]
    elif given.get("time_budget", own["time_budget"]) is not None:
        del own["epochs"]
    if given.get("model", own["model"]) != own["model"]:
        del own["model_args"]
    return own | own_rate(given, before=own["optimizer"])


def _directory(data: Any, run: Run | None, directory: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the trainings, or refuse one that cannot be written."""
    if directory is None and run is None:
        return run_path(None, name=f"{source_name(data)}-label-errors")
    place = Path(f"{run}-label-errors" if directory is None else directory)
    run_path(_fold_dir(place, 1), name="")
    return place


def _fold_dir(place: Path, number: int) -> Path:
    return place / f"fold-{number}"


def _looked_at(
    data: Any, run: Run | None, settings: FitConfig, *, verbose: bool
) -> tuple[Source, str]:
    """Return the images that are looked at as one train split, and which splits they are of."""
    own = settings if run is None else FitConfig.from_json(run.config["config"])
    loaded = load_source(data, own)
    source = prepare(loaded, own, verbose=verbose)
    if run is not None and fingerprint(source) != run.config.get("fingerprint"):
        raise InputError(
            f"`run` must be one that was trained on `data`. Received: {str(run)!r}, whose images "
            "or labels are others. Give the data that it was trained on, or leave the run out."
        )
    own_test = "test" in loaded.splits
    names = SPLITS[:2] if own_test else SPLITS
    said = "train and validation" if own_test else "train, validation and test"
    joined = _joined([source.splits[name] for name in names])
    return replace(source, splits={"train": joined}), said


def _joined(parts: list[Examples]) -> Examples:
    """Return the examples of prepared splits as one."""
    first = parts[0].images
    if isinstance(first, PackedImages):
        raise InputError(
            "`data` must fit `memory_budget` once it is packed, since each training leaves another "
            f"part of it out. Received: {len(first):,} images of {first.input_shape}. Raise "
            "memory_budget, or give the images as they were before."
        )
    if isinstance(first, FileImages):
        paths = [part.images.paths for part in parts if isinstance(part.images, FileImages)]
        images: Images = replace(first, paths=np.concatenate(paths))
    else:
        images = np.concatenate([np.asarray(part.images) for part in parts])
    labels, ids = ([getattr(part, name) for part in parts] for name in ("labels", "ids"))
    return Examples(images, np.concatenate(labels), np.concatenate(ids))


def _check_counts(source: Source, folds: int) -> None:
    needed = max(folds, LEAST_IMAGES)
    counts = np.bincount(source.splits["train"].class_ids, minlength=source.num_classes)
    few = np.flatnonzero((counts > 0) & (counts < needed))
    if len(few):
        name, count = source.class_names[few[0]], counts[few[0]]
        raise InputError(
            f"`data` must have at least {needed} images of each class for folds={folds}. Received: "
            f"{count} of {name!r}. Take fewer folds, add images, or leave the class out."
        )


def _parts(source: Source, folds: int, seed: int) -> list[np.ndarray]:
    """Return the places of the images of each fold, drawn by `seed` alone."""
    given = source.splits["train"].class_ids
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [held_out for _, held_out in splitter.split(given, given)]


def _out_of_fold(
    source: Source, parts: list[np.ndarray], place: Path, *, verbose: bool, **options: Any
) -> np.ndarray:
    """Return what models say of images that they have not seen: float32 ``(n, num_classes)``."""
    tell, examples = say if verbose else silent, source.splits["train"]
    found = np.zeros((len(examples), source.num_classes), np.float32)
    for number, held_out in enumerate(parts, start=1):
        tell(f"fold {number} of {len(parts)}")
        others = np.setdiff1d(np.arange(len(examples)), held_out)
        splits = {"train": examples.take(others), "test": examples.take(held_out)}
        fold = replace(source, splits=splits)
        try:
            run = fit(fold, run_dir=_fold_dir(place, number), verbose=verbose, **options)
        except KeyboardInterrupt:
            advice = f"; the same with --directory {place} goes on from there"
            raise KeyboardInterrupt(advice) from None
        found[held_out] = _said(run, verbose=verbose)
    return found


def _said(run: Run, *, verbose: bool) -> np.ndarray:
    """Return what a fold's model says of its test split, the held-out images; the run keeps it."""
    try:
        return read_predictions(run, "test").probabilities
    except InputError:
        examples = source_of(run, verbose=verbose).splits["test"]
        model, names = load_run_model(run), tuple(run.config["class_names"])
        said = predict(model, examples, names, batch_size=BATCH, verbose=verbose)
        run.write(run.predictions_file("test"), said.arrays())
        return said.probabilities


def _ranked(source: Source, probabilities: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the table, and which image each of its rows is."""
    examples, names = source.splits["train"], np.asarray(source.class_names, dtype=object)
    given = examples.class_ids
    confidence = probabilities[np.arange(len(given)), given]
    columns = {
        "id": examples.ids,
        "given": names[given],
        "suggested": names[probabilities.argmax(axis=1)],
        "self_confidence": confidence,
        "margin": margins(given, probabilities),
        "estimated": wrong_labels(given, probabilities),
    }
    # Of labels that were changed at random it finds more than the margin does.
    order = confidence.argsort(kind="stable")
    return pd.DataFrame({name: values[order] for name, values in columns.items()}), order


def _write_for_report(run: Run, found: LabelErrors, examples: Examples) -> None:
    """Write the facts and the worst images; `examples` are in the order of the table."""
    worst = found.wrong.head(MOST_PICTURES)
    images = first_images(examples.take(worst.index.to_numpy()), len(worst))
    step = -(-max(images.shape[1:3]) // MOST_SIDE)
    run.write(run.arrays_file("label_errors"), {"images": images[:, ::step, ::step]})
    facts = {
        "split": found.split, "images": len(found.table), "folds": found.folds,
        "estimated": found.estimated, "accuracy": found.accuracy, "verdict": found.verdict,
        "pairs": [list(pair) for pair in found.pairs[:MOST_PAIRS]],
        "worst": worst.drop(columns="estimated").to_dict("records"),
        "weights_sha256": run.summary["weights_sha256"],
    }  # fmt: skip
    run.write(run.analysis_file("label_errors"), facts)
