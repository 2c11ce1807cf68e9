"""The errors a user sees, and the sentences they are made of.

Every sentence has four parts: the argument in backticks, what was expected, what was received,
how to mend it.
"""

import math
import os
import sys
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path


class InputError(ValueError):
    """A mistake in what the caller gave: one sentence, exit code 2 on the command line."""


class OutOfMemoryError(InputError):
    """A step needs more memory than its device has."""


class DivergedError(InputError):
    """The loss became NaN or infinite; the last good weights, if any, are in the run folder."""


class VerificationError(RuntimeError):
    """What was written does not serve what was evaluated; nothing was left in place."""


class StorageError(RuntimeError):
    """The disk is full; every file that was there before is as it was."""


class WorkerLostError(RuntimeError):
    """The workers of a training cannot go on, mostly because one is gone; checkpoints are kept."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest of `names`, or an empty string."""
    matches = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def check_choice(argument: str, value: object, choices: Collection[str]) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(
            f"`{argument}` must be one of {sorted(choices)}. "
            f"Received: {argument}={value!r}.{nearest(str(value), choices)}"
        )


def parse_address(text: str) -> tuple[str, int] | None:
    """Return host and port of ``"host:port"``, or None of anything else.

    Example:
        >>> from kclassify.checks import parse_address
        >>> parse_address("node1:5050"), parse_address("node1")
        (('node1', 5050), None)
    """
    host, _, port = text.rpartition(":")
    try:
        # As sockets do, which raise the same of a name such as "a..b".
        host.encode("idna")
    except UnicodeError:
        return None
    found = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
    return (host, int(port)) if found else None


def check_number(argument: str, value: object, *, expected: str, ok: bool) -> None:
    """Raise `InputError` unless `ok`; `expected` says in words what would have been."""
    if not ok:
        raise InputError(f"`{argument}` must be {expected}. Received: {argument}={value!r}.")


def check_installed(argument: str, value: object, *, packages: Iterable[str], extra: str) -> None:
    """Raise `InputError` unless all `packages` are there, which come with the named extra."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(
            f"`{argument}` must be something whose packages are installed. Received: "
            f"{argument}={value!r}, without {' and '.join(missing)}. "
            f"Install with: pip install 'kclassify[{extra}]'"
        )


def check_output_file(argument: str, path: str) -> None:
    """Raise `InputError` unless a file can be written at `path`, before work is spent on it."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"`{argument}` must be a file in a folder that exists and that you may write to. "
            f"Received: {path!r}. Make the folder, or choose another place."
        )


def check_place(argument: str, path: Path) -> None:
    """Raise `InputError` unless a folder can be made or written at `path`."""
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise InputError(
            f"`{argument}` must be in a folder that you may write to. Received: {str(path)!r}, "
            f"and {str(nearest)!r} is not writable. Choose another place."
        )


def make_folder(argument: str, path: Path, *, exist_ok: bool = False) -> None:
    """Make a folder and those above it, or say why it cannot be made.

    Raises:
        FileExistsError: it is there.
        InputError: it cannot be made, which `check_place` does not see of every file system.
    """
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise InputError(
            f"`{argument}` must be a place where a folder can be made. Received: {str(path)!r} "
            f"({error.strerror}). Choose another place."
        ) from error


def check_new_file(argument: str, path: str) -> None:
    """Raise `InputError` unless a file can be written at `path` that is not there yet."""
    check_output_file(argument, path)
    if os.path.exists(path):
        raise InputError(
            f"`{argument}` must not exist yet. Received: {path!r}, which is there. Choose another "
            "name, or delete it; nothing was written."
        )


def check_some_read(errors: Collection[str | None]) -> None:
    """Say on standard error how many images have an error; raise `InputError` if all have."""
    failed = [error for error in errors if error is not None]
    message = f"{len(failed)} of {len(errors)} images could not be read; `error` says why"
    if failed and len(failed) == len(errors):
        raise InputError(f"`images` must be images that can be read. Received: {message}.")
    if failed:
        print(f"kclassify: {message}", file=sys.stderr)


def printable(text: str) -> str:
    """Return `text` with nothing that a terminal would obey, such as a file's name may hold.

    Example:
        >>> print(printable("cat" + chr(27) + "[2J"))
        cat\\x1b[2J
    """
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else _escaped(letter) for letter in text
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def is_whole(value: object, *, least: int) -> bool:
    """Say whether `value` is an integer, NumPy's too, of at least `least`; a bool is not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def listing(lines: list[str], *, most: int = 10) -> str:
    """Join `lines` for an error message, and say how many were left out."""
    left = len(lines) - most
    return "\n".join(lines[:most] + ([f"... and {left} more"] if left > 0 else []))


def parse_bytes(argument: str, value: str | int) -> int:
    """Return the bytes that ``"500MB"``, ``"2GB"`` or a plain number say (powers of 1024)."""
    units = {"KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40, "B": 1}
    text = str(value).strip().upper()
    unit = next((unit for unit in units if text.endswith(unit)), "")
    try:
        size = int(float(text.removesuffix(unit)) * units.get(unit, 1))
    except (ValueError, OverflowError):
        size = 0
    check_number(argument, value, expected='a size such as "500MB" or "2GB"', ok=size > 0)
    return size


def parse_duration(argument: str, value: str | float) -> float:
    """Return the seconds that ``"90s"``, ``"10m"``, ``"1.5h"`` or a plain number say."""
    units = {"s": 1, "m": 60, "h": 3600}
    text = str(value).strip().lower()
    unit = text[-1:] if text[-1:] in units else ""
    try:
        seconds = float(text.removesuffix(unit)) * units.get(unit, 1)
    except ValueError:
        seconds = 0.0
    expected = 'a time such as "90s", "10m" or "1.5h"'
    check_number(argument, value, expected=expected, ok=0 < seconds < math.inf)
    return seconds
