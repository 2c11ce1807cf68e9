"""`slices`: on which images a run is worse than on the others."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import correlate1d
from scipy.stats import fisher_exact
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.runs import Run

runtime.prepare()

from kclassify.data.pipeline import eval_dataset  # noqa: E402
from kclassify.data.spec import Examples  # noqa: E402
from kclassify.evaluation.comparison import LEVEL, holm  # noqa: E402
from kclassify.evaluation.intervals import wilson  # noqa: E402
from kclassify.evaluation.metrics import class_ids  # noqa: E402
from kclassify.evaluation.subject import Subject, open_subject, run_of  # noqa: E402

# Fewer images say too little of their accuracy.
LEAST_IMAGES = 20
# A column of more numbers than these is put in quarters.
MOST_VALUES = 10
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
# How bright red, green and blue are to the eye (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BATCH = 256


@dataclass(frozen=True)
class Slices:
    """The accuracy of parts of the images.

    Attributes:
        split: which images.
        images: how many.
        accuracy: of all of them.
        table: a row for each part, worst first: `property` and `slice` say which; `from` and `to`
            are the smallest and the largest value in it, where the property is a number;
            `images`, `right` and `accuracy`, with the ends `low` and `high` of its 95 % interval;
            `difference`, its accuracy less that of all other images; `p`, the probability of a
            difference as large by chance; `p_holm`, the same where so many parts are tested; and
            `worse`, whether the part is worse than the rest by more than chance.
        left_out: how many parts have fewer images than `LEAST_IMAGES`.
    """

    split: str
    images: int
    accuracy: float
    table: pd.DataFrame
    left_out: int

    @property
    def worse(self) -> pd.DataFrame:
        """The parts that are worse than the rest by more than chance."""
        return self.table[self.table["worse"]]

    @property
    def verdict(self) -> str:
        """A sentence about the worst part."""
        if self.worse.empty:
            return "no slice is worse than the rest by more than chance"
        row = self.worse.iloc[0]
        return (
            f"{len(self.worse)} of {len(self.table)} slices are worse than the rest by more than "
            f"chance, most of all {row['property']} {row['slice']}: {100 * row['accuracy']:.1f} % "
            f"of {row['images']:,} images are right, {-100 * row['difference']:.1f} points fewer "
            f"(p {row['p_holm']:.2g})"
        )

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.split}, {self.images:,} images, accuracy {self.accuracy:.4f}; "
                f"{self.left_out} slices below {LEAST_IMAGES} images left out",
                self.table.to_string(index=False, float_format="{:.4g}".format, na_rep=""),
                "",
                self.verdict,
            ]
        )

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format="{:.4g}".format, na_rep="")


def slices(
    run: Run | str | os.PathLike[str],
    *,
    by: str | None = None,
    data: Any = None,
    verbose: bool = True,
) -> Slices:
    """Measure a run on parts of the images that it was evaluated on, worst parts first.

    The parts are the classes, quarters of the images by what they look like, see `PROPERTIES`,
    and the values of a column of your own table. Each part is tested against all other images
    by Fisher's exact test (1922); Holm's correction (1979) is made for how many parts there are.
    What is the same in all images makes no part, and an image without a value is in none.

    Args:
        run: a run that was evaluated, or its folder.
        by: a column of the table that the images are listed in; numbers of more than ten values
            are put in quarters.
        data: images to use instead of the run's own, as in `evaluate`; with `by`, the CSV file or
            DataFrame, unless the run was trained on it.
        verbose: show a progress bar when it takes longer than a second or two.

    Returns:
        `Slices`. The run gets them as ``slices.csv`` and ``slices.json``; its report shows them.

    Raises:
        InputError: the run was not evaluated, its data cannot be found, or there is no such
            column.

    Example:
        >>> import kclassify
        >>> from kclassify.evaluation.slices import slices
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> _ = kclassify.evaluate(run, verbose=False)
        >>> sorted(set(slices(run, verbose=False).table["property"]))
        ['brightness', 'contrast', 'sharpness']
    """
    column = None if by is None else _column(run_of(run), by, data)
    subject = open_subject(run, data=data, verbose=verbose)
    examples = subject.examples()
    parts = list(_parts(subject, examples))
    if column is not None:
        parts += _parts_of_column(column, examples.ids)
    found = _measured(subject, [part for part in parts if 0 < part.inside.sum() < len(examples)])
    written = subject.run
    written.write(written.table_file("slices"), found.table.set_index("property"))
    written.write(written.analysis_file("slices"), _facts(subject, found))
    return found


@dataclass(frozen=True)
class _Part:
    """Some of the images: `inside` is a mask `(n,)`; `ends` are those of a number's values."""

    property: str
    name: str
    inside: np.ndarray
    ends: tuple[float, float] | tuple[None, None] = (None, None)


def _column(run: Run, by: str, data: Any) -> pd.Series:
    from kclassify.data.table import column

    reference = run.config["reference"] if data is None else data
    is_text = isinstance(reference, str | os.PathLike)
    is_csv = is_text and Path(reference).suffix.lower() == ".csv"
    if not is_csv and not isinstance(reference, pd.DataFrame):
        raise InputError(
            f"`data` must be a CSV file or a DataFrame where `by` names a column of it. Received: "
            f"by={by!r} with {reference if is_text else type(reference).__name__!r}. Pass the "
            "table that lists the images."
        )
    return column(reference, by)


def _parts(subject: Subject, examples: Examples) -> Iterator[_Part]:
    """Yield the parts by what the images look like, and by their class."""
    for name, values in _looks(examples, verbose=subject.verbose).items():
        yield from _quarters(name, values)
    given = examples.class_ids
    for index, name in enumerate(subject.class_names):
        yield _Part("class", name, given == index)


def _parts_of_column(column: pd.Series, ids: np.ndarray) -> list[_Part]:
    values = column.reindex(ids)
    name = str(column.name)
    numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numbers and values.nunique() > MOST_VALUES:
        return _quarters(name, values.to_numpy(float))
    return [
        _Part(name, str(value), (values == value).to_numpy()) for value in values.dropna().unique()
    ]


def _quarters(name: str, values: np.ndarray) -> list[_Part]:
    """Return the parts by the quartiles of `values`; equal values are in the same one."""
    edges = np.nanquantile(values, [0.25, 0.5, 0.75])
    places = np.where(np.isnan(values), -1, np.searchsorted(edges, values))
    masks = [places == place for place in range(len(QUARTERS))]
    return [
        _Part(name, quarter, inside, (float(values[inside].min()), float(values[inside].max())))
        for quarter, inside in zip(QUARTERS, masks, strict=True)
        if inside.any()
    ]


def _looks(examples: Examples, *, verbose: bool) -> dict[str, np.ndarray]:
    """Return the properties of all images, by name, each ``(n,)``."""
    batches = tqdm(
        eval_dataset(examples, batch_size=BATCH),
        total=-(-len(examples) // BATCH),
        desc="looking at images",
        unit="batch",
        disable=not verbose,
        delay=1.5,
    )
    parts = [looks_of(images.numpy()) for images, _ in batches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def looks_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what images look like, by the names in `PROPERTIES`, each ``(n,)``.

    Args:
        images: uint8 ``(n, height, width, channels)``; grey ones have no saturation.

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.slices import looks_of
        >>> looks_of(np.full((1, 8, 8, 1), 200, np.uint8))["brightness"].tolist()
        [200.0]
    """
    coloured = images.shape[-1] == len(LUMA)
    pixels = images.astype(np.float32)
    grey = pixels @ LUMA if coloured else pixels[..., 0]
    found = {name: measure(grey) for name, measure in PROPERTIES.items()}
    return {**found, "saturation": _saturation(pixels)} if coloured else found


def _sharpness(grey: np.ndarray) -> np.ndarray:
    """Return the variance of the Laplacian (Pech-Pacheco et al. 2000)."""
    second = [correlate1d(grey, [1.0, -2.0, 1.0], axis=axis) for axis in (1, 2)]
    return np.add(*second).var(axis=(1, 2))


def _saturation(pixels: np.ndarray) -> np.ndarray:
    """Return how far from grey the mean pixel is, from 0 to 255, as in HSV."""
    most, least = pixels.max(axis=-1), pixels.min(axis=-1)
    return 255 * ((most - least) / np.maximum(most, 1)).mean(axis=(1, 2))


# From grey values ``(n, height, width)`` of 0 to 255; sharpness is in squares of these.
PROPERTIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "brightness": lambda grey: grey.mean(axis=(1, 2)),
    "contrast": lambda grey: grey.std(axis=(1, 2)),
    "sharpness": _sharpness,
}


def _measured(subject: Subject, parts: list[_Part]) -> Slices:
    predictions = subject.predictions
    right = predictions.probabilities.argmax(axis=1) == class_ids(predictions.labels)
    large = [part for part in parts if part.inside.sum() >= LEAST_IMAGES]
    table = pd.DataFrame([_row(part, right) for part in large], columns=_COLUMNS)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["worse"] = (table["p_holm"] < LEVEL) & (table["difference"] < 0)
    table = table.sort_values(["accuracy", "p"], kind="stable", ignore_index=True)
    left_out = len(parts) - len(large)
    return Slices(subject.split, len(right), float(right.mean()), table, left_out)


_COLUMNS = (
    "property", "slice", "from", "to", "images", "right", "accuracy", "low", "high", "difference",
    "p",
)  # fmt: skip


def _row(part: _Part, right: np.ndarray) -> tuple[Any, ...]:
    inside, outside = right[part.inside], right[~part.inside]
    counts = [[int(some.sum()), int((~some).sum())] for some in (inside, outside)]
    accuracy = float(inside.mean())
    low, high = wilson(counts[0][0], len(inside))
    return (
        part.property, part.name, *part.ends, len(inside), counts[0][0], accuracy, float(low),
        float(high), accuracy - float(outside.mean()), float(fisher_exact(counts).pvalue),
    )  # fmt: skip


def _facts(subject: Subject, found: Slices) -> dict[str, Any]:
    table = found.table.astype(object).where(found.table.notna(), None)
    return {
        "split": found.split,
        **subject.whose,
        "images": found.images,
        "accuracy": found.accuracy,
        "left_out": found.left_out,
        "least_images": LEAST_IMAGES,
        "verdict": found.verdict,
        "slices": table.to_dict("records"),
    }
