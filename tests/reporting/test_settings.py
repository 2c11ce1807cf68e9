import shlex

import pytest

from kclassify.cli import VERBS
from kclassify.config import FitConfig, resolve
from kclassify.parsing import parse
from kclassify.reporting.settings import commands, settings
from kclassify.reporting.tables import read_tables
from kclassify.runs import read_json
from kclassify.scaling import for_few_images


def test_only_what_differs_is_marked():
    found = settings(FitConfig(epochs=3, class_names=("a", "b")).to_json())
    assert {item.name for item in found if item.changed} == {"epochs", "class_names"}
    assert next(item for item in found if item.name == "epochs").default == 11


def test_field_that_this_version_does_not_know_is_shown():
    (found,) = settings({"mystery": 3})
    assert (found.value, found.default, found.changed) == (3, None, True)


@pytest.mark.parametrize(
    ("preset", "options", "flags"),
    [
        ("fast", {}, []),
        ("fast", {"epochs": 3, "deterministic": True}, ["--epochs", "3", "--deterministic"]),
        ("digits", {}, []),
        ("digits", {"filters": 64}, ["--filters", "64", "--depth", "2"]),
        ("digits", {"model": "lenet"}, ["--model", "lenet"]),
        ("fast", {"class_names": ("a", "b")}, ["--class-names", "a,b"]),
        ("tutorial", {"optimizer": "adam"}, ["--optimizer", "adam"]),
        ("fast", {"optimizer": "adam"}, ["--optimizer", "adam"]),
        (
            "fast",
            {"optimizer": "adam", "learning_rate": 0.12},
            ["--optimizer", "adam", "--learning-rate", "0.12"],
        ),
    ],
)
def test_command_has_what_the_preset_lacks(tmp_path, preset, options, flags, write_run):
    config = resolve(preset, options).to_json()
    run = write_run(tmp_path / "run", preset=preset, config=config)
    words = shlex.split(commands(read_tables(run)).splitlines()[0])
    assert words[:5] == ["kclassify", "fit", "cifar10", "--preset", preset]
    assert words[5:-2] == flags
    assert words[-2:] == ["--run-dir", f"{run}-again"]


def test_a_run_of_before_a_field_is_repeated_as_it_was(tmp_path, write_run):
    config = resolve("fast", {"epochs": 7}).to_json()
    del config["skip_learned"]
    run = write_run(tmp_path / "run", preset="fast", config=config)
    words = shlex.split(commands(read_tables(run)).splitlines()[0])
    assert words[5:-2] == ["--epochs", "7", "--skip-learned", "None"]


def test_command_quotes_what_a_shell_would_read(tmp_path, write_run):
    run = write_run(tmp_path / "run", reference="my data; rm -rf $HOME")
    assert "fit 'my data; rm -rf $HOME' --preset" in commands(read_tables(run))


def test_data_in_memory_is_repeated_in_python(tmp_path, write_run):
    run = write_run(tmp_path / "run", reference=None)
    first = commands(read_tables(run)).splitlines()[0]
    assert first.startswith(
        "run = kclassify.fit(data, preset='fast', epochs=8, batch_size=64, learning_rate=0.12, run_"
    )


def test_arguments_that_replace_the_presets_are_repeated_in_python(tmp_path, write_run):
    config = resolve("digits", {"model_args": {"filters": 64}}).to_json()
    run = write_run(tmp_path / "run", preset="digits", config=config)
    first = commands(read_tables(run)).splitlines()[0]
    assert first.startswith("run = kclassify.fit('cifar10', preset='digits', model_args={'filt")


def test_command_line_reads_the_command_as_the_same_configuration(tmp_path, write_run):
    changes = {"filters": 48, "ema": 0.99, "warmup": 0, "deterministic": True, "image_size": 24,
               "class_weights": {"a b": 2.0}, "class_names": ("a b", "c")}  # fmt: skip
    config = resolve("digits", changes)
    run = write_run(tmp_path / "run", preset="digits", config=config.to_json())
    words = shlex.split(commands(read_tables(run)).splitlines()[0])
    # Parsed only: `main` would go on and train.
    options = parse(words[1:], VERBS)
    assert resolve(options.preset, options.config) == config


@pytest.mark.parametrize(
    ("preset", "images", "batch_size"), [("fast", 1000, 64), ("digits", 1257, 128)]
)
def test_a_batch_of_its_own_has_its_rate_and_its_epochs(
    tmp_path, write_run, preset, images, batch_size
):
    config = for_few_images(resolve(preset, {}), images, given=()).replace(batch_size=batch_size)
    sizes = {"train": images, "validation": 100, "test": 100}
    run = write_run(tmp_path / "run", preset=preset, config=config.to_json(), sizes=sizes)
    words = shlex.split(commands(read_tables(run)).splitlines()[0])
    options = parse(words[1:], VERBS).config
    assert for_few_images(resolve(preset, options), images, given=options) == config


def test_a_batch_within_a_time_has_no_epochs(tmp_path, write_run):
    config = resolve("fast", {"batch_size": 64, "time_budget": "60s"})
    run = write_run(tmp_path / "run", config=config.to_json())
    options = parse(shlex.split(commands(read_tables(run)).splitlines()[0])[1:], VERBS).config
    assert options.keys() == {"batch_size", "learning_rate", "time_budget"}


@pytest.mark.parametrize("reference", ["cifar10", None])
def test_other_data_is_evaluated_again_where_it_can_be_named(tmp_path, write_run, reference):
    run = write_run(tmp_path / "run", reference=reference)
    evaluation = {**read_json(run.metrics_file), "data": "others"}
    run.write(run.metrics_file, evaluation)
    assert len(commands(read_tables(run)).splitlines()) == 1
    run.write(run.metrics_file, {**evaluation, "reference": "my others"})
    _, evaluate, report = commands(read_tables(run)).splitlines()
    said = "--data 'my others' --split test" if reference else "data='my others', split='test'"
    assert said in evaluate
    assert "report" in report
