import json
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from kclassify import config as config_module
from kclassify.checks import InputError
from kclassify.config import RATES, FitConfig, resolve
from kclassify.presets import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_and_survives_json(preset):
    config = resolve(preset, {})
    assert FitConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size", 0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("weight_decay", -1),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("warmup", -0.1),
        ("gradient_clip", 0),
        ("weight_clip", -1),
        ("early_stopping", 0),
        ("threads", 0),
        ("seed", -1),
        ("image_size", 2),
        ("channels", 2),
        ("validation_fraction", 0.5),
        ("memory_budget", "lots"),
        ("class_weights", "balance"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_itself(field, value):
    with pytest.raises(InputError) as error:
        FitConfig(**{field: value})
    assert f"`{field}`" in str(error.value)
    assert f"{field}={value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("model", "resnt", "resnet"),
        ("optimizer", "adm", "adam"),
        ("schedule", "cosin", "cosine"),
        ("augmentation", "cutot", "cutout"),
        ("loss", "crossentropy", "cross_entropy"),
    ],
)
def test_a_misspelt_choice_names_the_nearest(field, value, meant):
    with pytest.raises(InputError, match=f"Did you mean {meant!r}"):
        FitConfig(**{field: value})


def test_resolve_hands_the_models_own_arguments_on():
    assert resolve("fast", {"model": "resnet", "depth": 20}).model_args == {"depth": 20}


def test_resolve_drops_the_presets_arguments_for_another_model():
    assert resolve("digits", {"model": "lenet"}).model_args == {}
    assert resolve("fast", {"model": "lenet"}).progressive is None
    assert resolve("digits", {"filters": 8}).model_args == {"filters": 8, "depth": 2}


def test_a_misspelt_option_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'epochs'"):
        resolve("fast", {"epoch": 3})
    with pytest.raises(InputError, match="Did you mean 'fast'"):
        resolve("fats", {})


@pytest.mark.parametrize(
    ("names", "registry"),
    [
        ("Optimizer", "kclassify.training.optimizers:OPTIMIZERS"),
        ("Schedule", "kclassify.training.schedules:SHAPES"),
        ("Loss", "kclassify.training.losses:LOSSES"),
        ("Augmentation", "kclassify.data.augmentation:AUGMENTATIONS"),
    ],
)
def test_the_names_that_config_takes_are_those_that_exist(names, registry):
    from importlib import import_module

    module, name = registry.split(":")
    assert set(get_args(getattr(config_module, names))) == set(getattr(import_module(module), name))


def test_every_field_has_a_line_of_help():
    assert all(item.metadata["help"] for item in fields(FitConfig))


JUNK = (True, 1, -3, 2.5, "x", "", b"x", None, [1], {}, {"a": 1}, (), ("a",), float("inf"), object)


@pytest.mark.parametrize("value", JUNK, ids=repr)
@pytest.mark.parametrize("field", [item.name for item in fields(FitConfig)])
def test_any_value_is_refused_in_words_or_survives_json(field, value):
    try:
        config = FitConfig(**{field: value})
    except InputError as error:
        sentence = str(error)
    else:
        sentence = f"`{field}`"
        assert FitConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert f"`{field}`" in sentence


def test_paths_and_numpy_numbers_become_plain():
    config = resolve(
        "digits", {"data_dir": Path("here"), "epochs": np.int64(3), "dropout": np.float32(0.5)}
    )
    assert config.data_dir == "here"
    assert type(config.epochs) is int
    assert type(config.model_args["dropout"]) is float


def test_model_args_must_be_a_mapping():
    with pytest.raises(InputError, match="`model_args` must be a mapping"):
        resolve("fast", {"model_args": 3})


def test_lists_are_taken_where_tuples_are_kept():
    config = FitConfig(progressive=[0.5, 1], class_names=["a", "b"])
    assert (config.progressive, config.class_names) == ((0.5, 1), ("a", "b"))
    assert FitConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("optimizer", sorted(RATES))
def test_another_kind_of_optimizer_has_its_own_rate(optimizer):
    assert resolve("fast", {"optimizer": optimizer}).learning_rate == RATES[optimizer]
    given = {"optimizer": optimizer, "learning_rate": 0.5}
    assert resolve("fast", given).learning_rate == 0.5


def test_an_optimizer_that_is_no_name_is_refused():
    with pytest.raises(InputError, match="`optimizer` must be one of"):
        resolve("fast", {"optimizer": ["adam"]})


@pytest.mark.parametrize("optimizer", ["muon", "nesterov", "sgd"])
def test_a_preset_keeps_its_rate_for_optimizers_of_its_kind(optimizer):
    assert resolve("fast", {"optimizer": optimizer}).learning_rate == 0.12


def test_a_seed_is_one_that_numpy_takes():
    with pytest.raises(InputError, match=r"`seed` must be below 2\*\*32"):
        FitConfig(seed=20261124123000)
