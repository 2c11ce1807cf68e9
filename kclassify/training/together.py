"""How several workers do one piece of work: all of them begin and end it, or none."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kclassify import runtime
from kclassify.checks import InputError, VerificationError
from kclassify.runs import Run
from kclassify.training.checkpoint import DamagedError, read_checkpoint
from kclassify.training.cluster import Cluster

runtime.prepare()

from kclassify.training.place import Place  # noqa: E402
from kclassify.training.replicas import Replicas  # noqa: E402
from kclassify.training.resume import FREE_FACTS, FREE_FIELDS, Past, differences  # noqa: E402

Found = TypeVar("Found")


def check_options(
    cluster: Cluster, options: Mapping[str, Any], *, preset: str | None, run_dir: object
) -> None:
    """Raise `InputError` for what several workers cannot do, or must be told."""
    if run_dir is None:
        raise InputError(
            f"`run_dir` must be given with several workers: the chief writes it and all read it. "
            f"Received: None for {cluster.name(cluster.index)}. Name the same folder for each."
        )
    given = {**options, "preset": preset}
    measured = [name for name in ("preset", "batch_size") if given.get(name) == "auto"]
    measured += ["time_budget"] * (given.get("time_budget") is not None)
    for name in measured:
        raise InputError(
            f"`{name}` must not depend on what a machine measures, with several workers, each of "
            f"which would find another. Received: {name}={given[name]!r}. Say how much instead."
        )


@contextmanager
def folder_of(replicas: Replicas, path: os.PathLike[str]) -> Iterator[Path]:
    """Yield the folder that this worker writes to: the run's for the chief, else one to forget."""
    if replicas.chief:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="kclassify-worker-") as folder:
        yield Path(folder) / "run"


def agreed(replicas: Replicas, work: Callable[[], Found]) -> Found:
    """Return what `work` returns here, or raise on all workers what it raises on one."""
    found: list[Found] = []
    refusal = None
    try:
        found.append(work())
    except InputError as error:
        if replicas.workers == 1:
            raise
        refusal = str(error)
    for index, said in enumerate(replicas.gather(refusal)):
        if said is not None:
            whose = "" if index == replicas.worker else f"{_name(replicas, index)} stopped: "
            raise InputError(f"{whose}{said}")
    return found[0]


def in_turn(replicas: Replicas, work: Callable[[], Found]) -> Found:
    """Return what `work` returns here; the chief does it first, and the others read its files."""
    first = agreed(replicas, lambda: [work()] if replicas.chief else [])
    second = agreed(replicas, lambda: [] if replicas.chief else [work()])
    return [*first, *second][0]


def check_same_work(replicas: Replicas, told: Mapping[str, Any]) -> None:
    """Raise `InputError` on all unless each tells the same as the chief, of arguments by name."""
    everyone = replicas.gather(dict(told))
    for index, found in enumerate(everyone):
        for name in told:
            if found[name] != everyone[0][name]:
                raise InputError(
                    f"`{name}` must be the same for all workers. Received: another for "
                    f"{_name(replicas, index)} than for the chief. Give each the same."
                )


def check_same_policy(replicas: Replicas, policy: str) -> None:
    """Raise `InputError` on all where processors choose other dtypes by themselves."""
    everyone = replicas.gather(policy)
    for index, found in enumerate(everyone):
        if found != everyone[0]:
            raise InputError(
                f"`mixed_precision` must come to the same on all workers. Received: {found} for "
                f"{_name(replicas, index)}, {everyone[0]} for the chief, whose processor is "
                "another. Give each mixed_precision=False, or take machines of one kind."
            )


def check_same_weights(hashes: Sequence[str]) -> None:
    """Raise `VerificationError` unless all workers ended with the weights of the chief."""
    different = [str(index) for index, one in enumerate(hashes) if one != hashes[0]]
    if different:
        raise VerificationError(
            f"workers must end with the same weights. Received: others than the chief's at worker "
            f"{' and '.join(different)}. Do not use this run; report how it was trained."
        )


def check_alike(replicas: Replicas, everyone: list[dict[str, Any]]) -> None:
    """Raise `InputError` where a worker has another configuration, data or version."""
    chief = everyone[0]
    for index, facts in enumerate(everyone):
        differing = [
            *differences(facts["manifest"]["config"], chief["manifest"]["config"], but=FREE_FIELDS),
            *differences(facts["manifest"], chief["manifest"], but=FREE_FACTS),
            *differences(facts["versions"], chief["versions"], but=()),
        ]
        if differing:
            raise InputError(
                f"`cluster` must have workers of one configuration, data and versions. Received: "
                f"{_name(replicas, index)} with {', '.join(differing)}. Give each the same; "
                "nothing was written."
            )


def past_of_chief(place: Place, path: Path, step: int | None, replicas: Replicas) -> Past:
    """Return what the chief goes on from, the checkpoint of a step.

    Raises:
        InputError: this worker does not see it.
    """
    if replicas.chief or step is None:
        return place.past
    found = Run(path).checkpoints_dir / f"step-{step:09d}"
    try:
        checkpoint = read_checkpoint(found)
    except DamagedError as error:
        raise InputError(
            f"`run_dir` must be a folder that all workers see. Received: {str(path)!r}, in which "
            f"{_name(replicas, replicas.worker)} does not find the checkpoint of step {step:,} "
            f"({error}). Put it on a file system that they share."
        ) from error
    return Past(checkpoint.facts["manifest"], checkpoint)


def _name(replicas: Replicas, index: int) -> str:
    return replicas.cluster.name(index) if replicas.cluster else "this process"
