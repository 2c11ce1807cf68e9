"""From a list of image files to a source: what folders and tables have in common."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from kclassify.checks import InputError, listing
from kclassify.config import FitConfig
from kclassify.data.files import Inspection, inspect_files
from kclassify.data.labels import encode_indices, encode_names
from kclassify.data.spec import SPLITS, Examples, FileImages, Source


@dataclass(frozen=True)
class ListedFile:
    """An image file and what is known of it. A label is a name or a whole number."""

    path: str
    id: str
    split: str
    label: str | int


def source_of_files(files: list[ListedFile], config: FitConfig) -> Source:
    """Inspect the files and return those that can be read, as a source.

    Raises:
        InputError: an image cannot be read and `config.on_error` is ``"raise"``, or none can.
    """
    inspections = inspect_files([file.path for file in files])
    skipped = [
        (file.id, found.reason)
        for file, found in zip(files, inspections, strict=True)
        if found.reason
    ]
    if skipped and config.on_error == "raise":
        raise _unreadable(skipped, len(files))
    if len(skipped) == len(files):
        raise _unreadable(skipped, len(files))
    rows: dict[str, list[tuple[ListedFile, Inspection]]] = defaultdict(list)
    for file, found in zip(files, inspections, strict=True):
        if found.reason is None:
            rows[file.split].append((file, found))
    parts = {split: np.array([file.label for file, _ in rows[split]]) for split in rows}
    labels, class_names = _encode(parts, config)
    splits = {split: _examples(rows[split], labels[split]) for split in SPLITS if split in rows}
    return Source("files", splits, class_names, tuple(skipped))


def _encode(
    parts: dict[str, np.ndarray], config: FitConfig
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    if config.class_names and all(labels.dtype.kind in "iu" for labels in parts.values()):
        return encode_indices(parts, config.class_names)
    return encode_names(parts)


def _examples(rows: list[tuple[ListedFile, Inspection]], labels: np.ndarray) -> Examples:
    sizes = {found.image_size for _, found in rows}
    images = FileImages(
        np.array([file.path for file, _ in rows], dtype=np.str_),
        image_size=sizes.pop() if len(sizes) == 1 else None,
        channels=1 if all(found.grey for _, found in rows) else 3,
    )
    return Examples(images, labels, np.array([file.id for file, _ in rows], dtype=np.str_))


def _unreadable(skipped: list[tuple[str, str]], total: int) -> InputError:
    lines = [f"{path}: {reason}" for path, reason in skipped]
    return InputError(
        f"`data` must have images that can be read. Received: {len(skipped)} of {total} that "
        f'cannot. Mend or remove them, or pass on_error="skip" to go on without.\n{listing(lines)}'
    )
