"""`analyze`: everything that can be asked of an evaluated run, in one go."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from kclassify.checks import check_choice, check_number
from kclassify.evaluation.run_data import can_reload, source_of
from kclassify.runs import Run

# Name -> where its function is, which takes a run, `verbose` and mostly `data`.
ANALYSES = {
    "explanation": "kclassify.evaluation.explanation:explain",
    "learned": "kclassify.evaluation.features:learned",
    "slices": "kclassify.evaluation.slices:slices",
    "out_of_distribution": "kclassify.evaluation.out_of_distribution:out_of_distribution",
    "cost": "kclassify.evaluation.cost:cost",
    "robustness": "kclassify.evaluation.robustness:robustness",
}
# Robustness takes minutes, the others together about one.
USUAL = tuple(name for name in ANALYSES if name != "robustness")
# What is measured on no image.
WITHOUT_DATA = ("cost",)


def analyze(
    run: Run | str | os.PathLike[str],
    *,
    parts: Sequence[str] = USUAL,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    data: Any = None,
    verbose: bool = True,
) -> dict[str, Any]:
    """Look at an evaluated run from all sides; the next `report` shows what was found.

    The data and the model are loaded once for all of them, and what two parts ask of the network
    is computed once.

    Args:
        run: a run that was evaluated, or its folder.
        parts: which of `ANALYSES`; by default all but ``"robustness"``, which takes minutes.
        options: arguments of a part's own function, by its name, such as
            ``{"slices": {"by": "camera"}}``.
        data: images to use instead of the run's own, as in `evaluate`.
        verbose: show progress bars.

    Returns:
        What each part's function returns, by its name.

    Raises:
        InputError: an unknown part, or the run was not evaluated.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> _ = kclassify.evaluate(run, verbose=False)
        >>> list(kclassify.analyze(run, parts=["slices"], verbose=False))
        ['slices']
    """
    names = [parts] if isinstance(parts, str) else list(parts)
    check_number("parts", parts, expected="at least one of the analyses", ok=bool(names))
    for argument, asked in (("parts", names), ("options", list(options or {}))):
        for name in asked:
            check_choice(argument, name, ANALYSES)
    run = Run.open(run)
    subject = _subject(run, data, verbose) if set(names) - set(WITHOUT_DATA) else None
    found = {}
    for name in names:
        given: dict[str, Any] = {"verbose": verbose, **(options or {}).get(name, {})}
        given |= {} if name in WITHOUT_DATA else {"data": data}
        found[name] = _function(name)(run if name in WITHOUT_DATA else subject, **given)
    return found


def _subject(run: Run, data: Any, verbose: bool) -> Any:
    """Open the run with its data, once for all parts."""
    from kclassify.evaluation.subject import open_subject

    if data is None and can_reload(run):
        run = replace(run, source=source_of(run, verbose=verbose))
    return open_subject(run, data=data, verbose=verbose)


def _function(name: str) -> Any:
    module, function = ANALYSES[name].split(":")
    return getattr(import_module(module), function)
