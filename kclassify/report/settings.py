"""The configuration as a report shows it: what differs, and the commands that repeat the run."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from kclassify.config import FitConfig
from kclassify.presets import PRESETS
from kclassify.report.tables import RunTables


@dataclass(frozen=True)
class Setting:
    """A field of the configuration, and whether it is not what it is by default."""

    name: str
    value: Any
    default: Any

    @property
    def changed(self) -> bool:
        """Whether the value differs from the default."""
        return self.value != self.default


def settings(config: dict[str, Any]) -> list[Setting]:
    """Return every field of a run's configuration beside its default."""
    defaults = FitConfig().to_json()
    return [Setting(name, value, defaults.get(name)) for name, value in config.items()]


def commands(tables: RunTables) -> str:
    """Return what repeats the run: shell commands, or Python where the data was in memory."""
    options = _beyond_preset(tables.manifest)
    preset, reference = tables.manifest["preset"], tables.manifest["reference"]
    run_dir = f"{tables.run}-again"
    if reference is None:
        words = "".join(f", {name}={value!r}" for name, value in options.items())
        return (
            f"run = kclassify.fit(data, preset={preset!r}{words}, run_dir={run_dir!r})\n"
            f"kclassify.evaluate(run, split={tables.split!r})\nkclassify.report(run)"
        )
    fit = ["fit", reference, "--preset", preset, *_flags(options), "--run-dir", run_dir]
    evaluate = ["evaluate", run_dir, "--split", tables.split]
    lines = (fit, evaluate, ["report", run_dir])
    return "\n".join(shlex.join(["kclassify", *line]) for line in lines)


def _beyond_preset(manifest: dict[str, Any]) -> dict[str, Any]:
    config = manifest["config"]
    expected = {**FitConfig().to_json(), **PRESETS.get(manifest["preset"], {})}
    if config["model"] != expected["model"]:
        # As in `resolve`: another network does not take the preset network's arguments.
        expected["model_args"] = {}
    return {name: value for name, value in config.items() if value != expected.get(name)}


def _flags(options: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]
    return flags
