"""`robustness`: how many images a run still has right where images are worse, or an attack.

Worse images are those with the 15 common corruptions of Hendrycks and Dietterich 2019, at five
severities. An attack changes images by little, knowing the network: FGSM (Goodfellow et al. 2015)
and PGD (Madry et al. 2018).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from kclassify import runtime
from kclassify.checks import InputError, check_number, is_whole
from kclassify.reporting.tables import read_analysis
from kclassify.runs import Run

runtime.prepare()

from kclassify.data.pipeline import eval_dataset, first_images  # noqa: E402
from kclassify.data.spec import Examples  # noqa: E402
from kclassify.evaluation.adversarial import attacked_accuracy, check_epsilons  # noqa: E402
from kclassify.evaluation.answers import answers_of  # noqa: E402
from kclassify.evaluation.cifar10_c import open_cifar10_c  # noqa: E402
from kclassify.evaluation.corruption_tables import (  # noqa: E402
    CLEAN,
    accuracy_table,
    by_severity,
    class_table,
    corruption_table,
)
from kclassify.evaluation.corruptions import (  # noqa: E402
    CORRUPTIONS,
    SEVERITIES,
    WorseImages,
    corrupt,
    part_size,
)
from kclassify.evaluation.intervals import wilson  # noqa: E402
from kclassify.evaluation.metrics import class_ids  # noqa: E402
from kclassify.evaluation.sampling import stratified  # noqa: E402
from kclassify.evaluation.subject import Subject, open_subject, read_evaluation, run_of  # noqa: E402
from kclassify.models.saved import check_layers  # noqa: E402

# Of 255, and of how many images at most: PGD goes over them eleven times for each.
EPSILONS, ATTACKED = (1, 2, 4, 8), 1000
# Parts that are corrupted before the network is asked: enough for many cores.
PARTS = 8
# Of the example of each corruption: how severe, and how many pixels a side at most.
SHOWN_SEVERITY, SHOWN_SIDE = 3, 128
HERE, PUBLISHED = "kclassify", "CIFAR-10-C"


@dataclass(frozen=True)
class Robustness:
    """The accuracy of a run on worse images.

    Attributes:
        split: which images were made worse.
        corrupted_by: ``"kclassify"`` or ``"CIFAR-10-C"``: who made them worse.
        table: a row for each `corruption` and `severity`, the first for clean images: `images`,
            `right` and `accuracy`, with the ends `low` and `high` of its 95 % interval.
        corruptions: a row for each corruption: `accuracy` and `error`, means over the severities;
            against a baseline `relative_error`, the error divided by the baseline's, and
            `relative_increase`, the same of what the error is more than on clean images, which is
            missing where the baseline's is not more.
        classes: a row for each class: `images`; `clean_accuracy`; `accuracy`, the mean over all
            corruptions, with `low` and `high`; and the corruption that it is worst with.
        attacks: what `attacked_accuracy` returns; no rows where none were asked for.
        baseline: the run whose errors count as 1, or None.
    """

    split: str
    corrupted_by: str
    table: pd.DataFrame
    corruptions: pd.DataFrame
    classes: pd.DataFrame
    attacks: pd.DataFrame
    baseline: str | None = None

    @property
    def images(self) -> int:
        """How many images were made worse, each in 75 ways."""
        return int(self.table["images"].iloc[-1])

    @property
    def attacked(self) -> int:
        """How many of them were attacked."""
        return int(self.attacks["images"].max()) if len(self.attacks) else 0

    @property
    def clean_accuracy(self) -> float:
        """On the images as they were."""
        return float(self.table["accuracy"].iloc[0])

    @property
    def mean_corrupted_accuracy(self) -> float:
        """The mean over all corruptions and severities."""
        return float(self.corruptions["accuracy"].mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of its 95 % interval, as if one image were wrong in all ways or in none."""
        low, high = wilson(self.mean_corrupted_accuracy * self.images, self.images)
        return float(low), float(high)

    @property
    def mean_corruption_error(self) -> float | None:
        """The paper's mCE, of 1: errors divided by the baseline's; None without a baseline."""
        return self._mean("relative_error")

    @property
    def relative_mean_corruption_error(self) -> float | None:
        """The paper's relative mCE, which takes the clean error from both; None if undefined."""
        return self._mean("relative_increase")

    def _mean(self, column: str) -> float | None:
        values = self.corruptions.get(column)
        return None if values is None or values.isna().any() else float(values.mean())

    @property
    def worst(self) -> pd.Series:
        """The row of the worst corruption."""
        return self.corruptions.iloc[int(self.corruptions["accuracy"].to_numpy().argmin())]

    @property
    def verdict(self) -> str:
        """One sentence."""
        clean, mean = 100 * self.clean_accuracy, 100 * self.mean_corrupted_accuracy
        name, worst = self.worst["corruption"].replace("_", " "), 100 * self.worst["accuracy"]
        parts = [
            f"{clean:.1f} % of clean images are right, and {mean:.1f} % on average over "
            f"{len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities, fewest with {name}, "
            f"{worst:.1f} %"
        ]
        if self.mean_corruption_error is not None:
            error = self.mean_corruption_error
            parts.append(f"the mean corruption error is {error:.2f} of that of {self.baseline}")
        if len(self.attacks):
            row = self.attacks.iloc[int(self.attacks["accuracy"].to_numpy().argmin())]
            by = f"{row['attack'].upper()} by {row['epsilon']} of 255"
            parts.append(f"{by} leaves {100 * row['accuracy']:.1f} %")
        return "; ".join(parts)

    def __str__(self) -> str:
        tables = [by_severity(self.table)]
        if len(self.attacks):
            tables.append(self.attacks.pivot(index="attack", columns="epsilon", values="accuracy"))
        return "\n\n".join(
            [
                f"{self.split}, {self.images:,} images, corrupted by {self.corrupted_by}: accuracy",
                *(table.to_string(float_format="{:.3f}".format) for table in tables),
                self.verdict,
            ]
        )

    def _repr_html_(self) -> str:
        return by_severity(self.table).to_html(float_format="{:.3f}".format)


def robustness(
    run: Run | str | os.PathLike[str],
    *,
    images: int | None = None,
    cifar10_c: str | os.PathLike[str] | None = None,
    baseline: Run | str | os.PathLike[str] | None = None,
    attacks: bool | Sequence[int] = True,
    seed: int = 0,
    data: Any = None,
    verbose: bool = True,
) -> Robustness:
    """Measure a run's model, as it was evaluated, on worse images of the evaluated split.

    There are 15 corruptions at five severities, so that it takes 75 times as long as `evaluate`
    and longer: minutes for 10,000 small images. Few images are in memory at a time.

    Args:
        run: a run that was evaluated, or its folder.
        images: how many at most, of every class its share; by default all. The attacks get 1,000
            of them at most.
        cifar10_c: the folder of CIFAR-10-C, whose images are taken instead of images made here.
        baseline: a run whose robustness was measured, and whose errors count as 1. The paper's
            is an AlexNet.
        attacks: whether FGSM and PGD are tried too, or by how much they may change each value, of
            255: ``(1, 2, 4, 8)`` unless you say so.
        seed: of the corruptions, of the attacks and of which images are taken.
        data: images to use instead of the run's own, as in `evaluate`.
        verbose: show a progress bar when it takes longer than a second or two.

    Returns:
        A `Robustness`. The run has it as ``robustness.csv``, ``robustness_classes.csv``,
        ``adversarial.csv``, ``robustness.npz`` (an example of each corruption) and
        ``robustness.json``, and its report shows it.

    Raises:
        InputError: an argument is not what it should be, the run was not evaluated, or the
            baseline was measured on something else.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> _ = kclassify.evaluate(run, verbose=False)
        >>> found = kclassify.robustness(run, images=50, attacks=False, verbose=False)
        >>> found.table["corruption"].unique()[:4].tolist()
        ['clean', 'gaussian_noise', 'shot_noise', 'impulse_noise']
    """
    _check_numbers(images, seed)
    epsilons = _epsilons(attacks)
    published = None if cifar10_c is None else open_cifar10_c(cifar10_c, run_of(run))
    made_by = HERE if published is None else PUBLISHED
    errors = None if baseline is None else _errors_of(baseline, run_of(run), made_by)
    subject = open_subject(run, data=data, verbose=verbose)
    if attacks:
        check_layers(subject.run, purpose="attacks (attacks=False leaves them out)")
    examples, clean = _sample(subject, images, seed)
    worse = published.sample(images, seed=seed) if published else _made_here(examples, seed)
    right, shown = _right(subject, worse)
    table = accuracy_table(clean, right)
    found = Robustness(
        subject.split, made_by, table, corruption_table(table, errors),
        class_table(subject.class_names, (clean, examples.class_ids), (right, worse.labels)),
        _attacked(subject, examples, epsilons, seed), None if baseline is None else str(baseline),
    )  # fmt: skip
    first = {} if published else {CLEAN: first_images(examples, 1)[0]}
    _write(subject, found, {**first, **shown})
    return found


def _check_numbers(images: object, seed: object) -> None:
    least = "a whole number of at least "
    some = images is None or is_whole(images, least=1)
    check_number("images", images, expected=f"{least}1, or None for all", ok=some)
    check_number("seed", seed, expected=f"{least}0", ok=is_whole(seed, least=0))


def _epsilons(attacks: object) -> Sequence[int]:
    if isinstance(attacks, bool):
        return EPSILONS if attacks else ()
    check_epsilons("attacks", attacks)
    return attacks  # type: ignore[return-value]


def _errors_of(baseline: Run | str | os.PathLike[str], run: Run, made_by: str) -> dict[str, float]:
    """Return a baseline's mean errors by corruption, if it was measured on what the run will be."""
    other = Run.open(baseline)
    # What it was measured on is compared below, whatever it was evaluated on since.
    facts = read_analysis(other, "robustness", of_last=False)
    if facts is None:
        raise InputError(
            f"`baseline` must be a run whose robustness was measured. Received: {str(other)!r}. "
            f"Run `kclassify robustness {other}` first."
        )
    ours = [run.config["class_names"], read_evaluation(run)["split"], made_by]
    theirs = [other.config["class_names"], facts["split"], facts["corrupted_by"]]
    if theirs != ours:
        raise InputError(
            f"`baseline` must have been measured on the classes, split and corruptions that the "
            f"run is, {ours}. Received: {str(other)!r}, measured on {theirs}."
        )
    errors = {row["corruption"]: row["error"] for row in facts["corruptions"]}
    flawless = [name for name, error in errors.items() if error == 0]
    if flawless:
        raise InputError(
            f"`baseline` must have errors with every corruption, to divide by. Received: "
            f"{str(other)!r}, without errors with {', '.join(flawless)}. Take a weaker run."
        )
    return {CLEAN: 1 - facts["clean_accuracy"], **errors}


def _sample(subject: Subject, most: int | None, seed: int) -> tuple[Examples, np.ndarray]:
    """Return some of the evaluated examples, and which of them the run has right."""
    given = class_ids(subject.predictions.labels)
    picked = stratified(given, most or len(given), seed=seed)
    right = subject.predictions.probabilities[picked].argmax(axis=1) == given[picked]
    # All of them can stay where they are.
    examples = subject.examples()
    return examples if len(picked) == len(given) else examples.take(picked), right


def _made_here(examples: Examples, seed: int) -> WorseImages:
    size = PARTS * part_size(first_images(examples, 1).shape[1:])
    batches = enumerate(eval_dataset(examples, batch_size=size))
    return WorseImages(
        examples.class_ids,
        (partial(corrupt, images.numpy(), seed=(seed, number)) for number, (images, _) in batches),
    )


def _right(subject: Subject, worse: WorseImages) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return what is right, (corruptions, severities, n), and the first image of each corruption.

    An image is corrupted, shown to the model and forgotten.
    """
    answers = answers_of(subject.model)
    cells = list(product(CORRUPTIONS, SEVERITIES))
    said: dict[tuple[str, int], list[np.ndarray]] = {cell: [] for cell in cells}
    shown: dict[str, np.ndarray] = {}
    work = ((batch, cell) for batch in worse.batches for cell in cells)
    with _bar(len(cells) * len(worse.labels), verbose=subject.verbose) as bar:
        for batch, (name, severity) in work:
            images = batch(name, severity)
            said[name, severity].append(answers(images))
            if severity == SHOWN_SEVERITY:
                shown.setdefault(name, images[0].copy())
            bar.update(len(images))
    right = np.stack([np.concatenate(said[cell]) == worse.labels for cell in cells])
    return right.reshape(len(CORRUPTIONS), len(SEVERITIES), -1), shown


def _bar(images: int, *, verbose: bool) -> tqdm:
    return tqdm(
        total=images, desc="corrupting", unit=" images", unit_scale=True, delay=1.5,
        disable=not verbose,
    )  # fmt: skip


def _attacked(
    subject: Subject, examples: Examples, epsilons: Sequence[int], seed: int
) -> pd.DataFrame:
    chosen = examples.take(stratified(examples.class_ids, ATTACKED, seed=seed))
    return attacked_accuracy(
        subject.model, first_images(chosen, ATTACKED), chosen.class_ids, epsilons=epsilons,
        seed=seed, verbose=subject.verbose,
    )  # fmt: skip


def _write(subject: Subject, found: Robustness, shown: dict[str, np.ndarray]) -> None:
    run = subject.run
    run.write(run.table_file("robustness"), found.table.set_index("corruption"))
    run.write(run.table_file("robustness_classes"), found.classes.set_index("class"))
    run.write(run.table_file("adversarial"), found.attacks.set_index("attack"))
    step = -(-max(next(iter(shown.values())).shape[:2]) // SHOWN_SIDE)
    small = np.stack([image[::step, ::step] for image in shown.values()])
    arrays = {"images": small, "corruptions": np.array(list(shown))}
    run.write(run.arrays_file("robustness"), arrays)
    run.write(run.analysis_file("robustness"), _facts(subject, found))


def _facts(subject: Subject, found: Robustness) -> dict[str, Any]:
    """Return what `robustness.json` holds; the model card shows the numbers of its top level."""
    rows = found.corruptions.astype(object).where(found.corruptions.notna(), None)
    return {
        "split": found.split,
        **subject.whose,
        "corrupted_by": found.corrupted_by,
        "sample": {"images": found.images, "attacked": found.attacked},
        "clean_accuracy": found.clean_accuracy,
        "mean_corrupted_accuracy": found.mean_corrupted_accuracy,
        "interval": found.interval,
        "worst_corruption": found.worst["corruption"],
        "worst_corruption_accuracy": found.worst["accuracy"],
        "unnormalized_mean_corruption_error": 1 - found.mean_corrupted_accuracy,
        "mean_corruption_error": found.mean_corruption_error,
        "relative_mean_corruption_error": found.relative_mean_corruption_error,
        "baseline": found.baseline,
        "verdict": found.verdict,
        "corruptions": rows.to_dict("records"),
    }
