"""Stratified, seeded splits. NumPy only."""

from dataclasses import replace

import numpy as np

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data.spec import SPLITS, Examples, PackedImages, Source


def split_source(source: Source, config: FitConfig) -> dict[str, Examples]:
    """Return all three splits: those the source has, and the others taken from its train.

    The test split is taken first, then validation; of every class, each gets its share and at
    least one image. Which ones depends on `config.seed` alone.

    Raises:
        InputError: there is no train split, one class only, or too few images of a class.
    """
    splits = dict(source.splits)
    if "train" not in splits:
        raise InputError(
            f"`data` must have a train split. Received: {source.name!r} with only "
            f"{sorted(splits)}. Add it, or give images without splits."
        )
    _check_classes(source)
    missing = [split for split in ("test", "validation") if split not in splits]
    _check_counts(source, missing)
    for done, split in enumerate(missing):
        fraction = config.test_fraction if split == "test" else config.validation_fraction
        rng = np.random.default_rng((config.seed, SPLITS.index(split)))
        train = splits["train"]
        # One image of each class has to be left for train, and for each split that follows.
        taken = _share(train.class_ids, fraction, keep=len(missing) - done, rng=rng)
        splits[split] = train.take(np.flatnonzero(taken))
        splits["train"] = train.take(np.flatnonzero(~taken))
    return {split: splits[split] for split in SPLITS}


def share_of_train(source: Source, fraction: float, *, seed: int) -> Source:
    """Return the source with as much of its train split, of every class its share.

    Of packed images that are read as they are used, it is whole files.

    Args:
        source: prepared.
        fraction: above 0, up to 1; at least one image of each class is left.
        seed: which images are taken depends on it alone.
    """
    if fraction == 1:
        return source
    train = source.splits["train"]
    if isinstance(train.images, PackedImages):
        fewer = _first_files(train, train.images, fraction)
        return replace(source, splits={**source.splits, "train": fewer})
    rng = np.random.default_rng((seed, SPLITS.index("train")))
    taken = _share(train.class_ids, fraction, keep=0, rng=rng)
    return replace(source, splits={**source.splits, "train": train.take(np.flatnonzero(taken))})


def _first_files(train: Examples, images: PackedImages, fraction: float) -> Examples:
    """Return the images of some files, each of which is a random sample; they stay where they are.

    As many files as the share has, at least one.
    """
    files = max(1, round(fraction * len(images.paths)))
    count = int(images.counts[:files].sum())
    fewer = replace(
        images, paths=images.paths[:files], counts=images.counts[:files],
        sizes=images.sizes[:files], hashes=images.hashes[:files], offsets=images.offsets[:count],
    )  # fmt: skip
    return Examples(fewer, train.labels[:count], train.ids[:count])


def _check_classes(source: Source) -> None:
    present = np.unique(source.splits["train"].class_ids)
    if len(present) < 2:
        name = source.class_names[present[0]]
        raise InputError(
            f"`data` must have at least two classes in train. Received: {source.name!r} with "
            f"{name!r} only. Add images of another class."
        )


def _check_counts(source: Source, missing: list[str]) -> None:
    needed = 1 + len(missing)
    counts = np.bincount(source.splits["train"].class_ids, minlength=source.num_classes)
    few = np.flatnonzero((counts > 0) & (counts < needed))
    if len(few):
        name, count = source.class_names[few[0]], counts[few[0]]
        raise InputError(
            f"`data` must have at least {needed} images of each class, one for train and one for "
            f"each of {missing} that is taken from it. Received: {count} of {name!r}. "
            "Add images, or leave the class out."
        )


def _share(
    class_ids: np.ndarray, fraction: float, *, keep: int, rng: np.random.Generator
) -> np.ndarray:
    """Return a mask over `class_ids` that is true for the images taken, `keep` of each left."""
    taken = np.zeros(len(class_ids), dtype=bool)
    for class_id in np.unique(class_ids):
        members = rng.permutation(np.flatnonzero(class_ids == class_id))
        wanted = max(1, round(fraction * len(members)))
        taken[members[: min(wanted, len(members) - keep)]] = True
    return taken
