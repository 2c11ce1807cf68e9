"""The state of a search on the disk, of which one that is whole is always there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kclassify.atomic import replacing


class StateFile:
    """A JSON file that is always whole, and beside it the one that it replaced.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.before = path.with_suffix(".before.json")

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state, and keep what there was."""
        text = json.dumps(state)
        if self.path.exists():
            with replacing(self.before) as beside:
                beside.write_bytes(self.path.read_bytes())
        with replacing(self.path) as beside:
            beside.write_text(text, "utf-8")

    @property
    def elapsed(self) -> float:
        """The seconds that the search has run, by the state that is there."""
        return float((self.read()[0] or {}).get("elapsed", 0.0))

    def read(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest state that can be read, or None, and the names of damaged files."""
        damaged: list[str] = []
        for path in (self.path, self.before):
            try:
                found = json.loads(path.read_text("utf-8"))
                if isinstance(found, dict) and isinstance(found.get("oracle"), dict):
                    return found, damaged
            except FileNotFoundError:
                continue
            except (ValueError, RecursionError):
                pass
            damaged.append(path.name)
        return None, damaged
