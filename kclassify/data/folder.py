"""A folder of class folders, or of train, validation and test folders that hold class folders."""

from pathlib import Path

from kclassify.checks import InputError, nearest
from kclassify.config import FitConfig
from kclassify.data.files import IMAGE_SUFFIXES
from kclassify.data.listed import ListedFile, source_of_files
from kclassify.data.spec import SPLIT_NAMES, Source


def load(reference: str, config: FitConfig) -> Source:
    """Load a folder: its sorted image files, labelled by their class folders.

    Files without the suffix of an image and hidden ones are passed over.

    Raises:
        InputError: there is no such folder, it holds no images, or some cannot be read.
    """
    root = Path(reference)
    if not root.is_dir():
        raise InputError(
            f"`data` must be a folder of class folders. Received: {str(root)!r}, no folder. "
            "Check the path."
        )
    files = [
        ListedFile(str(path), path.relative_to(root).as_posix(), split, class_folder.name)
        for split, folder in _split_folders(root)
        for class_folder in _folders(folder)
        for path in _images(class_folder)
    ]
    if not files:
        raise InputError(
            f"`data` must be a folder with images in class folders, such as cat/1.png. "
            f"Received: {str(root)!r}, where there is none. "
            f"Images end in one of {list(IMAGE_SUFFIXES)}."
        )
    return source_of_files(files, config)


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """Return the folders of splits; where there are none, the root, which is then split later."""
    folders = _folders(root)
    # A class may be called "train": a split's folder is one that has folders in it.
    if not any(folder.name in SPLIT_NAMES and _folders(folder) for folder in folders):
        return [("train", root)]
    for folder in folders:
        if folder.name not in SPLIT_NAMES:
            raise InputError(
                f"`data` must have no other folders beside those of the splits, "
                f"{sorted(SPLIT_NAMES)}. Received: {str(folder)!r}."
                f"{nearest(folder.name, SPLIT_NAMES)} Rename or move it."
            )
    return [(SPLIT_NAMES[folder.name], folder) for folder in folders]


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
