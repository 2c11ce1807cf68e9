"""`compress`: a run made smaller and quicker, within a loss that is stated beforehand."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kclassify import runtime
from kclassify.atomic import replacing
from kclassify.checks import (
    DivergedError,
    InputError,
    OutOfMemoryError,
    check_choice,
    check_number,
)
from kclassify.runs import Run, read_json

runtime.prepare()

from kclassify.compression.measuring import (  # noqa: E402
    Judged,
    itself,
    judge,
    least_drop,
    nearest_candidates,
    trade_off,
)
from kclassify.compression.parent import Parent, child_path, open_parent  # noqa: E402
from kclassify.compression.quantization import SCHEMES, UnwritableError  # noqa: E402
from kclassify.compression.retraining import produce, retraining  # noqa: E402
from kclassify.compression.techniques import TECHNIQUES  # noqa: E402
from kclassify.evaluation.comparison import Comparison, compare  # noqa: E402
from kclassify.evaluation.evaluate import evaluate  # noqa: E402
from kclassify.evaluation.predictions import read_predictions  # noqa: E402
from kclassify.reporting.report import report  # noqa: E402
from kclassify.training.cluster import check_alone  # noqa: E402
from kclassify.training.notes import say, silent  # noqa: E402

# The shares of the parameters that a search leaves, in their order. With the first, a file of 8-bit
# numbers is a sixth of one of 32.
WIDTHS = (0.6, 0.4, 0.25)
# Of the parent's epochs, for each width: with a third of them fewer networks pass.
SHARE = 1 / 2
# What shows only while a technique is carried out that it does not suit a network.
UNSUITABLE = (DivergedError, OutOfMemoryError, UnwritableError)
# The files that a search writes of each network, the first whose packages are there.
FILES = ("litert_int8", "onnx_int8")


@dataclass(frozen=True)
class Compression:
    """What `compress` made.

    Attributes:
        run: the new run; of several, the one with the smallest file that passes.
        parent: the run that it came of.
        table: the trade-off, the parent first: of each run its `accuracy` on validation images
            with interval, its `difference` to the parent with `low` and `high`, whether it
            `passes`, `parameters`, `macs`, `megabytes` and `gzip_megabytes` of the file that is
            served, `p50_ms` and `p95_ms` of one image, `images_per_second` of 256, and whether
            it is on the `pareto` front.
        comparison: of the new run with its parent, on test images.
    """

    run: Run
    parent: Run
    table: pd.DataFrame
    comparison: Comparison

    def __str__(self) -> str:
        columns = ["run", "accuracy", "difference", "low", "high", "passes", "megabytes",
                   "gzip_megabytes", "p50_ms", "images_per_second", "pareto"]  # fmt: skip
        table = self.table[columns].to_string(index=False, float_format="{:.4g}".format)
        return f"{table}\n\n{self.run}, on test images:\n{self.comparison.verdict}"

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False) + f"<p>{escape(str(self.run))}</p>"


def compress(
    run: Run | str | os.PathLike[str],
    *,
    technique: str | None = None,
    max_drop: float = 0.005,
    run_dir: str | os.PathLike[str] | None = None,
    data: Any = None,
    verbose: bool = True,
    **options: Any,
) -> Compression:
    """Make a run smaller and quicker, as far as a stated loss of accuracy allows.

    Without a technique, channels are pruned further and further, each network is trained by its
    parent for half of the parent's epochs, and written as a file of 8-bit numbers where LiteRT or
    ONNX Runtime is installed. That ends with the first that does not pass, or where another would
    take it past the time of the parent's own training. Of those that pass, the one with the
    smallest file is taken, and only that one sees the test images, once, at the end. Whether one
    passes, the validation images say: all of the 95 % interval of its difference to its parent has
    to be above ``-max_drop``.

    What is made is a run as any other, with its parent named. The same call goes on where it was
    stopped.

    Args:
        run: a run of `fit`, or its folder.
        technique: one of them alone: ``"prune"``, ``"prune_filters"``, ``"low_rank"``,
            ``"distill"``, ``"clip"`` or ``"quantize"``.
        max_drop: the most accuracy that may be lost, in (0, 1); with a technique it is only
            shown whether it passes.
        run_dir: where to write: the new run, or without a technique the folder of all that are
            tried. By default beside the run, under a name that begins as its own.
        data: what the run was trained on, where it cannot be loaded again.
        verbose: show what is done.
        **options: the technique's own (``sparsity=0.9``; `kclassify compress --help` lists them);
            `teacher`, ``"parent"`` (the default), a run, a ``.keras`` file, a list of these, or
            None, with `temperature`, `weight` and `match`; and fields of `FitConfig` for the
            training.

    Returns:
        A `Compression`. The new run has the trade-off in ``compression.csv`` and
        ``compression.json``; its report shows it.

    Raises:
        InputError: a technique that the model cannot take, an option that is none, or no run that
            passes; what was tried stays where it is.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=3, run_dir="my-run", verbose=False)
        >>> small = kclassify.compress(run, technique="prune", sparsity=0.5, verbose=False)
        >>> small.run.path.name
        'my-run-prune-50'
    """
    check_alone("compress")
    if technique is not None:
        check_choice("technique", technique, TECHNIQUES)
    ok = isinstance(max_drop, float) and 0 < max_drop < 1
    check_number("max_drop", max_drop, expected="a share between 0 and 1, such as 0.005", ok=ok)
    began = time.perf_counter()
    parent = open_parent(run, data=data, verbose=verbose)
    _check_comparable(parent)
    bench = Bench(parent, max_drop, verbose)
    if technique is None:
        _check_budget(max_drop, len(parent.right))
        chosen = _search(bench, child_path(parent, "compressed", run_dir), options)
    else:
        recipe = TECHNIQUES[technique](parent, **_with_budget(technique, options, max_drop))
        made = produce(parent, recipe, run_dir=run_dir, verbose=verbose)
        bench.begin()
        chosen = bench.judge(made)
    bench.tell(f"{time.perf_counter() - began:.0f} s for all that was tried")
    return _finish(bench, chosen.run)


def _check_comparable(parent: Parent) -> None:
    """Raise `InputError` where the parent's evaluation is not one to compare others with."""
    run = parent.run
    if not run.predictions_file("test").is_file():
        return
    found, ids = read_predictions(run, "test"), parent.source.splits["test"].ids
    if found.tta != "none" or not np.array_equal(found.ids, ids):
        of = "other images" if found.tta == "none" else f"test-time augmentation {found.tta}"
        raise InputError(
            f"`run` must have been evaluated on its own test images without test-time "
            f"augmentation, or not yet, so that others can be compared with it. Received: "
            f"{str(run)!r}, evaluated with {of}. Run `kclassify evaluate {run}` again."
        )


def _check_budget(max_drop: float, images: int) -> None:
    least = least_drop(images)
    if max_drop < least:
        raise InputError(
            f"`max_drop` must be at least {least:.4f} for {images:,} validation images: of so few, "
            "even a network with the same answers cannot be shown to lose less. "
            f"Received: max_drop={max_drop!r}. Give a higher one, or name a technique."
        )


def _with_budget(technique: str, options: dict[str, Any], max_drop: float) -> dict[str, Any]:
    return {"max_drop": max_drop, **options} if technique in ("clip", "quantize") else options


@dataclass(frozen=True)
class Bench:
    """Where runs are measured beside one parent.

    Attributes:
        parent: the run.
        max_drop: the most accuracy that may be lost.
        verbose: whether it is shown what is done.
        judged: what was measured so far.
    """

    parent: Parent
    max_drop: float
    verbose: bool
    judged: list[Judged] = field(default_factory=list)

    @property
    def tell(self) -> Callable[..., None]:
        """Print a line, or do not."""
        return say if self.verbose else silent

    def begin(self) -> None:
        """Measure the parent."""
        self._note(itself(self.parent))

    def judge(self, run: Run) -> Judged:
        """Measure a run, and say what it is worth."""
        return self._note(judge(run, self.parent, max_drop=self.max_drop))

    def _note(self, found: Judged) -> Judged:
        self.judged.append(found)
        self.tell(f"measured  {found}")
        return found


def _search(bench: Bench, folder: Path, options: dict[str, Any]) -> Judged:
    """Make narrower and narrower networks until one does not pass, and files of them.

    Raises:
        InputError: nothing passes.
    """
    parent, spent = bench.parent, _Spent(folder / "seconds.json")
    options = {"epochs": max(1, math.ceil(SHARE * parent.epochs)), **options}
    # What is wrong with the training is said now, not taken for a technique that does not suit.
    retraining(parent, options)
    scheme = _scheme(bench)
    spent.on("as it is", lambda: _not_narrower(bench, folder, options, scheme))
    took = 0.0
    for share in WIDTHS:
        if took and spent.seconds + took > parent.training.seconds:
            bench.tell(f"stops     {share:.0%} of the parameters would take it past the time of "
                       "the parent's training")  # fmt: skip
            break
        narrow = partial(_narrower, bench, folder, {**options, "parameters": share}, scheme)
        passes, took = spent.on(f"{share:.0%}", narrow)
        if not passes:
            break
    return _smallest(bench)


class _Spent:
    """What the parts of a search took, kept so that the same call again decides the same.

    Args:
        file: where.
    """

    def __init__(self, file: Path):
        self.file = file
        self.parts = read_json(file, {}) if file.exists() else {}

    @property
    def seconds(self) -> float:
        """Of all the parts."""
        return sum(self.parts.values())

    def on(self, part: str, work: Callable[[], Any]) -> tuple[Any, float]:
        """Do a part; return what it returns, and the seconds that it took the first time."""
        began = time.perf_counter()
        found = work()
        took = self.parts.setdefault(part, time.perf_counter() - began)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as beside:
            beside.write_text(json.dumps(self.parts), "utf-8")
        return found, took


def _not_narrower(bench: Bench, folder: Path, options: dict[str, Any], scheme: str | None) -> None:
    """Measure the parent, a file of it, and one with kernels of low rank."""
    bench.begin()
    if scheme is not None:
        _file(bench, bench.parent, folder, scheme, scheme)
    _tried(bench, "low_rank", bench.parent, folder=folder, **options)


def _narrower(bench: Bench, folder: Path, options: dict[str, Any], scheme: str | None) -> bool:
    """Make a narrower network, and a file of it if it passes; tell whether it does."""
    made = _tried(bench, "prune_filters", bench.parent, folder=folder, **options)
    if made is None or not made.passes:
        return False
    if scheme is not None:
        small = open_parent(made.run, data=None, verbose=bench.verbose)
        _file(bench, small, folder, f"{made.run.path.name}-{scheme}", scheme)
    return True


def _file(bench: Bench, network: Parent, folder: Path, name: str, scheme: str) -> Judged | None:
    options: dict[str, Any] = {"scheme": scheme, "max_drop": bench.max_drop}
    return _tried(bench, "quantize", network, folder=folder, name=name, **options)


def _tried(
    bench: Bench,
    technique: str,
    network: Parent,
    *,
    folder: Path,
    name: str | None = None,
    **options: Any,
) -> Judged | None:
    """Try a technique on a network, or say why it is left out; `name` is one for the run."""
    recipe = None
    try:
        recipe = TECHNIQUES[technique](network, **options)
        place = folder / (name or recipe.name)
        made = produce(network, recipe, run_dir=place, verbose=bench.verbose)
    except InputError as error:
        # Another kind of refusal is of the folder, and ends the search.
        if recipe is not None and not isinstance(error, UNSUITABLE):
            raise
        bench.tell(f"left out  {error}")
        return None
    return bench.judge(made)


def _scheme(bench: Bench) -> str | None:
    """Return the first of `FILES` that can be written here."""
    for name in FILES:
        if all(find_spec(package) for package in SCHEMES[name].packages):
            return name
    bench.tell("left out  files of 8-bit numbers, for which kclassify[litert] or kclassify[onnx] "
               "has to be installed")  # fmt: skip
    return None


def _smallest(bench: Bench) -> Judged:
    others = bench.judged[1:]
    if not others:
        raise InputError(
            f"`run` must have a model that something makes smaller. Received: "
            f"{str(bench.parent.run)!r}, for which all was left out, as said above. Install "
            "kclassify[litert] or kclassify[onnx] for files of 8-bit numbers, or name a technique."
        )
    passing = [one for one in others if one.passes]
    if not passing:
        images = len(bench.parent.right)
        raise InputError(
            f"`max_drop` must be a loss that something keeps to. Received: {bench.max_drop!r}, and "
            f"of what was tried for {str(bench.parent.run)!r} nothing surely does on "
            f"{images:,} validation images. Nearest:\n{nearest_candidates(others)}\n"
            "Give a higher one, or more `epochs`, and another `run_dir`: what was tried is kept."
        )
    return min(passing, key=lambda one: one.row["megabytes"])


def _finish(bench: Bench, run: Run) -> Compression:
    """Measure the new run and its parent on the test images, and write what it is all worth."""
    parent, table = bench.parent.run, trade_off(bench.judged)
    if not parent.predictions_file("test").is_file():
        evaluate(parent, verbose=bench.verbose)
    evaluate(run, verbose=bench.verbose)
    found = compare(parent, run)
    run.write(run.table_file("compression"), table.set_index("run"))
    facts = {
        "weights_sha256": run.summary["weights_sha256"],
        "parent": str(parent),
        "chosen": run.path.name,
        "max_drop": bench.max_drop,
        "images": len(bench.parent.right),
        "technique": run.config["compression"],
        "rows": table.to_dict("records"),
    }
    run.write(run.analysis_file("compression"), facts)
    report(run)
    return Compression(run, parent, table, found)
