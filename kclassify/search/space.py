"""What is searched: fields of `FitConfig` and arguments of the model, declared as data."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from kclassify.checks import InputError, check_number, nearest
from kclassify.config import MIXING, FitConfig, own_rate
from kclassify.models.registry import MODELS

FIELDS = tuple(item.name for item in fields(FitConfig))
# What all trials share, or what says how long they are.
NOT_SEARCHED = (
    "model_args", "epochs", "time_budget", "seed", "deterministic", "device", "devices", "threads",
    "checkpoint_every", "tensorboard", "image_size", "channels", "class_names",
    "validation_fraction", "test_fraction", "data_dir", "data_service", "on_error", "memory_budget",
)  # fmt: skip
CHANGES_THE_LOSS = ("loss", "label_smoothing", "class_weights")
_RANGE = ("min_value", "max_value", "step", "sampling")
_KEYS = ("values", *_RANGE, "default", "when")
_SAMPLINGS = ("linear", "log", "reverse_log")


@dataclass(frozen=True)
class Dimension:
    """One hyper-parameter, in KerasTuner's words.

    Attributes:
        name: a field of `FitConfig` or an argument of the model.
        values: to choose among; a range has none.
        min_value: of a range.
        max_value: of a range, itself included.
        step: between its values; between any two logarithms with ``sampling="log"``.
        sampling: ``"linear"``, ``"log"`` or ``"reverse_log"``.
        default: the value of the first trial.
        when: it is there only where these others have one of these values.
        alternative: which of several of one name it is, from 0.
    """

    name: str
    values: tuple[Any, ...] = ()
    min_value: float | None = None
    max_value: float | None = None
    step: float | None = None
    sampling: str = "linear"
    default: Any = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    alternative: int = 0

    @property
    def key(self) -> str:
        """What KerasTuner calls it: it drops the value of one of two that have the same name."""
        return f"{self.name}#{self.alternative + 1}" if self.alternative else self.name

    @property
    def free(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.values) > 1 or (not self.values and self.min_value != self.max_value)

    @property
    def whole(self) -> bool:
        """Whether a range is of whole numbers."""
        numbers = (self.min_value, self.max_value, self.step)
        return all(isinstance(n, int) for n in numbers if n is not None)

    def samples(self) -> tuple[Any, ...]:
        """Return all the values of a choice, and the ends of a range."""
        return self.values or (self.min_value, self.max_value)

    def declare(self, hp: Any, conditions: Mapping[str, list[Any]]) -> None:
        """Declare it to KerasTuner's `HyperParameters`."""
        from keras_tuner.src.engine.conditions import Parent

        # Scopes within scopes would look for each parent below the one before.
        hp._conditions = [Parent(parent, values) for parent, values in conditions.items()]
        try:
            self._declare(hp)
        finally:
            hp._conditions = []

    def _declare(self, hp: Any) -> None:
        if self.values:
            # None may be one of the values; otherwise it leaves the default to KerasTuner.
            known = self.default is not None or None in self.values
            default = self.encode(self.default) if known else None
            hp.Choice(self.key, [self.encode(v) for v in self.values], default=default)
            return
        kind = hp.Int if self.whole else hp.Float
        ends = {name: getattr(self, name) for name in _RANGE}
        kind(self.key, **ends, default=self.default)

    @property
    def _plain(self) -> bool:
        """Whether KerasTuner takes the values as they are: of one simple type.

        Of True and False it would make 1 and 0.
        """
        kinds = {type(value) for value in self.values}
        return len(kinds) == 1 and kinds <= {str, int, float}

    def encode(self, value: Any) -> Any:
        """Return a value as KerasTuner can hold it: lists, None and True become JSON."""
        return value if not self.values or self._plain else json.dumps(value)

    def decode(self, value: Any) -> Any:
        """Return the value that `encode` was given."""
        return value if not self.values or self._plain else json.loads(value)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, as `read_space` reads them."""
        keys = ("name", *_KEYS, "alternative")
        return json.loads(json.dumps({key: getattr(self, key) for key in keys}))


def read_space(
    space: Mapping[str, Any] | str | os.PathLike[str] | None,
    base: FitConfig,
    input_shape: Sequence[int],
) -> tuple[Dimension, ...]:
    """Return the dimensions of a search space, those that others depend on first.

    Args:
        space: a mapping from names to what they may be: a list of values, or a mapping with
            `values`, or `min_value`, `max_value`, `step` and `sampling`; and `default` and `when`
            (a mapping from another name to its values). Several of them in a list, each with a
            `when`, are alternatives. Or the path of a YAML or JSON file with such a mapping; None
            takes the model's own space.
        base: what a trial has where the space says nothing.
        input_shape: ``(height, width, channels)``, which bounds a network's depth.

    Raises:
        InputError: a name, a form or a value that cannot be searched, or nothing to choose.

    Example:
        >>> from kclassify import FitConfig
        >>> space = {"filters": [16, 32], "learning_rate": {"min_value": 0.01, "max_value": 0.5}}
        >>> [dimension.name for dimension in read_space(space, FitConfig(), (32, 32, 3))]
        ['filters', 'learning_rate']
    """
    if space is None:
        from kclassify.search.spaces import default_space

        space = default_space(base, input_shape)
    read = _read_file(Path(space)) if isinstance(space, str | os.PathLike) else space
    ok = isinstance(read, Mapping)
    check_number("space", read, expected="a mapping from names to their values", ok=ok)
    known = _known(read, base)
    found = []
    for name, declared in read.items():
        _check_name(name, known)
        found += [
            replace(_dimension(name, one, base), alternative=place)
            for place, one in enumerate(_alternatives(declared))
        ]
    dimensions = _parents_first(found)
    _check_values(dimensions, base)
    if not any(dimension.free for dimension in dimensions):
        raise InputError(
            f"`space` must leave something to choose. Received: {dict(read)!r}, where every name "
            "has one value. Add values, or use kclassify.fit."
        )
    return dimensions


def judged_by(
    objective: str, dimensions: tuple[Dimension, ...], *, own: bool
) -> tuple[Dimension, ...]:
    """Return the dimensions that an objective can judge.

    A loss is measured on validation images as it is on training ones: what changes it makes its
    values incomparable. A space of the user's `own` with such a dimension is refused.
    """
    if "loss" not in objective:
        return dimensions
    if own:
        for dimension in dimensions:
            if dimension.name in CHANGES_THE_LOSS:
                raise InputError(
                    f"`objective` must be an accuracy where the space has {dimension.name!r}, "
                    f"which changes the loss itself. Received: {objective!r}. Take 'val_accuracy', "
                    "or leave it out of the space."
                )
    return tuple(one for one in dimensions if one.name not in CHANGES_THE_LOSS)


def declare(dimensions: Iterable[Dimension], hp: Any) -> None:
    """Declare dimensions, parents first, to KerasTuner's `HyperParameters`."""
    seen: dict[str, Dimension] = {}
    for dimension in dimensions:
        conditions = {
            parent: [seen[parent].encode(value) for value in values]
            for parent, values in dimension.when.items()
        }
        dimension.declare(hp, conditions)
        seen[dimension.name] = dimension


def config_of(
    base: FitConfig, dimensions: Iterable[Dimension], values: Mapping[str, Any]
) -> FitConfig:
    """Return the configuration of a trial: `base` with KerasTuner's `values`.

    Another model than that of `base` has its own arguments, and images of one size.
    """
    return with_values(base, plain_values(dimensions, values))


def plain_values(dimensions: Iterable[Dimension], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what KerasTuner's `values` say of the dimensions, by name."""
    known = {dimension.key: dimension for dimension in dimensions}
    return {known[key].name: known[key].decode(value) for key, value in values.items()
            if key in known}  # fmt: skip


def with_values(base: FitConfig, values: Mapping[str, Any]) -> FitConfig:
    """Return `base` with values of fields and of arguments of the model."""
    changes = {name: value for name, value in values.items() if name in FIELDS}
    changes = {**own_rate(changes, before=base.optimizer), **changes}
    own = {name: value for name, value in values.items() if name not in FIELDS}
    if changes.get("augmentation", base.augmentation) in MIXING:
        # The loss of an image is not known where it is mixed with another.
        changes = {"skip_learned": None, **changes}
    if changes.get("model", base.model) != base.model:
        return base.replace(**{"progressive": None, **changes}, model_args=own)
    return base.replace(**changes, model_args={**base.model_args, **own})


def _read_file(path: Path) -> Any:
    import yaml

    try:
        # JSON is YAML too.
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"`space` must be a file that can be read. Received: {str(path)!r} ({error.strerror})."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"`space` must be a YAML or JSON file. Received: {str(path)!r}, which is not: "
            f"{' '.join(str(error).split())}."
        ) from error


def _known(space: Mapping[str, Any], base: FitConfig) -> list[str]:
    declared = space.get("model", ())
    values = declared.get("values", ()) if isinstance(declared, Mapping) else declared
    models = [base.model, *(name for name in values if name in MODELS)]
    searched = [name for name in FIELDS if name not in NOT_SEARCHED]
    return [*searched, *dict.fromkeys(arg for name in models for arg in MODELS[name].arguments)]


def _check_name(name: object, known: Sequence[str]) -> None:
    if name in NOT_SEARCHED:
        raise InputError(
            f"`space` must name what trials may differ in. Received: {name!r}, which all of them "
            "share. Give it as an argument of the search."
        )
    if name not in known:
        raise InputError(
            f"`space` must name fields of FitConfig or arguments of the model, of {sorted(known)}. "
            f"Received: {name!r}.{nearest(str(name), known)}"
        )


def _alternatives(declared: Any) -> list[Any]:
    several = isinstance(declared, list | tuple) and declared
    if several and all(isinstance(one, Mapping) and "when" in one for one in declared):
        return list(declared)
    return [declared]


def _dimension(name: str, declared: Any, base: FitConfig) -> Dimension:
    if not isinstance(declared, Mapping):
        declared = {"values": declared if isinstance(declared, list | tuple) else [declared]}
    for key in declared:
        if key not in _KEYS:
            raise InputError(
                f"`space` must describe {name!r} by some of {list(_KEYS)}. Received: {key!r}."
                f"{nearest(str(key), _KEYS)}"
            )
    when = {parent: _tuple(values) for parent, values in declared.get("when", {}).items()}
    options = {key: declared[key] for key in declared if key not in ("values", "when")}
    if "values" in declared:
        dimension = Dimension(name, _one_kind(_tuple(declared["values"])), when=when, **options)
    else:
        dimension = Dimension(name, when=when, **options)
    _check_form(dimension, declared)
    return dimension if dimension.default is not None else _with_default(dimension, base)


def _tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list | tuple) else (values,)


def _one_kind(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return whole numbers among fractions as fractions; KerasTuner does not take both."""
    kinds = {type(value) for value in values}
    return tuple(float(value) for value in values) if kinds == {int, float} else values


def _check_form(dimension: Dimension, declared: Mapping[str, Any]) -> None:
    ends = (dimension.min_value, dimension.max_value)
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in ends)
    log = dimension.sampling != "linear"
    ranged = numbers and ends[0] <= ends[1] and (not log or ends[0] > 0)  # type: ignore[operator]
    step = dimension.step
    ok = (
        bool(dimension.values) != ranged
        and dimension.sampling in _SAMPLINGS
        and (step is None or (isinstance(step, int | float) and step > (1 if log else 0)))
    )
    if not ok:
        raise InputError(
            f"`space` must give {dimension.name!r} some values, or a min_value and a max_value "
            f"(above 0 unless sampling is 'linear'; with sampling of {list(_SAMPLINGS)}, and a "
            f"step above 0, above 1 for logarithms). Received: {dict(declared)!r}."
        )


def _with_default(dimension: Dimension, base: FitConfig) -> Dimension:
    """Begin at what `base` has, where the dimension has that too."""
    value = base.model_args.get(dimension.name, getattr(base, dimension.name, None))
    value = list(value) if isinstance(value, tuple) else value
    if dimension.values:
        known = [list(v) if isinstance(v, tuple) else v for v in dimension.values]
        place = known.index(value) if value in known else 0
        return replace(dimension, default=dimension.values[place])
    low, high = dimension.min_value, dimension.max_value
    inside = isinstance(value, int | float) and low <= value <= high  # type: ignore[operator]
    return replace(dimension, default=value if inside and dimension.step is None else low)


def _parents_first(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    names = [dimension.name for dimension in dimensions]
    ordered: list[Dimension] = []
    waiting = list(dimensions)
    while waiting:
        there = {dimension.name for dimension in ordered}
        ready = [d for d in waiting if set(d.when) <= there]
        if not ready:
            first = waiting[0]
            missing = next(parent for parent in first.when if parent not in there)
            raise InputError(
                f"`space` must have the names that others depend on, and no two that depend on "
                f"each other. Received: {first.name!r} when {missing!r}.{nearest(missing, names)}"
            )
        ordered += ready
        waiting = [d for d in waiting if d not in ready]
    return tuple(ordered)


def _check_values(dimensions: Sequence[Dimension], base: FitConfig) -> None:
    """Have `FitConfig` look at every value of its fields, before anything is trained."""
    for dimension in dimensions:
        if dimension.name in FIELDS:
            for value in (*dimension.samples(), dimension.default):
                with_values(base, {dimension.name: value})
