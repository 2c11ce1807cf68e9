"""The files of an export and their hashes: whether they are still those that were verified.

A SavedModel is a program, and whoever can change it can change the hashes too: they show an
accident or a careless change, not an attack. TensorFlow is not needed.
"""

import json
from pathlib import Path

from kclassify.atomic import file_hash

METADATA = Path("assets.extra", "metadata.json")
MANIFEST = Path("assets.extra", "manifest.json")


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in an export, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: file_hash(path) for name, path in names.items() if name != MANIFEST.as_posix()}


def deviation(folder: Path, *, only: str | None = None) -> str | None:
    """Return in what an export differs from what was written, or None.

    Args:
        folder: of a version.
        only: one of its files, where only that is of interest.
    """
    try:
        written = json.loads((folder / MANIFEST).read_text("utf-8"))
        written = {str(name): str(value) for name, value in written.items()}
    except OSError:
        return f"there is no {MANIFEST}, so whether they are as they were verified is not known"
    except (ValueError, AttributeError, RecursionError):
        return f"{MANIFEST} is damaged"
    found = file_hashes(folder)
    names = sorted(written.keys() | found.keys()) if only is None else [only]
    changed = [name for name in names if written.get(name) != found.get(name)]
    return f"{', '.join(changed)}: not as {MANIFEST.name} says" if changed else None
