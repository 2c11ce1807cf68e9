"""`FitConfig`: everything that `fit` decides by, in one frozen, checked, JSON-able place."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Number
from typing import Any, Literal, Self, get_args

from kclassify.checks import (
    InputError,
    check_choice,
    check_number,
    is_whole,
    nearest,
    parse_bytes,
    parse_duration,
)
from kclassify.models.registry import MODELS
from kclassify.presets import PRESETS

Optimizer = Literal[
    "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lion", "muon"
]
Schedule = Literal["constant", "step", "exponential", "cosine", "triangular"]
Loss = Literal["cross_entropy", "focal"]
Augmentation = Literal["none", "crop", "flip_crop", "cutout", "randaugment", "mixup", "cutmix"]
# Those that mix images, and need float32 labels `(batch_size, num_classes)`.
MIXING = ("mixup", "cutmix")
OnError = Literal["raise", "skip"]


def option(default: Any, help: str, *, choices: object = None) -> Any:
    """Declare a field with the line that the command line prints for it."""
    metadata = {"help": help, "choices": get_args(choices)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


# The fields that say which images there are, and of which split.
DATA_FIELDS = ("image_size", "channels", "class_names", "validation_fraction", "test_fraction",
               "data_dir", "on_error", "memory_budget")  # fmt: skip


@dataclass(frozen=True)
class FitConfig:
    """The configuration of a fit; the presets list what they change of these defaults.

    A `FitConfig` checks itself when it is made, so one that exists is a valid one.

    Raises:
        InputError: a value is not what its field takes; the sentence says what would be.

    Example:
        >>> from kclassify import FitConfig
        >>> FitConfig(epochs=3).replace(batch_size=64).batch_size
        64
    """

    model: str = option("convnet", "which network; `kclassify models` lists them")
    model_args: Mapping[str, Any] = option({}, "the network's own arguments, such as depth=20")
    epochs: int = option(11, "passes over the training images")
    time_budget: str | float | None = option(
        None, "such as 90s, 10m or 1.5h: how long all of it may take; the epochs follow"
    )
    batch_size: int = option(128, "images a step")
    optimizer: Optimizer = option("nesterov", "how weights are updated", choices=Optimizer)
    learning_rate: float = option(0.15, "its highest value; the schedule shapes it")
    schedule: Schedule = option("triangular", "the learning rate over time", choices=Schedule)
    warmup: float = option(0.2, "share of the steps in which the rate rises linearly from 0")
    weight_decay: float = option(2e-3, "decoupled, on kernels only, times the learning rate")
    loss: Loss = option("cross_entropy", "what is minimised", choices=Loss)
    label_smoothing: float = option(0.1, "share of the target spread evenly over the classes")
    class_weights: str | Mapping[str, float] | None = option(
        None, """balanced, or weights by class name, such as '{"cat": 2.0}'"""
    )
    augmentation: Augmentation = option(
        "flip_crop", "random changes to training images", choices=Augmentation
    )
    progressive: tuple[float, ...] | None = option(
        None, "shares of the images' size for equal parts of the steps, such as 0.5,0.75,1"
    )
    skip_learned: float | None = option(
        None, "share of the images, those with the smallest last loss, in whose place the others "
        "come twice, such as 0.3"
    )  # fmt: skip
    ema: float | None = option(None, "decay of the averaged weights that are kept, such as 0.99")
    gradient_clip: float | None = option(None, "largest global norm of the gradient")
    weight_clip: float | None = option(None, "largest absolute value of a kernel's weight")
    early_stopping: int | None = option(None, "epochs without a better validation accuracy")
    mixed_precision: bool | None = option(
        None, "16-bit arithmetic while training; default: where the device has the units"
    )
    seed: int = option(0, "of the split, the order, the augmentation and the initial weights")
    deterministic: bool = option(False, "repeatable kernels, at some cost in speed")
    device: str = option("auto", "cpu, gpu, gpu:1; auto takes the first GPU, or the CPU")
    devices: str | int | tuple[str, ...] | None = option(
        None, "several at once, each with a share of the batch: all, a number, or gpu:0,gpu:1"
    )
    threads: int | None = option(None, "threads inside an operation; default: the physical cores")
    data_service: str | None = option(
        None, "grpc://host:port of a tf.data service that makes the training batches"
    )
    checkpoint_every: str | float = option(
        "5m", "time between checkpoints within an epoch; there is one after every epoch too"
    )
    tensorboard: bool = option(False, "write TensorBoard logs into the run folder")
    image_size: int | None = option(None, "height and width in pixels; images are resized to it")
    channels: int | None = option(None, "1 for grey, 3 for colour; default: what the images have")
    class_names: tuple[str, ...] | None = option(None, "names of integer labels, in order: cat,dog")
    validation_fraction: float = option(0.1, "taken from train where the data has no validation")
    test_fraction: float = option(0.1, "taken from train where the data has no test")
    data_dir: str | None = option(
        None, "where TFDS keeps its datasets (or TFDS_DATA_DIR), and copies of packed sets go"
    )
    on_error: OnError = option("raise", "on images that cannot be read", choices=OnError)
    memory_budget: str = option("2GB", "images that need more are read from disk as they are used")

    def __post_init__(self) -> None:
        for item in fields(self):
            # The one way to set a field of a frozen dataclass while it is made.
            value = _plain(getattr(self, item.name))
            value = tuple(value) if isinstance(value, list) else value
            object.__setattr__(self, item.name, value)
        check_choice("model", self.model, MODELS)
        _check_kinds(self)
        for item in fields(self):
            if item.metadata["choices"]:
                check_choice(item.name, getattr(self, item.name), item.metadata["choices"])
        _check_training_numbers(self)
        _check_data_numbers(self)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with `changes`, checked again."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return json.loads(json.dumps(asdict(self), default=list))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_json` gave."""
        names = [item.name for item in fields(cls)]
        for name in values:
            check_choice("config", name, names)
        return cls(**values)


# Their step does not grow with the gradient: a preset's rate for another is far off.
RATES = {"adagrad": 1e-2, "adam": 1e-3, "adamw": 1e-3, "lion": 1e-4, "rmsprop": 1e-3}


def own_rate(changes: Mapping[str, Any], *, before: str | None) -> dict[str, float]:
    """Return the learning rate of an adaptive optimizer in `changes`, as one; or none.

    Args:
        changes: of a configuration; a rate among them counts, not this one.
        before: its optimizer.
    """
    name = changes.get("optimizer", before)
    known = name != before and isinstance(name, str) and name in RATES
    return {"learning_rate": RATES[name]} if known else {}


def resolve(preset: str, options: Mapping[str, Any]) -> FitConfig:
    """Return the configuration that `preset` and then `options` make of the defaults.

    With another optimizer than the preset's and no learning rate, an adaptive one gets its own.

    An option that is no field of `FitConfig` goes to `model_args`, where the chosen model's
    builder checks it: ``depth=20`` is ``model_args={"depth": 20}``.
    """
    check_choice("preset", preset, PRESETS)
    recipe = PRESETS[preset]
    values = {**recipe, **own_rate(options, before=recipe.get("optimizer")), **options}
    names = {item.name for item in fields(FitConfig)}
    if options.get("time_budget") is not None and "epochs" in options:
        raise InputError(
            "`epochs` must be left out with a `time_budget`, from which it follows. "
            f"Received: epochs={options['epochs']!r}, time_budget={options['time_budget']!r}."
        )
    extra = {name: values.pop(name) for name in list(values) if name not in names}
    if values.get("model", "convnet") != recipe.get("model", "convnet"):
        # Another network does not take the arguments of the preset's, and maybe not every size.
        values["model_args"] = options.get("model_args", {})
        values["progressive"] = options.get("progressive")
    given = values.pop("model_args", {})
    check_number("model_args", given, expected="a mapping", ok=isinstance(given, Mapping))
    model_args = _plain({**given, **extra})
    check_choice("model", values.get("model", "convnet"), MODELS)
    check_model_args(values.get("model", "convnet"), model_args, also=names)
    return FitConfig(**values, model_args=model_args)


def check_model_args(model: str, model_args: Mapping[str, Any], *, also: set[str]) -> None:
    """Raise `InputError` for an argument that neither the model nor `FitConfig` has."""
    known = MODELS[model].arguments
    for name in model_args:
        if name not in known:
            raise InputError(
                f"`{name}` must be a field of FitConfig or an argument of {model!r}, which takes "
                f"{sorted(known)}. Received: {name}={model_args[name]!r}."
                f"{_owner(name) or nearest(name, [*also, *known])}"
            )


def _plain(value: Any) -> Any:
    """Return a path as text and a NumPy number as Python's, which JSON and Keras need."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Number) and hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _check_kinds(config: FitConfig) -> None:
    for name, (expected, kinds) in _KINDS.items():
        value = getattr(config, name)
        check_number(name, value, expected=expected, ok=isinstance(value, kinds))
    names = config.class_names
    texts = isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)
    check_number("class_names", names, expected="a tuple of texts", ok=names is None or bool(texts))


_FLAG: tuple[str, tuple[type, ...]] = ("True or False", (bool,))
# What the fields that are neither numbers nor choices take.
_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "mixed_precision": ("True, False or None", (bool, type(None))),
    "deterministic": _FLAG,
    "tensorboard": _FLAG,
    "device": ("a text", (str,)),
    "data_dir": ("a path", (str, type(None))),
    "data_service": ("such as grpc://host:5050", (str, type(None))),
    "model_args": ("a mapping", (Mapping,)),
    "class_weights": ('"balanced" or weights by class name', (str, Mapping, type(None))),
}


def _owner(name: str) -> str:
    owners = [model for model, entry in MODELS.items() if name in entry.arguments]
    return f" It is an argument of {' and '.join(owners)}." if owners else ""


def _number(value: object) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable else math.nan  # type: ignore[arg-type]


def _names_devices(devices: object) -> bool:
    if isinstance(devices, tuple):
        texts = all(isinstance(name, str) for name in devices)
        return bool(devices) and texts and len(set(devices)) == len(devices)
    text = isinstance(devices, str) and devices != ""
    return devices is None or text or is_whole(devices, least=1)


def _rising(scales: object) -> bool:
    if not isinstance(scales, tuple) or not scales:
        return False
    numbers = [_number(scale) for scale in scales]
    return numbers[0] > 0 and numbers == sorted(numbers) and numbers[-1] == 1


def _check_training_numbers(config: FitConfig) -> None:
    for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
        value = getattr(config, name)
        check_number(
            name,
            value,
            expected=f"a whole number of at least {least}",
            ok=is_whole(value, least=least),
        )
    check_number(
        "seed", config.seed, expected="below 2**32, as NumPy wants it", ok=config.seed < 2**32
    )
    for name in ("learning_rate", "gradient_clip", "weight_clip"):
        value = getattr(config, name)
        if value is not None or name == "learning_rate":
            ok = 0 < _number(value) < math.inf
            check_number(name, value, expected="a number above 0", ok=ok)
    check_number(
        "weight_decay", config.weight_decay, expected="a number of at least 0",
        ok=0 <= _number(config.weight_decay) < math.inf,
    )  # fmt: skip
    for name in ("warmup", "label_smoothing", "ema"):
        value = getattr(config, name)
        if value is not None or name != "ema":
            ok = 0 <= _number(value) < 1
            check_number(name, value, expected="at least 0 and below 1", ok=ok)
    if config.skip_learned is not None:
        check_number(
            "skip_learned", config.skip_learned, expected="above 0 and below 1",
            ok=0 < _number(config.skip_learned) < 1,
        )  # fmt: skip
    for name in ("early_stopping", "threads"):
        value = getattr(config, name)
        ok = value is None or is_whole(value, least=1)
        check_number(name, value, expected="a whole number of at least 1", ok=ok)
    check_number(
        "devices", config.devices, expected='"all", a number of GPUs, or names such as '
        '("gpu:0", "gpu:1")', ok=_names_devices(config.devices),
    )  # fmt: skip
    if isinstance(config.class_weights, str):
        check_choice("class_weights", config.class_weights, ["balanced"])


def _check_data_numbers(config: FitConfig) -> None:
    for name in ("validation_fraction", "test_fraction"):
        value = getattr(config, name)
        ok = 0 < _number(value) < 0.5
        check_number(name, value, expected="above 0 and below 0.5", ok=ok)
    if config.image_size is not None:
        ok = is_whole(config.image_size, least=4) and config.image_size <= 4096
        check_number("image_size", config.image_size, expected="pixels from 4 to 4096", ok=ok)
    if config.channels is not None:
        ok = is_whole(config.channels, least=1) and config.channels in (1, 3)
        check_number("channels", config.channels, expected="1 or 3", ok=ok)
    parse_bytes("memory_budget", config.memory_budget)
    parse_duration("checkpoint_every", config.checkpoint_every)
    if config.progressive is not None:
        check_number(
            "progressive", config.progressive,
            expected="shares of the full size that do not fall and end with 1, such as (0.5, 1)",
            ok=_rising(config.progressive),
        )  # fmt: skip
    if config.time_budget is not None:
        parse_duration("time_budget", config.time_budget)
