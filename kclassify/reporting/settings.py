"""The configuration as a report shows it: what differs, and the commands that repeat the run."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from kclassify.config import FitConfig
from kclassify.presets import PRESETS
from kclassify.reporting.tables import RunTables


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
    """Return what repeats the run: shell commands, or Python for what no command can say."""
    manifest, run_dir = tables.manifest, f"{tables.run}-again"
    expected = _expected(manifest)
    options = {
        name: value for name, value in manifest["config"].items() if value != expected.get(name)
    }
    # A command adds to the preset's arguments of the model; only Python replaces them.
    replaced = expected["model_args"].keys() - manifest["config"]["model_args"].keys()
    if manifest["reference"] is None or replaced:
        return _python(tables, options, run_dir=run_dir)
    fit = ["fit", manifest["reference"], "--preset", manifest["preset"], *_flags(options)]
    evaluate = ["evaluate", run_dir, "--split", tables.split, "--tta", tables.tta]
    lines = ([*fit, "--run-dir", run_dir], evaluate, ["report", run_dir])
    return "\n".join(shlex.join(["kclassify", *line]) for line in lines)


def _expected(manifest: dict[str, Any]) -> dict[str, Any]:
    # A run's file has lists where a preset may have tuples.
    preset = json.loads(json.dumps(PRESETS.get(manifest["preset"], {})))
    expected = {**FitConfig().to_json(), **preset}
    if manifest["config"]["model"] != expected["model"]:
        # As in `resolve`: another network does not take the preset network's arguments.
        expected["model_args"] = {}
    return expected


def _python(tables: RunTables, options: dict[str, Any], *, run_dir: str) -> str:
    manifest = tables.manifest
    data = "data" if manifest["reference"] is None else repr(manifest["reference"])
    values = {"preset": manifest["preset"], **options, "run_dir": run_dir}
    words = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return (
        f"run = kclassify.fit({data}, {words})\n"
        f"kclassify.evaluate(run, split={tables.split!r}, tta={tables.tta!r})\n"
        "kclassify.report(run)"
    )


def _flags(options: dict[str, Any]) -> list[str]:
    values = {**options, **options.get("model_args", {})}
    values.pop("model_args", None)
    flags = []
    for name, value in values.items():
        flags.append("--" + name.replace("_", "-"))
        if value is not True:
            flags.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return flags
