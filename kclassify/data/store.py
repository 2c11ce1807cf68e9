"""A place in an object store, by fsspec, with whatever goes wrong there made into one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kclassify.checks import InputError, StorageError, check_installed

CHECK = (
    "Check the address, the network and the credentials, which come from the environment, then "
    "run the same command again."
)
# Written and deleted, to see that it can be done.
PROBE = ".kclassify"


@dataclass(frozen=True)
class Store:
    """A place in an object store.

    Attributes:
        url: its address.
        system: the fsspec filesystem that it is in.
        path: what that calls it.
    """

    url: str
    system: Any
    path: str

    @classmethod
    def of(cls, argument: str, url: str) -> Self:
        """Return the place at a URL; nothing is asked of the store yet.

        Raises:
            InputError: a package for its protocol is missing.
        """
        check_installed(argument, url, packages=["fsspec"], extra="remote")
        from fsspec.core import url_to_fs

        with named(f"`{argument}` must be a URL that can be reached.", url, CHECK):
            try:
                system, path = url_to_fs(url)
            except ImportError as error:
                raise InputError(
                    f"`{argument}` must be a URL whose package is installed. Received: {url!r} "
                    f"({error}). Install it; that of s3 comes with: pip install "
                    "'kclassify[remote]'"
                ) from error
            except ValueError as error:
                raise InputError(
                    f"`{argument}` must be a URL such as 's3://bucket/name', of a protocol that "
                    f"fsspec knows. Received: {url!r} ({error}). Check what stands before '://'."
                ) from error
        # It may be the object of the last time, which remembers what was there then.
        system.invalidate_cache()
        return cls(url, system, path.rstrip("/"))

    def read(self, name: str, *, most: int) -> bytes:
        """Return what an object holds, of a larger one its beginning."""
        parts: list[bytes] = []
        with self.system.open(self._at(name), "rb") as file:
            # What comes over a network may come in pieces.
            while most > 0 and (part := file.read(most)):
                parts.append(part)
                most -= len(part)
        return b"".join(parts)

    def fetch(self, path: Path, *, name: str) -> None:
        """Write what an object holds into a file."""
        self.system.get_file(self._at(name), str(path))

    def send(self, path: Path, *, name: str) -> None:
        """Make an object of a file."""
        self.system.put_file(str(path), self._at(name))

    def delete(self, name: str) -> None:
        """Remove an object."""
        self.system.rm_file(self._at(name))

    def try_writing(self) -> None:
        """Write an object and delete it, or raise what the store raises."""
        self.system.pipe_file(self._at(PROBE), b"")
        self.delete(PROBE)

    def sizes(self) -> dict[str, int | None]:
        """Return the names of the objects that are there, with the bytes of each."""
        try:
            rows = self.system.ls(self.path, detail=True)
        except FileNotFoundError:
            return {}
        # Some stores list the place itself.
        inside = [row for row in rows if row["name"].strip("/") != self.path.strip("/")]
        found = {row["name"].rstrip("/").rsplit("/", 1)[-1]: row.get("size") for row in inside}
        return {name: size for name, size in found.items() if name != PROBE}

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"


@contextmanager
def named(expected: str, place: str, mend: str) -> Iterator[None]:
    """Make an `InputError` of whatever a store raises."""
    try:
        yield
    except (InputError, StorageError):
        raise
    # Every protocol has exceptions of its own.
    except Exception as error:
        raise InputError(f"{expected} Received: {place!r} ({reason(error)}). {mend}") from error


def reason(error: Exception) -> str:
    """Return what an exception says, in one line."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *(line[:200].rstrip(".") for line in lines[:1])])
