"""CIFAR-10 (Krizhevsky 2009): from TFDS, or from the official binary or python archive.

The python archive is made of pickles, and a pickle is a program: it is read by an unpickler that
can build NumPy arrays and nothing else.
"""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data import tfds
from kclassify.data.spec import Examples, Source

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEMBERS = {"train": tuple(f"data_batch_{part}" for part in range(1, 6)), "test": ("test_batch",)}
RECORD = 1 + 3 * 32 * 32
# Twice what a batch of 10,000 takes; of what unpacks to more, nothing is read.
MOST_BYTES = 2 * 10_000 * RECORD
# Of a whole archive, so that one that unpacks without end is not followed.
MOST_MEMBERS = 100
Batch = tuple[np.ndarray, np.ndarray]


def load(reference: str, config: FitConfig) -> Source:
    """Load ``"cifar10"`` from TFDS, or the official archive, packed or not, at a path.

    Nothing is extracted from a packed archive, and none of its code is run.

    Raises:
        InputError: TFDS cannot download it, or the archive is not whole.
    """
    if str(reference) == "cifar10":
        return tfds.load("tfds:cifar10", config)
    path = Path(reference)
    members = _members(path)
    binary = "data_batch_1.bin" in members
    splits = {split: _split(members, split, binary=binary, path=path) for split in MEMBERS}
    return Source("cifar10", splits, CLASS_NAMES)


def is_archive(path: Path) -> bool:
    """Tell the official archive, packed or unpacked, from other files and folders."""
    if path.is_dir():
        return any((path / f"data_batch_1{suffix}").is_file() for suffix in ("", ".bin"))
    return tarfile.is_tarfile(path)


def _members(path: Path) -> dict[str, bytes]:
    """Return the bytes of the batches by name."""
    wanted = {f"{name}{suffix}" for names in MEMBERS.values() for name in names
              for suffix in ("", ".bin")}  # fmt: skip
    if path.is_dir():
        return {
            name: _whole(path / name, (path / name).stat().st_size, path).read_bytes()
            for name in wanted
            if (path / name).is_file()
        }
    try:
        with tarfile.open(path) as archive:
            return _packed(archive, wanted, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _packed(archive: tarfile.TarFile, wanted: set[str], path: Path) -> dict[str, bytes]:
    found = {}
    for count, member in enumerate(archive):
        if count >= MOST_MEMBERS:
            raise _damaged(path, f"it holds more than {MOST_MEMBERS} files")
        name = Path(_whole(member.name, member.size, path)).name
        # Links are followed within the archive only, and nothing is written anywhere.
        if name in wanted and member.isfile() and (stream := archive.extractfile(member)):
            found[name] = stream.read()
    return found


def _whole(member: Any, size: int, path: Path) -> Any:
    """Return `member`, or refuse an archive with one that is far too large."""
    if size > MOST_BYTES:
        raise _damaged(path, f"{member} is {size:,} bytes large")
    return member


def _split(members: dict[str, bytes], split: str, *, binary: bool, path: Path) -> Examples:
    decode: Callable[[bytes], Batch] = _decode_binary if binary else _decode_python
    batches = []
    for name in MEMBERS[split]:
        member = f"{name}.bin" if binary else name
        if member not in members:
            raise _damaged(path, f"{member} is missing")
        try:
            batches.append(_checked(*decode(members[member])))
        except (pickle.UnpicklingError, ValueError, LookupError, TypeError, EOFError,
                AttributeError, ImportError, MemoryError, OverflowError) as error:  # fmt: skip
            raise _damaged(path, f"{member}: {error}") from error
    planes, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    ids = np.array([f"cifar10/{split}/{index}" for index in range(len(labels))])
    return Examples(np.ascontiguousarray(images), labels.astype(np.int32), ids)


def _decode_binary(content: bytes) -> Batch:
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return records[:, 1:], records[:, 0]


def _decode_python(content: bytes) -> Batch:
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    return np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])


def _checked(planes: np.ndarray, labels: np.ndarray) -> Batch:
    if planes.dtype != np.uint8 or planes.shape != (len(labels), RECORD - 1) or not len(labels):
        raise ValueError(f"images of the shape {planes.shape} with {labels.shape} labels")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
        raise ValueError("labels outside 0 to 9")
    return planes, labels


def _dtype(name: bytes | str, *_: Any) -> np.dtype:
    dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if dtype.hasobject:
        raise pickle.UnpicklingError("an array of Python objects")
    return dtype


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays of numbers and Python's own containers; refuses every other name."""

    # How an array says it is rebuilt; NumPy has moved the function between its private modules.
    _REBUILD = np.empty(0).__reduce__()[0]
    ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
        ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed function, or refuse."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return self.ALLOWED[module, name]


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"`data` must be the whole official CIFAR-10 archive, binary or python. "
        f"Received: {str(path)!r} ({what}). Download it again."
    )
