import json

import keras_tuner
import pytest

from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.models.registry import MODELS, build_model
from kclassify.search.budget import Budget
from kclassify.search.oracles import build_oracle, grid_size
from kclassify.search.space import (
    config_of,
    declare,
    judged_by,
    plain_values,
    read_space,
    with_values,
)
from kclassify.search.spaces import MODEL_SPACES, default_space

BASE = FitConfig()
SHAPE = (32, 32, 3)


def read(space, base=BASE):
    return read_space(space, base, SHAPE)


def space_of(dimensions):
    hp = keras_tuner.HyperParameters()
    declare(dimensions, hp)
    return hp


def drawn(dimensions, count=20):
    hp = space_of(dimensions)
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_accuracy", "max"), hyperparameters=hp, seed=1
    )
    return [oracle._random_values() for _ in range(count)]


def samples(dimensions):
    return [config_of(BASE, dimensions, values) for values in drawn(dimensions)]


def test_where_images_are_mixed_none_is_left_out():
    base = BASE.replace(skip_learned=0.3)
    assert with_values(base, {"augmentation": "mixup"}).skip_learned is None
    assert with_values(base, {"augmentation": "crop"}).skip_learned == 0.3


def test_lists_ranges_and_conditions_are_kerastuners():
    dimensions = read({
        "optimizer": ["nesterov", "adamw"],
        "learning_rate": {"min_value": 0.01, "max_value": 0.5, "sampling": "log"},
        "filters": {"min_value": 8, "max_value": 32, "step": 8},
        "ema": {"values": [None, 0.99], "when": {"optimizer": ["adamw"]}},
    })  # fmt: skip
    for config in samples(dimensions):
        assert config.optimizer in ("nesterov", "adamw")
        assert 0.01 <= config.learning_rate <= 0.5
        assert config.model_args["filters"] in (8, 16, 24, 32)
        assert config.ema is None or config.optimizer == "adamw"
    assert {config.ema for config in samples(dimensions)} == {None, 0.99}


def test_lists_and_nothing_can_be_chosen_among():
    dimensions = read({"filters": [[8, 16], [16, 32]], "gradient_clip": [None, 1.0]})
    found = samples(dimensions)
    assert {tuple(config.model_args["filters"]) for config in found} == {(8, 16), (16, 32)}
    assert {config.gradient_clip for config in found} == {None, 1.0}


def test_it_begins_at_nothing_where_the_base_has_nothing():
    assert BASE.gradient_clip is None
    hp = space_of(read({"gradient_clip": [1.0, None], "ema": [0.99, 0.9]}))
    assert (hp.get("gradient_clip"), hp.get("ema")) == ("null", 0.99)


def test_one_name_may_have_alternatives():
    dimensions = read({
        "optimizer": ["sgd", "adamw"],
        "learning_rate": [
            {"values": [0.1, 0.2], "when": {"optimizer": ["sgd"]}},
            {"values": [0.001], "when": {"optimizer": ["adamw"]}},
        ],
    })  # fmt: skip
    assert {(c.optimizer, c.learning_rate) for c in samples(dimensions)} == {
        ("sgd", 0.1), ("sgd", 0.2), ("adamw", 0.001)
    }  # fmt: skip
    assert grid_size(space_of(dimensions)) == 3


def test_alternatives_are_still_there_when_a_trial_is_recorded(tmp_path):
    """KerasTuner drops what the inactive one of two with one name would have been."""
    dimensions = read_space(None, BASE, SHAPE)
    hp = keras_tuner.Objective("val_accuracy", "max")
    oracle = build_oracle(
        "random", space_of(dimensions), file=tmp_path / "state.json", objective=hp, max_trials=12,
        budget=Budget(epochs=1), seed=0, began=0.0, end=float("inf"),
    )  # fmt: skip
    configs = []
    for number in range(12):
        trial = oracle.create_trial(f"t{number}")
        configs.append(config_of(BASE, dimensions, trial.hyperparameters.values))
    assert len({config.learning_rate for config in configs}) == 12
    assert {config.optimizer for config in configs} == {"nesterov", "adamw"}
    adamw = [config.learning_rate for config in configs if config.optimizer == "adamw"]
    assert max(adamw) <= 0.01


def test_another_model_has_its_own_arguments_only():
    base = BASE.replace(model_args={"dropout": 0.3}, progressive=(0.5, 1.0))
    dimensions = read_space(
        {
            "model": ["convnet", "lenet"],
            "depth": {"values": [2, 3], "when": {"model": ["convnet"]}},
        },
        base, SHAPE,
    )  # fmt: skip
    other = config_of(base, dimensions, {"model": "lenet"})
    assert (dict(other.model_args), other.progressive) == ({}, None)
    same = config_of(base, dimensions, {"model": "convnet", "depth": 2})
    assert dict(same.model_args) == {"dropout": 0.3, "depth": 2}


def test_what_the_base_has_is_where_it_begins():
    rates = {"min_value": 0.01, "max_value": 0.5}
    dimensions = read({"learning_rate": rates, "batch_size": [64, 128]})
    defaults = {dimension.name: dimension.default for dimension in dimensions}
    assert defaults == {"learning_rate": BASE.learning_rate, "batch_size": 128}


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_is_read(suffix, tmp_path):
    path = tmp_path / f"space.{suffix}"
    space = {"batch_size": [64, 128]}
    path.write_text("batch_size: [64, 128]\n" if suffix == "yaml" else json.dumps(space))
    assert read(path) == read(space)


def test_it_survives_json():
    space = {"optimizer": ["sgd", "adamw"],
             "ema": {"values": [None, 0.9], "when": {"optimizer": ["sgd"]}}}  # fmt: skip
    once = [dimension.to_json() for dimension in read(space)]
    assert json.loads(json.dumps(once)) == once


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lerning_rate": [1, 2]}, "Did you mean 'learning_rate'"),
        ({"epochs": [1, 2]}, "which all of them share"),
        ({"width": [1, 2]}, "arguments of the model"),
        ({"batch_size": [64]}, "leave something to choose"),
        ({}, "leave something to choose"),
        ({"batch_size": []}, "some values"),
        ({"batch_size": {"min_value": 4}}, "some values"),
        ({"batch_size": {"min_value": 8, "max_value": 4}}, "some values"),
        ({"learning_rate": {"min_value": 0, "max_value": 1, "sampling": "log"}}, "above 0"),
        ({"learning_rate": {"min_value": 0.1, "max_value": 1, "sampling": "ln"}}, "sampling"),
        ({"learning_rate": {"min_val": 0.1, "max_value": 1}}, "Did you mean 'min_value'"),
        ({"learning_rate": {"values": [1], "min_value": 1, "max_value": 2}}, "some values"),
        ({"learning_rate": [-1.0, 0.1]}, "`learning_rate` must be a number above 0"),
        ({"optimizer": ["adam", "adma"]}, "Did you mean 'adam'"),
        ({"ema": {"values": [0.9, 0.99], "when": {"optimiser": ["sgd"]}}}, "depend on"),
        ({"ema": {"values": [0.9], "when": {"ema": [0.9]}}}, "depend on"),
        ([1, 2], "a mapping"),
        ("none.yaml", "can be read"),
    ],
)
def test_what_cannot_be_searched_is_named(space, message):
    with pytest.raises(InputError, match=message):
        read(space)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "space.yaml").write_text("a: [1, 2\nb: }")
    with pytest.raises(InputError, match="YAML or JSON"):
        read(tmp_path / "space.yaml")


def test_every_model_has_a_space():
    assert set(MODEL_SPACES) == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_a_default_space_begins_with_its_base_and_can_be_built(model, shape):
    base = FitConfig(model=model, epochs=1)
    dimensions = read_space(None, base, shape)
    hp = space_of(dimensions)
    active = {item.name: item.default for item in hp.space if hp.is_active(item)}
    first = config_of(base, dimensions, active)
    assert first.learning_rate == pytest.approx(base.learning_rate)
    assert first.optimizer == base.optimizer
    if model in ("convnet", "resnet"):
        build_model(model, input_shape=shape, num_classes=3, **first.model_args)


def test_what_is_not_mirrored_stays_so():
    space = default_space(FitConfig(augmentation="crop"), (8, 8, 1))
    assert space["augmentation"] == ["none", "crop"]


def test_true_and_false_stay_what_they_are():
    dimensions = read({"mixed_precision": [True, False], "label_smoothing": [0.0, 0.1]})
    found = {config.mixed_precision for config in samples(dimensions)}
    assert found == {True, False}
    assert all(type(value) is bool for value in found)


def test_a_condition_may_be_of_two_names_or_of_one_that_has_one_itself():
    dimensions = read({
        "optimizer": ["nesterov", "adamw"],
        "schedule": {"values": ["cosine", "constant"], "when": {"optimizer": ["adamw"]}},
        "warmup": {"values": [0.0, 0.3], "when": {"optimizer": ["adamw"], "schedule": ["cosine"]}},
    })  # fmt: skip
    seen = [plain_values(dimensions, values) for values in drawn(dimensions, 60)]
    for values in seen:
        assert ("schedule" in values) == (values["optimizer"] == "adamw")
        assert ("warmup" in values) == (values.get("schedule") == "cosine")
    assert len({tuple(sorted(values.items())) for values in seen}) == 4


def test_a_loss_does_not_judge_what_changes_it():
    dimensions = read({"label_smoothing": [0.0, 0.1], "learning_rate": [0.1, 0.2]})
    assert judged_by("val_accuracy", dimensions, own=True) == dimensions
    assert [one.name for one in judged_by("val_loss", dimensions, own=False)] == ["learning_rate"]
    with pytest.raises(InputError, match=r"must be an accuracy where .*label_smoothing"):
        judged_by("val_loss", dimensions, own=True)


def test_an_optimizer_of_another_kind_has_its_own_rate():
    base = FitConfig(optimizer="nesterov", learning_rate=0.12)
    assert with_values(base, {"optimizer": "adam"}).learning_rate == 1e-3
    assert with_values(base, {"optimizer": "adam", "learning_rate": 0.3}).learning_rate == 0.3
    assert with_values(base, {"optimizer": "sgd"}).learning_rate == 0.12
