"""Which processes train together, and which of them this one is."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from kclassify.checks import InputError, is_whole, parse_address

VARIABLE = "TF_CONFIG"
# The process that has started this one as a worker, and waits for it.
LAUNCHER = "KCLASSIFY_LAUNCHER"
SLURM = "slurm"
# As TensorFlow's resolver counts up from it where a machine has several tasks.
SLURM_PORT = 8888


@dataclass(frozen=True)
class Cluster:
    """The workers of a training; the first is the chief, which alone writes the run folder.

    Attributes:
        workers: their addresses, ``host:port``.
        index: which of them this process is.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def config(self) -> str:
        """The JSON text that TensorFlow reads from the variable ``TF_CONFIG``."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})

    def name(self, index: int) -> str:
        """Return what messages call a worker."""
        return f"worker {index} ({self.workers[index]})"

    @property
    def neighbours(self) -> int:
        """How many workers share this one's machine, itself among them."""
        hosts = [address.rpartition(":")[0] for address in self.workers]
        return hosts.count(hosts[self.index])


def find_cluster(cluster: str | Sequence[str] | None, worker: int | None) -> Cluster | None:
    """Return the cluster that is named, or that the environment names; None for one process.

    Args:
        cluster: the addresses of all workers, in the same order for each, as a sequence or with
            commas between; ``"slurm"`` asks SLURM; None looks at ``TF_CONFIG``.
        worker: which of the addresses is this process's.

    Raises:
        InputError: an address is none or there twice, or `worker` is none of them.

    Example:
        >>> from kclassify.training.cluster import find_cluster
        >>> find_cluster("10.0.0.1:4000,10.0.0.2:4000", 1).name(0)
        'worker 0 (10.0.0.1:4000)'
    """
    if cluster is None:
        if worker is not None:
            raise InputError(
                f"`worker` must be given with `cluster`, whose addresses it counts. "
                f"Received: worker={worker!r} without."
            )
        return _of_environment()
    if cluster == SLURM:
        return _of_slurm()
    addresses = cluster.split(",") if isinstance(cluster, str) else cluster
    if not isinstance(addresses, Sequence):
        raise InputError(
            f"`cluster` must list addresses of the form host:port. Received: {cluster!r}. Give "
            "them as a sequence, or as a text with commas between."
        )
    return _checked(tuple(addresses), worker, source="cluster", index_source="worker")


def check_alone(what: str) -> None:
    """Raise `InputError` where the environment names several workers, for what one process does."""
    found = _of_environment()
    if found is not None:
        raise InputError(
            f"`{VARIABLE}` must be unset for {what}, which one process does. Received: one of "
            f"{len(found.workers)} workers. Unset it, and run this in one process."
        )


def _of_environment() -> Cluster | None:
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        config = json.loads(text)
        jobs = config.get("cluster", {}).items()
        kinds = {job: tuple(addresses) for job, addresses in jobs}
        task: dict[str, object] = dict(config.get("task", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"`{VARIABLE}` must be JSON with `cluster`, lists of addresses by job, and `task`. "
            f"Received: {text!r}. Mend or unset it."
        ) from error
    if not kinds:
        return None
    kind, index = task.get("type", "worker"), task.get("index", 0)
    if set(kinds) - {"chief", "worker"} or kind not in list(kinds) or not is_whole(index, least=0):
        raise InputError(
            f"`{VARIABLE}` must name a cluster of the job `worker`, with or without a `chief`, and "
            f"the task of this process in it. Received: jobs {sorted(kinds)}, task {task}."
        )
    chiefs = kinds.get("chief", ())
    place = int(index) + (len(chiefs) if kind == "worker" else 0)  # type: ignore[call-overload]
    return _checked((*chiefs, *kinds.get("worker", ())), place, source=VARIABLE,
                    index_source=VARIABLE)  # fmt: skip


def _of_slurm() -> Cluster | None:
    from kclassify import runtime

    runtime.prepare()
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=SLURM_PORT,
            # Which GPUs a task has is srun's to say, and nvidia-smi need not be there.
            gpus_per_node=4096, gpus_per_task=1, auto_set_gpu=False,
        )  # fmt: skip
        jobs, (_, index) = resolver.cluster_spec().as_dict(), resolver.get_task_info()
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"`cluster` must be 'slurm' within a SLURM step alone, where srun has set its "
            f"variables. Received: 'slurm', and TensorFlow says: {error!r}. Start it by srun, or "
            "list the addresses."
        ) from error
    return _checked(tuple(jobs["worker"]), int(index), source="cluster", index_source="cluster")


def _checked(
    workers: tuple[str, ...], index: int | None, *, source: str, index_source: str
) -> Cluster | None:
    for address in workers:
        place = parse_address(address) if isinstance(address, str) else None
        if place is None:
            raise InputError(
                f"`{source}` must list addresses of the form host:port. Received: {address!r}."
            )
        if ":" in place[0]:
            raise InputError(
                f"`{source}` must list addresses of IPv4, or names. Received: {address!r}. Give "
                "the machine's name."
            )
        if workers.count(address) > 1:
            raise InputError(
                f"`{source}` must list each worker once. Received: {address!r}, "
                f"{workers.count(address)} times. Give each process a port of its own."
            )
    if not is_whole(index, least=0) or not int(index or 0) < len(workers):
        raise InputError(
            f"`{index_source}` must say which of the {len(workers)} workers this process is, from "
            f"0 to {len(workers) - 1}. Received: {index!r}."
        )
    return Cluster(workers, int(index or 0)) if len(workers) > 1 else None
