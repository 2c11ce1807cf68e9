"""A user's own search space: a KerasTuner HyperModel, or a function of its hyper-parameters `hp`.

It returns a compiled Keras model, or a mapping of what `fit` takes as arguments.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.config import FitConfig
from kclassify.data.spec import Source

runtime.prepare()

import keras  # noqa: E402
import keras_tuner  # noqa: E402

from kclassify.search.space import with_values  # noqa: E402
from kclassify.training.session import Session, session_of  # noqa: E402

HyperModel: TypeAlias = keras_tuner.HyperModel | Callable[[keras_tuner.HyperParameters], Any]
# Conditions within conditions; each build can show those of one more level.
MOST_BUILDS = 20


def build(hypermodel: HyperModel, hp: keras_tuner.HyperParameters) -> keras.Model | Mapping:
    """Return what a hyper-model makes of hyper-parameters: a compiled model, or arguments.

    Raises:
        InputError: it makes something else.
    """
    made = hypermodel.build(hp) if hasattr(hypermodel, "build") else hypermodel(hp)
    if not isinstance(made, keras.Model | Mapping):
        raise InputError(
            "`hypermodel` must return a compiled keras.Model or a mapping of arguments of fit. "
            f"Received: {type(made).__name__}."
        )
    return made


def discover(hypermodel: HyperModel) -> keras_tuner.HyperParameters:
    """Return the space of a hyper-model, found by building it until no condition is new.

    Raises:
        InputError: it has no hyper-parameter.
    """
    hp = keras_tuner.HyperParameters()
    seen: list[Any] = []
    for _ in range(MOST_BUILDS):
        build(hypermodel, hp)
        unseen = [scope for scope in hp.inactive_scopes if scope not in seen]
        if not unseen:
            break
        seen.append(unseen[0])
        for condition in unseen[0]:
            hp.values[condition.name] = condition.values[0]
        hp.ensure_active_values()
    if not hp.space:
        raise InputError(
            "`hypermodel` must have hyper-parameters, such as hp.Choice. Received: one with none. "
            "Use kclassify.fit."
        )
    found = keras_tuner.HyperParameters()
    found.merge(hp.space)
    return found


def config_or_session(
    hypermodel: HyperModel, hp: keras_tuner.HyperParameters, base: FitConfig, source: Source
) -> tuple[FitConfig, Session | None]:
    """Return the configuration of a trial, and its session where the user has built the model."""
    keras.utils.set_random_seed(base.seed)
    made = build(hypermodel, hp)
    if isinstance(made, Mapping):
        return with_values(base, made), None
    return base, session_of(source, base, made)
