"""The training that mends what compression has broken: the end of the parent's own, once more."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, nearest
from kclassify.compression.parent import Parent, child_path
from kclassify.config import DATA_FIELDS, FitConfig, own_rate
from kclassify.models.weights import copy_weights
from kclassify.runs import Run, run_path

runtime.prepare()

import keras  # noqa: E402

from kclassify.compression.distillation import (  # noqa: E402
    Lesson,
    around_student,
    load_teacher,
)
from kclassify.training.learned import skipping_where_it_can  # noqa: E402
from kclassify.training.place import Place, taken_place  # noqa: E402
from kclassify.training.session import Session, Start, build_session  # noqa: E402

# Of the parent's epochs.
SHARE = 1 / 3
LESSON = tuple(item.name for item in fields(Lesson))
# The images are the parent's, split by its seed, and so is the network.
PARENTS = (*DATA_FIELDS, "seed", "model", "model_args")


@dataclass(frozen=True)
class Retraining:
    """How a network is trained again, or for the first time.

    Attributes:
        config: its configuration.
        begin: how far along its shape the learning rate begins.
        teacher: what it learns from besides the labels; None for the labels alone.
        named: which that is, for the manifest.
        lesson: how.
        given: the fields of `config` that were asked for.
    """

    config: FitConfig
    begin: float = 0.0
    teacher: keras.Model | None = None
    named: Any = None
    lesson: Lesson = Lesson()
    given: Mapping[str, Any] = field(default_factory=dict)

    def session(self, parent: Parent, network: keras.Model | None, **form: Any) -> Session:
        """Return the session of it: of `network`, or of a new one of the configuration."""
        around = None
        if self.teacher is not None:
            same = self.config.augmentation == "none" and self.config.progressive is None
            seen = parent.source.splits["train"] if same else None
            around = partial(around_student, teacher=self.teacher, lesson=self.lesson, seen=seen)
        start = Start(network, around=around, begin=self.begin, **form)
        return build_session(parent.source, self.config, start=start)

    def facts(self) -> dict[str, Any]:
        """Return what a run's manifest says of it."""
        lesson = {name: getattr(self.lesson, name) for name in LESSON} if self.named else {}
        facts = {"begin": round(self.begin, 6), "teacher": self.named, **lesson}
        return {**facts, "training": dict(self.given)}


def retraining(parent: Parent, options: Mapping[str, Any]) -> Retraining:
    """Return the training of a network that comes of `parent`, as `options` change it.

    By default it is the last third of the parent's epochs again, at the learning rates that they
    had (Renda et al. 2020, "learning rate rewinding"), at the images' full size. More epochs do not
    begin at higher rates, which would undo what was learned: they fall more slowly.

    Args:
        parent: the run.
        options: fields of `FitConfig`; `teacher`, by default the parent, and what `Lesson` takes.

    Raises:
        InputError: a name or a value that is none.
    """
    config = parent.config.replace(
        progressive=None, skip_learned=None, ema=None, time_budget=None, data_service=None,
        device="auto", devices=None, epochs=_default_epochs(parent),
    )  # fmt: skip
    own = {name: value for name, value in options.items() if name not in ("teacher", *LESSON)}
    check_names(own)
    config = config.replace(**{**own_rate(own, before=config.optimizer), **own})
    config = skipping_where_it_can(config, parent.source, given=own)
    share = 0.0 if "schedule" in own else _share_of(parent, config)
    return Retraining(config, share, *_teaching(parent, config, options), given=own)


def check_names(options: Mapping[str, Any], *, also: tuple[str, ...] = ()) -> None:
    """Raise `InputError` for an option that neither the technique nor `FitConfig` has."""
    training = [item.name for item in fields(FitConfig) if item.name not in PARENTS]
    known = [*also, "teacher", *LESSON, *training]
    for name, value in options.items():
        if name not in known:
            raise InputError(
                f"`{name}` must be an option of the technique, {[*also, 'teacher', *LESSON]}, or a "
                "field of FitConfig for the training. "
                f"Received: {name}={value!r}.{nearest(name, known)}"
            )


def _default_epochs(parent: Parent) -> int:
    return max(1, round(SHARE * parent.epochs))


def _share_of(parent: Parent, config: FitConfig) -> float:
    """Return how far along its shape the parent's learning rate was, that long before its end."""
    longest = _default_epochs(parent)
    epochs = longest if config.time_budget else min(config.epochs, longest)
    begin = parent.training.begin
    # What began along its shape did not rise.
    rise = 0.0 if begin or config.schedule == "constant" else config.warmup
    done = 1.0 - epochs / max(1, parent.epochs)
    return begin + (1.0 - begin) * max(0.0, (done - rise) / (1.0 - rise))


def _teaching(
    parent: Parent, config: FitConfig, options: Mapping[str, Any]
) -> tuple[Any, Any, Lesson]:
    """Return the teacher, its name, and the lesson."""
    lesson = Lesson(**{name: options[name] for name in LESSON if name in options})
    asked = options.get("teacher", "parent")
    if asked in (None, "none"):
        return None, None, lesson
    several = asked if isinstance(asked, list | tuple) else [asked]
    # "parent" is shorter than the path of the run that was just named.
    given = [parent.run if one == "parent" else one for one in several]
    device = runtime.resolve_device(config.device)
    policy = runtime.mixed_precision_policy(device, config.mixed_precision)
    any_size = config.progressive is not None
    teacher = load_teacher(given, parent.source, policy=policy, any_size=any_size)
    return teacher, [str(one) for one in given], lesson


@dataclass(frozen=True)
class Recipe:
    """A run that is to come of another: decided and checked, not made yet.

    Attributes:
        name: what its folder's name ends with.
        config: what its manifest has.
        facts: the technique, and what it was told.
        make: writes it.
    """

    name: str
    config: FitConfig
    facts: dict[str, Any]
    make: Callable[[Place, dict[str, Any]], None]


def produce(
    parent: Parent,
    recipe: Recipe,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    verbose: bool,
) -> Run:
    """Return the run of a recipe: made now, gone on with, or found finished."""
    path = run_path(child_path(parent, recipe.name, run_dir), name=recipe.name)
    runtime.set_threads(recipe.config.threads)
    with taken_place(
        path, again="the same command", began=time.perf_counter(), verbose=verbose
    ) as place:
        facts = parent.facts(recipe.config, recipe.facts)
        if not place.finished(facts):
            place.tell(f"{recipe.facts['technique']:9} {parent.run}")
            recipe.make(place, facts)
    return replace(place.run, source=parent.source)


def copy_of(network: keras.Model) -> keras.Model:
    """Return a network with the same weights that may be changed."""
    copy = keras.models.clone_model(network)
    copy_weights(network, copy)
    return copy
