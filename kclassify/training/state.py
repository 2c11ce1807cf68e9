"""The state of a training between two steps, taken from its parts and given back to them.

Keras's files hold neither the seeds of random layers nor what callbacks have counted, so a training
that goes on from them is another training.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError

runtime.prepare()

import keras  # noqa: E402

Arrays = dict[str, np.ndarray]

# What Keras's own callbacks have counted; any other callback may offer a mapping `state`.
KERAS_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ModelCheckpoint: ("best",),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


def model_arrays(model: keras.Model) -> Arrays:
    """Return the values of all the variables of a compiled model, by their places.

    Those of its random layers, its optimizer and its metrics are among them. Names are left out,
    because Keras numbers layers anew in every process.
    """
    return {f"variable/{place:05d}": v.numpy() for place, v in enumerate(_variables(model))}


def set_model_arrays(model: keras.Model, arrays: Arrays) -> None:
    """Give a model the values that `model_arrays` took from one of the same build.

    Raises:
        InputError: they are of another model.
    """
    variables = _variables(model)
    values = [arrays[name] for name in sorted(arrays) if name.startswith("variable/")]
    if [tuple(v.shape) for v in variables] != [value.shape for value in values]:
        raise InputError(
            "`run_dir` must hold checkpoints of this network and optimizer. Received: those of "
            "others, as another version of kclassify or Keras may have made them. Train again "
            "into another run_dir."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _variables(model: keras.Model) -> list[Any]:
    """Return each variable once; a model that was built by one step has them all."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return list({id(variable): variable for variable in variables}.values())


def callback_states(callbacks: Iterable[Any]) -> tuple[list[dict[str, Any]], Arrays]:
    """Return what callbacks have counted: JSON types, and apart from them arrays by name.

    Args:
        callbacks: those with a mapping `state` take part, of JSON types, arrays and lists of
            arrays; so do Keras's own.
    """
    facts: list[dict[str, Any]] = []
    arrays: Arrays = {}
    for place, callback in enumerate(_with_state(callbacks)):
        state = _state(callback)
        plain = {name: value for name, value in state.items() if not _is_arrays(value)}
        for name in state.keys() - plain.keys():
            arrays |= _named(f"callback/{place}/{name}", state[name])
        facts.append({"kind": type(callback).__name__, "state": plain})
    return facts, arrays


def set_callback_states(
    callbacks: Iterable[Any], facts: Sequence[dict[str, Any]], arrays: Arrays
) -> None:
    """Give callbacks the states that `callback_states` took.

    Raises:
        InputError: there are others than those that the states are of.
    """
    given = list(_with_state(callbacks))
    kinds, saved = [type(c).__name__ for c in given], [fact["kind"] for fact in facts]
    if kinds != saved:
        raise InputError(
            f"`callbacks` must be those that the run was begun with, in their order. Received: "
            f"{kinds}, and its checkpoint has the states of {saved}."
        )
    for place, (callback, fact) in enumerate(zip(given, facts, strict=True)):
        _set_saved(callback, place, fact, arrays)


def set_callback_state(callback: Any, facts: Sequence[dict[str, Any]], arrays: Arrays) -> None:
    """Give one callback alone its state, if there is one of its kind, before the others."""
    for place, fact in enumerate(facts):
        if fact["kind"] == type(callback).__name__:
            _set_saved(callback, place, fact, arrays)


def _set_saved(callback: Any, place: int, fact: dict[str, Any], arrays: Arrays) -> None:
    _set_state(callback, fact["state"] | _unnamed(f"callback/{place}/", arrays))


def _with_state(callbacks: Iterable[Any]) -> Iterable[Any]:
    return (c for c in callbacks if _has_state(c) or isinstance(c, tuple(KERAS_STATE)))


def _has_state(callback: Any) -> bool:
    return isinstance(getattr(callback, "state", None), Mapping)


def _names(callback: Any) -> tuple[str, ...]:
    return next((KERAS_STATE[kind] for kind in type(callback).__mro__ if kind in KERAS_STATE), ())


def _state(callback: Any) -> dict[str, Any]:
    if _has_state(callback):
        return dict(callback.state)
    # Some are set when training begins.
    return {name: getattr(callback, name, None) for name in _names(callback)}


def _set_state(callback: Any, state: dict[str, Any]) -> None:
    if _has_state(callback):
        callback.state = state
        return
    for name, value in state.items():
        setattr(callback, name, value)


def _is_arrays(value: Any) -> bool:
    several = isinstance(value, list) and value and all(isinstance(v, np.ndarray) for v in value)
    return isinstance(value, np.ndarray) or bool(several)


def _named(name: str, value: Any) -> Arrays:
    if isinstance(value, np.ndarray):
        return {name: value}
    return {f"{name}/{place:05d}": part for place, part in enumerate(value)}


def _unnamed(prefix: str, arrays: Arrays) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in sorted(arrays):
        if key.startswith(prefix):
            name, *place = key.removeprefix(prefix).split("/")
            found[name] = [*found.get(name, []), arrays[key]] if place else arrays[key]
    return found
