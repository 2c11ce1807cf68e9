"""The configuration as a report shows it: what differs, and the commands that repeat the run."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kclassify.config import FitConfig, resolve
from kclassify.presets import PRESETS
from kclassify.reporting.tables import RunTables
from kclassify.scaling import for_few_images


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
    if "compression" in manifest:
        return shlex.join(compress_words(manifest, run_dir=run_dir))
    fit = fit_words(manifest)
    if fit is None:
        return _python(tables, run_dir=run_dir)
    lines = [[*fit, "--run-dir", run_dir]]
    if (evaluation := _evaluation(tables)) is not None:
        lines.append(["kclassify", "evaluate", run_dir, *_flags(evaluation)])
        lines.append(["kclassify", "report", run_dir])
    return "\n".join(shlex.join(line) for line in lines)


def compress_words(manifest: Mapping[str, Any], *, run_dir: str) -> list[str]:
    """Return the words of the command that makes a run of its parent again."""
    asked = dict(manifest["compression"])
    words = ["kclassify", "compress", asked.pop("parent")["run"], "--run-dir", run_dir]
    training = asked.pop("training", {}) if asked.get("trained", True) else {"epochs": 0}
    if asked["technique"] == "quantized_training":
        # It is a part of quantizing, which makes it where it is needed.
        asked["technique"] = "quantize"
    if asked.get("teacher", "parent") is None:
        # Left out, it would be the parent.
        asked["teacher"] = "none"
    given = {name: value for name, value in {**asked, **training}.items()
             if name not in ("begin", "trained", "training") and value is not None}  # fmt: skip
    return [*words, *_flags(given)]


def fit_words(manifest: Mapping[str, Any]) -> list[str] | None:
    """Return the words of the command that fits as a run's manifest says; None where none can."""
    expected = _expected(manifest)
    # A command adds to the preset's arguments of the model; only Python replaces them.
    replaced = expected["model_args"].keys() - manifest["config"]["model_args"].keys()
    if manifest["reference"] is None or replaced:
        return None
    preset = ["--preset", manifest["preset"]]
    return ["kclassify", "fit", manifest["reference"], *preset, *_flags(_options(manifest))]


def fit_call(manifest: Mapping[str, Any], **more: Any) -> str:
    """Return the call in Python that fits as a run's manifest says."""
    data = "data" if manifest["reference"] is None else repr(manifest["reference"])
    values = {"preset": manifest["preset"], **_options(manifest), **more}
    words = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"kclassify.fit({data}, {words})"


def _options(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not what `fit` would choose by itself; a time says the epochs."""
    # A run of before a field has what was done then, which is what the field does by default.
    expected, config = _expected(manifest), {**FitConfig().to_json(), **manifest["config"]}
    named = {name for name, value in config.items() if value != expected.get(name)}
    if "batch_size" in named:
        # To a batch that is given, `fit` fits the epochs anew, and no rate.
        named |= {"learning_rate", "epochs"}
    if config.get("time_budget"):
        named.discard("epochs")
    return {name: value for name, value in config.items() if name in named}


def _expected(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that the preset comes to with so many images."""
    config, preset = manifest["config"], manifest["preset"]
    if preset not in PRESETS:
        return FitConfig().to_json()
    # An optimizer of another kind has a rate of its own.
    expected = resolve(preset, {"optimizer": config["optimizer"]})
    images = manifest.get("sizes", {}).get("train")
    if images is not None:
        expected = for_few_images(expected, images, given=())
    own = PRESETS[preset].get("optimizer", FitConfig.optimizer)
    found = {**expected.to_json(), "optimizer": own}
    if config["model"] != expected.model:
        # As in `resolve`: another network does not take the preset network's arguments.
        found["model_args"] = {}
    return found


def _evaluation(tables: RunTables) -> dict[str, str] | None:
    """Return the arguments of the evaluation; None of other data that was only in memory."""
    given = {"split": tables.split, "tta": tables.tta}
    if tables.other_data is None:
        return given
    reference = tables.evaluation.get("reference")
    return None if reference is None else {"data": reference, **given}


def _python(tables: RunTables, *, run_dir: str) -> str:
    lines = [f"run = {fit_call(tables.manifest, run_dir=run_dir)}"]
    if (evaluation := _evaluation(tables)) is not None:
        words = ", ".join(f"{name}={value!r}" for name, value in evaluation.items())
        lines += [f"kclassify.evaluate(run, {words})", "kclassify.report(run)"]
    return "\n".join(lines)


def _flags(options: dict[str, Any]) -> list[str]:
    values = {**options, **options.get("model_args", {})}
    values.pop("model_args", None)
    flags = []
    for name, value in values.items():
        flags.append("--" + name.replace("_", "-"))
        if value is not True:
            flags.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return flags
