"""`check`: what is wrong with the images, before anything is trained on them."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.config import FitConfig, resolve
from kclassify.data.files import FORMAT_SUFFIXES, IMAGE_SUFFIXES, Inspection, inspect_files
from kclassify.data.look_alikes import look_alikes
from kclassify.data.looks import Looks, look_at
from kclassify.data.sources import default_preset, load_source
from kclassify.data.spec import FileImages, Source
from kclassify.data.splitting import split_source
from kclassify.runs import Run

# Loaders of data import TensorFlow, and it is to be set up before.
runtime.prepare()

SEVERITIES = ("error", "warning", "note")
MOST_NAMED = 20
# Images of the most frequent class for one of the rarest.
IMBALANCE = 10


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a word for it, such as ``"leakage"``.
        severity: ``"error"``, ``"warning"`` or ``"note"``.
        count: how often.
        what: a sentence.
        examples: some of the images, by their ids.
    """

    kind: str
    severity: str
    count: int
    what: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataCheck:
    """All that `check` found; printing it shows the table.

    Attributes:
        name: of the data.
        counts: images of each class (rows) in each split (columns).
        findings: errors first.
    """

    name: str
    counts: pd.DataFrame
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes may be."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        counts = {str(name): row.to_dict() for name, row in self.counts.iterrows()}
        findings = [asdict(finding) for finding in self.findings]
        return {"name": self.name, "ok": self.ok, "counts": counts, "findings": findings}

    def __str__(self) -> str:
        sizes = ", ".join(f"{count:,} {split}" for split, count in self.counts.sum().items())
        lines = [f"{self.name}: {sizes}; {len(self.counts)} classes"]
        lines += [f"{f.severity:8} {f.kind:12} {f.what}{_named(f)}" for f in self.findings]
        return "\n".join(lines if self.findings else [*lines, "nothing was found"])


def check(data: Any, *, verbose: bool = True, **config: Any) -> DataCheck:
    """Look for what is wrong with images and labels, in the splits that `fit` would make.

    Errors are what makes a result wrong: images that cannot be read, images of one split that are
    in another too, one image with two labels, a class that train does not have. Duplicates within
    a split, near duplicates across splits, blank images, wrong endings of file names and rare
    classes are warnings; what `fit` takes care of by itself is noted.

    Args:
        data: what `fit` takes, or a run or its folder: then the check is kept there, and the
            report has a section for it.
        verbose: show a progress bar when it takes longer than a second or two.
        **config: fields of `FitConfig` that the splits depend on, such as ``seed=1``.

    Returns:
        A `DataCheck`.

    Raises:
        InputError: the data is of no known kind, or none of it can be read.

    Example:
        >>> import kclassify
        >>> found = kclassify.check("digits", verbose=False)
        >>> found.ok
        True
    """
    run = _run(data)
    if run is None:
        settings = resolve(default_preset(data), {"batch_size": 1, **config})
    else:
        data, settings = _reference(run), FitConfig.from_json(run.config["config"])
    source = load_source(data, settings.replace(on_error="skip"))
    source = replace(source, splits=split_source(source, settings))
    found = DataCheck(source.name, _counts(source), tuple(_findings(source, verbose=verbose)))
    if run is not None:
        run.write(run.data_check_file, found.to_json())
    return found


def _run(data: Any) -> Run | None:
    if isinstance(data, Run):
        return data
    is_path = isinstance(data, str | os.PathLike)
    return Run.open(data) if is_path and Run.is_run(data) else None


def _reference(run: Run) -> str:
    reference = run.config.get("reference")
    if reference is None:
        raise InputError(
            f"`data` must be what the run was trained on, where that was in memory. Received: "
            f"{str(run)!r}. Pass the images and labels themselves."
        )
    return reference


def _counts(source: Source) -> pd.DataFrame:
    columns = {
        split: np.bincount(examples.class_ids, minlength=source.num_classes)
        for split, examples in source.splits.items()
    }
    return pd.DataFrame(columns, index=list(source.class_names))


def _findings(source: Source, *, verbose: bool) -> list[Finding]:
    looks = look_at(source.splits, verbose=verbose)
    everything = _Everything.of(source)
    found = [
        *_unreadable(source),
        *_file_findings(source),
        *_class_findings(source),
        *_blank(everything, looks),
        *_duplicates(everything, looks),
        *_near_duplicates(everything, looks),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


@dataclass(frozen=True)
class _Everything:
    """The images of all the splits: ids, class ids and the split of each."""

    ids: np.ndarray
    class_ids: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, source: Source) -> "_Everything":
        parts = source.splits.items()
        return cls(
            np.concatenate([part.ids for _, part in parts]),
            np.concatenate([part.class_ids for _, part in parts]),
            np.concatenate([np.full(len(part), split) for split, part in parts]),
        )

    def named(self, indices: Iterable[int]) -> tuple[str, ...]:
        return tuple(str(self.ids[index]) for index in list(indices)[:MOST_NAMED])

    def pairs_named(self, pairs: np.ndarray) -> tuple[str, ...]:
        return tuple(
            f"{self.splits[a]}: {self.ids[a]} = {self.splits[b]}: {self.ids[b]}"
            for a, b in pairs[:MOST_NAMED]
        )


def _unreadable(source: Source) -> list[Finding]:
    named = tuple(f"{path}: {reason}" for path, reason in source.skipped[:MOST_NAMED])
    what = f"cannot be read: {_images(len(source.skipped))}"
    return [Finding("unreadable", "error", len(source.skipped), what, named)] if named else []


def _file_findings(source: Source) -> list[Finding]:
    parts = source.splits.values()
    paths = [p for part in parts if isinstance(part.images, FileImages) for p in part.images.paths]
    if not paths:
        return []
    ids = np.concatenate([part.ids for part in parts])
    inspections = inspect_files(paths)
    rows = list(zip(ids, paths, inspections, strict=True))
    return [
        *_per_image(rows, "file name", "warning", _misnamed, "named for another format"),
        *_per_image(rows, "rotation", "note", _turned, "stored turned, as Exif says; used upright"),
        *_mixed(inspections),
    ]  # fmt: skip


def _misnamed(path: str, found: Inspection) -> bool:
    name = path.lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.endswith(FORMAT_SUFFIXES[found.format])


def _turned(_: str, found: Inspection) -> bool:
    return found.turned


def _per_image(
    rows: list[tuple[str, str, Inspection]],
    kind: str,
    severity: str,
    wrong: Callable[[str, Inspection], bool],
    what: str,
) -> list[Finding]:
    ids = [str(id) for id, path, found in rows if wrong(path, found)]
    sentence = f"{what}: {_images(len(ids))}"
    return [Finding(kind, severity, len(ids), sentence, tuple(ids[:MOST_NAMED]))] if ids else []


def _mixed(inspections: list[Inspection]) -> list[Finding]:
    sizes = sorted({found.image_size for found in inspections})
    grey = sum(found.grey for found in inspections)
    found = []
    if len(sizes) > 1:
        (low, *_, high) = sizes
        what = (
            f"{len(sizes):,} sizes, from {low[0]}x{low[1]} to {high[0]}x{high[1]} (height x "
            "width); all are brought to one"
        )
        found.append(Finding("sizes", "note", len(sizes), what))
    if 0 < grey < len(inspections):
        what = f"{grey:,} of {len(inspections):,} images are grey; they are used as colour"
        found.append(Finding("channels", "note", grey, what))
    return found


def _class_findings(source: Source) -> list[Finding]:
    counts = _counts(source)
    found = []
    for split in counts:
        absent = [str(name) for name in counts.index[counts[split] == 0]]
        severity = "error" if split == "train" else "warning"
        what = f"classes without an image in {split}: {len(absent)}"
        found += [Finding("no images", severity, len(absent), what, tuple(absent[:MOST_NAMED]))
                  ] * bool(absent)  # fmt: skip
    present = counts["train"][counts["train"] > 0]
    if present.max() >= IMBALANCE * present.min():
        most, least = present.idxmax(), present.idxmin()
        what = (
            f"train has {present.max():,} images of {str(most)!r} and {present.min():,} of "
            f'{str(least)!r}; class_weights="balanced" makes them count alike'
        )
        found.append(Finding("imbalance", "warning", int(present.max() // present.min()), what))
    return found


def _blank(everything: _Everything, looks: Looks) -> list[Finding]:
    places = np.flatnonzero(looks.blank)
    what = f"of one colour all over, or nearly: {_images(len(places))}"
    finding = Finding("blank", "warning", len(places), what, everything.named(places))
    return [finding] * bool(len(places))


def _duplicates(everything: _Everything, looks: Looks) -> list[Finding]:
    _, firsts, places = np.unique(looks.digests, return_index=True, return_inverse=True)
    pairs = np.stack([firsts[places], np.arange(len(places))], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    labels = everything.class_ids[pairs]
    contrary = pairs[labels[:, 0] != labels[:, 1]]
    within, across = _by_split(everything, pairs)
    return [
        *_pairs(everything, across, "leakage", "error", "in two splits"),
        *_pairs(everything, contrary, "labels", "error", "with two labels"),
        *_pairs(everything, within, "duplicates", "warning", "twice within a split"),
    ]


def _near_duplicates(everything: _Everything, looks: Looks) -> list[Finding]:
    pairs = look_alikes(looks.hashes, looks.small, looks.sides)
    shown = ~looks.blank[pairs].any(axis=1)
    pairs = pairs[(looks.digests[pairs[:, 0]] != looks.digests[pairs[:, 1]]) & shown]
    within, across = _by_split(everything, pairs)
    return [
        *_pairs(everything, across, "look-alikes", "warning", "like one of another split"),
        *_pairs(everything, within, "look-alikes", "note", "like another of their split"),
    ]


def _by_split(everything: _Everything, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    splits = everything.splits[pairs]
    same = splits[:, 0] == splits[:, 1]
    return pairs[same], pairs[~same]


def _pairs(
    everything: _Everything, pairs: np.ndarray, kind: str, severity: str, what: str
) -> list[Finding]:
    count = len(np.unique(pairs[:, 1])) if len(pairs) else 0
    sentence = f"{what}: {_images(count)}"
    finding = Finding(kind, severity, count, sentence, everything.pairs_named(pairs))
    return [finding] * bool(count)


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _named(finding: Finding) -> str:
    if not finding.examples:
        return ""
    more = ", ..." if finding.count > 3 else ""
    return f" ({', '.join(finding.examples[:3])}{more})"
