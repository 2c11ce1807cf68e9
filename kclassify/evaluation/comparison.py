"""`compare`: whether one run is better than another, image by image."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

from kclassify import runtime
from kclassify.checks import InputError, check_choice, check_number
from kclassify.data.spec import SPLITS
from kclassify.runs import Run

runtime.prepare()

from kclassify.evaluation.intervals import CONFIDENCE, wilson  # noqa: E402
from kclassify.evaluation.metrics import class_ids  # noqa: E402
from kclassify.evaluation.predictions import Predictions, read_predictions  # noqa: E402

LEVEL = 1 - CONFIDENCE


@dataclass(frozen=True)
class Comparison:
    """Two or more runs on the same images, each pair of them tested.

    Attributes:
        split: which images.
        images: how many.
        runs: a row a run: its accuracy and the 95 % interval.
        pairs: a row for each two runs `a` and `b`: `difference`, the accuracy of b less that of a,
            with the ends `low` and `high` of its 95 % interval; `fixed`, how many images b has
            right and a has wrong; `broken`, the other way round; `p`, the probability of a
            difference as large by chance; `p_holm`, the same where several pairs are tested; and
            `better`, the run that is, or nothing where they cannot be told apart.
        per_class: a row for each class of each pair: the accuracies on its images, and how many
            b fixed and broke.
        changes: a row for each image that b fixed or broke: id, given, and what a and b said.
    """

    split: str
    images: int
    runs: pd.DataFrame
    pairs: pd.DataFrame
    per_class: pd.DataFrame
    changes: pd.DataFrame

    @property
    def fixed(self) -> pd.DataFrame:
        """The images that b has right and a has wrong."""
        return self.changes[self.changes["change"] == "fixed"]

    @property
    def broken(self) -> pd.DataFrame:
        """The images that a has right and b has wrong."""
        return self.changes[self.changes["change"] == "broken"]

    @property
    def verdict(self) -> str:
        """A sentence for each pair."""
        return "\n".join(self._sentence(row) for row in self.pairs.to_dict("records"))

    def _sentence(self, row: dict[Any, Any]) -> str:
        points = (
            f"{100 * row['difference']:+.2f} points, "
            f"95 % of chance {100 * row['low']:+.2f} to {100 * row['high']:+.2f}"
        )
        if not row["better"]:
            both = f"{row['a']} and {row['b']}"
            return f"{both} cannot be told apart at {self.images:,} images ({points})"
        other = row["a"] if row["better"] == row["b"] else row["b"]
        return f"{row['better']} is better than {other} ({points}, p {row['p_holm']:.2g})"

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.split}, {self.images:,} images",
                self.runs.to_string(float_format="{:.4f}".format),
                "",
                self.pairs.to_string(index=False, float_format="{:.4g}".format),
                "",
                self.verdict,
            ]
        )

    def _repr_html_(self) -> str:
        said = f"<p>{escape(self.verdict)}</p>"
        return self.runs.to_html() + self.pairs.to_html(index=False) + said


def compare(
    a: Run | str | os.PathLike[str],
    b: Run | str | os.PathLike[str],
    *others: Run | str | os.PathLike[str],
    split: str = "test",
) -> Comparison:
    """Compare runs by what they said of the same images.

    That both saw the same images says more than two accuracies: only the images count on which
    just one of the two is right. Whether one has more of them than chance would give is McNemar's
    test (1947) in its exact form; of several pairs, Holm's correction (1979) is made. The interval
    of the difference is that of Bonett and Price (2012).

    Args:
        a: a run that was evaluated, or its folder.
        b: another one.
        *others: more of them; then every two are compared.
        split: which evaluation of them.

    Returns:
        A `Comparison`. The last run gets it as ``comparison.csv``, ``comparison-changes.csv`` and
        ``comparison.json``, and its report shows it.

    Raises:
        InputError: a run was not evaluated, or on other images, classes or test-time views than
            the others.

    Example:
        >>> import kclassify
        >>> a, b = (kclassify.fit("digits", epochs=n, run_dir=f"e{n}", verbose=False)
        ...         for n in (1, 2))
        >>> for run in (a, b):
        ...     _ = kclassify.evaluate(run, verbose=False)
        >>> len(kclassify.compare(a, b).pairs)
        1
    """
    check_choice("split", split, SPLITS)
    runs = [Run.open(run) for run in (a, b, *others)]
    found = [read_predictions(run, split) for run in runs]
    names = _names(runs)
    for run, one in zip(runs[1:], found[1:], strict=True):
        _check_same(found[0], one, first_run=runs[0], run=run)
    given = class_ids(found[0].labels)
    right = np.array([one.probabilities.argmax(axis=1) == given for one in found])
    places = list(combinations(range(len(runs)), 2))
    comparison = Comparison(
        split,
        len(given),
        _accuracies(names, right),
        _tested(names, right, places),
        _by_class(names, right, places, given, found[0].class_names),
        _changes(names, right, places, found),
    )
    _write(runs[-1], comparison, found[-1].key(split))
    return comparison


def _write(run: Run, found: Comparison, evaluated: str) -> None:
    run.write(run.table_file("comparison"), found.pairs.set_index("a"))
    run.write(run.table_file("comparison-classes"), found.per_class.set_index("a"))
    run.write(run.table_file("comparison-changes"), found.changes.set_index("a"))
    facts = {
        "split": found.split,
        "weights_sha256": run.summary["weights_sha256"],
        "evaluated": evaluated,
        "images": found.images,
        "runs": found.runs.reset_index().to_dict("records"),
        "pairs": found.pairs.to_dict("records"),
        "verdict": found.verdict,
    }
    run.write(run.analysis_file("comparison"), facts)


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the folders' names, or all of their paths where two have the same name."""
    short = [run.path.resolve().name for run in runs]
    check_number(
        "b", str(runs[1]), expected="another run than `a`",
        ok=len({run.path.resolve() for run in runs}) == len(runs),
    )  # fmt: skip
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _check_same(first: Predictions, other: Predictions, *, first_run: Run, run: Run) -> None:
    """Raise `InputError` unless both are of the same images, with the same labels and classes."""
    differs = None
    if first.class_names != other.class_names:
        differs = f"the classes {list(other.class_names)} rather than {list(first.class_names)}"
    elif not np.array_equal(first.ids, other.ids):
        differs = f"{len(other.ids):,} images, other ones than its {len(first.ids):,}"
    elif not np.array_equal(class_ids(first.labels), class_ids(other.labels)):
        differs = "the same images with other labels"
    elif first.tta != other.tta:
        differs = f"test-time augmentation {other.tta} rather than {first.tta}"
    if differs:
        raise InputError(
            f"`runs` must have been evaluated on the same images as {str(first_run)!r}. Received: "
            f"{str(run)!r}, which has {differs}. Evaluate both with the same `data` and `tta`."
        )


def _accuracies(names: Sequence[str], right: np.ndarray) -> pd.DataFrame:
    low, high = wilson(right.sum(axis=1), right.shape[1])
    columns = {"accuracy": right.mean(axis=1), "low": low, "high": high}
    return pd.DataFrame(columns, index=pd.Index(names, name="run"))


def _tested(
    names: Sequence[str], right: np.ndarray, places: Sequence[tuple[int, int]]
) -> pd.DataFrame:
    rows = []
    for a, b in places:
        fixed, broken = int(np.sum(right[b] & ~right[a])), int(np.sum(right[a] & ~right[b]))
        low, high = difference_interval(fixed, broken, images=right.shape[1])
        rows.append(
            {
                "a": names[a], "b": names[b], "difference": (fixed - broken) / right.shape[1],
                "low": low, "high": high, "fixed": fixed, "broken": broken,
                "p": mcnemar(fixed, broken),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy())
    told = table["p_holm"] < LEVEL
    better = np.where(table["difference"] > 0, table["b"], table["a"])
    return table.assign(better=np.where(told, better, ""))


def mcnemar(fixed: int, broken: int) -> float:
    """Return the probability of so uneven a split by chance (McNemar 1947, exact, two-sided).

    Example:
        >>> from kclassify.evaluation.comparison import mcnemar
        >>> round(mcnemar(10, 1), 4)
        0.0117
    """
    changed = fixed + broken
    return float(binomtest(fixed, changed).pvalue) if changed else 1.0


def difference_interval(
    fixed: int, broken: int, *, images: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval of the difference of two accuracies on the same images.

    Wald's, with one image added to either side (Bonett and Price 2012).

    Example:
        >>> from kclassify.evaluation.comparison import difference_interval
        >>> low, high = difference_interval(60, 30, images=1000)
        >>> f"{low:.3f} to {high:.3f}"
        '0.011 to 0.049'
    """
    gained, lost = (fixed + 1) / (images + 2), (broken + 1) / (images + 2)
    spread = np.sqrt((gained + lost - (gained - lost) ** 2) / (images + 2))
    half = norm.ppf(0.5 + confidence / 2) * spread
    return max(-1.0, float(gained - lost - half)), min(1.0, float(gained - lost + half))


def holm(p: np.ndarray) -> np.ndarray:
    """Return the probabilities of several tests, such that all may be read at one level (1979).

    Example:
        >>> import numpy as np
        >>> from kclassify.evaluation.comparison import holm
        >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty_like(scaled, dtype=float)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def _by_class(
    names: Sequence[str],
    right: np.ndarray,
    places: Sequence[tuple[int, int]],
    given: np.ndarray,
    class_names: Sequence[str],
) -> pd.DataFrame:
    members = [given == index for index in range(len(class_names))]
    rows = [
        {
            "a": names[a], "b": names[b], "class": name, "images": int(inside.sum()),
            "accuracy_a": _mean(right[a][inside]), "accuracy_b": _mean(right[b][inside]),
            "fixed": int(np.sum((right[b] & ~right[a])[inside])),
            "broken": int(np.sum((right[a] & ~right[b])[inside])),
        }
        for a, b in places
        for name, inside in zip(class_names, members, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _changes(
    names: Sequence[str],
    right: np.ndarray,
    places: Sequence[tuple[int, int]],
    found: Sequence[Predictions],
) -> pd.DataFrame:
    classes = np.asarray(found[0].class_names, dtype=object)
    given = classes[class_ids(found[0].labels)]
    said = [classes[one.probabilities.argmax(axis=1)] for one in found]
    parts = []
    for a, b in places:
        changed = np.flatnonzero(right[a] != right[b])
        parts.append(
            pd.DataFrame(
                {
                    "a": names[a], "b": names[b], "id": found[0].ids[changed],
                    "given": given[changed], "said_by_a": said[a][changed],
                    "said_by_b": said[b][changed],
                    "change": np.where(right[b][changed], "fixed", "broken"),
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)
