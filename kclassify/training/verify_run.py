"""`verify_run`: train the first steps of a run again, and compare."""

import os
from dataclasses import dataclass
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, VerificationError
from kclassify.config import FitConfig
from kclassify.data.fingerprint import fingerprint
from kclassify.data.sources import load_source, prepare
from kclassify.data.spec import Source
from kclassify.runs import Run, read_json

runtime.prepare()


from kclassify.training.callbacks import FirstSteps  # noqa: E402
from kclassify.training.session import build_session, train_batches  # noqa: E402


@dataclass(frozen=True)
class Verified:
    """What was compared. `str()` of it is a sentence.

    Attributes:
        steps: how many were trained again.
        weights_sha256: of the weights after them, then and now.
        other_packages: ``(name, then, now)`` of the versions that differ.
    """

    steps: int
    weights_sha256: str
    other_packages: tuple[tuple[str, str | None, str | None], ...]

    def __str__(self) -> str:
        return (
            f"the first {self.steps} steps give the same weights again, bit for bit "
            f"(SHA-256 {self.weights_sha256[:16]}...){_versions(self.other_packages)}"
        )


def verify_run(run: Run | str | os.PathLike[str], *, data: Any = None) -> Verified:
    """Train the first steps of a run again, and compare the weights bit for bit.

    It shows that code, data and configuration are those of the run, on a machine that computes as
    that one did. On a GPU that takes ``deterministic=True``.

    Args:
        run: a run, or the path of its folder.
        data: the data that the run was trained on, where its folder does not say by which name or
            path to load it again.

    Returns:
        What was compared.

    Raises:
        InputError: there is no such run, or it cannot be trained again as it was.
        VerificationError: the data or the weights are others.

    Example:
        >>> import kclassify
        >>> run = kclassify.fit("digits", epochs=1, run_dir="my-run", verbose=False)
        >>> kclassify.verify_run(run).steps >= 5
        True
    """
    run = Run.open(run)
    config = FitConfig.from_json(run.config["config"])
    _check_repeatable(run, config)
    source = _source(run, data, config)
    recorded = read_json(run.first_steps_file, {"steps": int, "weights_sha256": str})
    changed = _changed_packages(run)
    found = _train_again(source, config, steps=recorded["steps"])
    if found != recorded["weights_sha256"]:
        raise VerificationError(
            f"after {recorded['steps']} steps the weights are others than those of {str(run)!r}"
            f"{_versions(changed)}. The code, the machine or its libraries compute otherwise."
        )
    return Verified(recorded["steps"], found, changed)


def _changed_packages(run: Run) -> tuple[tuple[str, str | None, str | None], ...]:
    there = read_json(run.environment_file, {"packages": dict})["packages"]
    here = runtime.environment()["packages"]
    return tuple((n, there.get(n), here[n]) for n in here if there.get(n) != here[n])


def _check_repeatable(run: Run, config: FitConfig) -> None:
    if not run.first_steps_file.is_file():
        reason = f"which has no {run.first_steps_file.name}; an earlier version trained it"
    elif "compression" in run.config:
        reason = "which came of another, as its report says"
    elif "workers" in run.config:
        reason = f"which {run.config['workers']} workers trained together, to other last bits"
    elif config.data_service is not None:
        reason = "whose batches a tf.data service made, of several workers in no order of its own"
    elif config.time_budget is not None:
        reason = "whose steps followed from a time budget, and so from the clock"
    else:
        return
    raise InputError(
        f"`run` must be one that can be trained again as it was. Received: {str(run)!r}, {reason}. "
        "Give `fit` a new folder, and neither a time budget nor a data service."
    )


def _source(run: Run, data: Any, config: FitConfig) -> Source:
    data = run.config["reference"] if data is None else data
    if data is None:
        raise InputError(
            f"`data` must be given for a run that was trained on data in memory. Received: None "
            f"with {str(run)!r}. Pass what `fit` was called with."
        )
    source = prepare(load_source(data, config), config, verbose=False)
    if fingerprint(source) != run.config["fingerprint"]:
        raise VerificationError(f"the images or labels are others than those of {str(run)!r}")
    return source


def _train_again(source: Source, config: FitConfig, *, steps: int) -> str:
    session = build_session(source, config)
    first = FirstSteps(None, count=steps)
    with session.replicas.scope():
        session.model.fit(
            train_batches(session, source, epochs=1, steps=session.steps * config.epochs),
            steps_per_epoch=session.steps,
            shuffle=False,
            callbacks=[first],
            verbose=0,
        )
    if first.found is None:
        raise VerificationError(f"an epoch has fewer steps than the {steps} that were noted")
    return first.found["weights_sha256"]


def _versions(packages: tuple[tuple[str, str | None, str | None], ...]) -> str:
    text = ", ".join(f"{name} {there} then and {here} now" for name, there, here in packages)
    return f" ({text})" if text else ""
