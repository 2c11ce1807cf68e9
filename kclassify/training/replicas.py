"""The devices and workers that make the steps of a training together, by tf.distribute."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from kclassify import runtime
from kclassify.checks import InputError, WorkerLostError
from kclassify.config import FitConfig
from kclassify.data.spec import Share
from kclassify.training.cluster import LAUNCHER, Cluster
from kclassify.training.interruption import stop_with
from kclassify.training.roll_call import (
    SECONDS_TO_COME,
    await_workers,
    missing_workers,
    silent_workers,
)

runtime.prepare()

import tensorflow as tf  # noqa: E402

# No public name says whether TensorFlow has begun to work, nor reaches the store that workers have.
from tensorflow.python.eager import context as eager  # noqa: E402

from kclassify.data.pipeline import to_device  # noqa: E402
from kclassify.training.keras_workers import mended  # noqa: E402

# What TensorFlow raises when another worker is gone, as one or the other notices it first.
_LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
    tf.errors.InternalError, tf.errors.FailedPreconditionError, tf.errors.DeadlineExceededError,
    tf.errors.UnknownError,
)  # fmt: skip


@dataclass(frozen=True)
class Replicas:
    """Where the steps are made, each replica with an equal share of the batch.

    Attributes:
        devices: TensorFlow's names of those of this process.
        strategy: what keeps them together; None for one device.
        cluster: the workers, where there are several.
    """

    devices: tuple[str, ...]
    strategy: tf.distribute.Strategy | None = None
    cluster: Cluster | None = None

    @property
    def count(self) -> int:
        """How many there are on all workers."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def workers(self) -> int:
        """How many processes."""
        return len(self.cluster.workers) if self.cluster else 1

    @property
    def worker(self) -> int:
        """Which of them this is."""
        return self.cluster.index if self.cluster else 0

    @property
    def chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.worker == 0

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Make variables and steps on all of them."""
        with ExitStack() as entered:
            if self.strategy is None:
                entered.enter_context(tf.device(self.devices[0]))
            else:
                entered.enter_context(self.strategy.scope())
                # The end of distributed batches is found by reaching it.
                entered.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
            if self.cluster is not None:
                entered.enter_context(mended(self.strategy))
            yield

    def run(self, work: Callable[[], Any]) -> None:
        """Do some work on each replica of this process."""
        if self.strategy is None:
            work()
        else:
            self.strategy.run(tf.function(work))

    def spread(self, make: Callable[[Share], tf.data.Dataset]) -> Any:
        """Return the batches that each replica's share of a dataset is, on its device."""
        if self.strategy is None:
            return to_device(make(Share()), self.devices[0])
        own = len(self.devices)
        shares = [Share(self.worker * own + place, self.count) for place in range(own)]

        def in_turn(_: tf.distribute.InputContext) -> tf.data.Dataset:
            """Return a batch for each of this process's replicas after the other."""
            if own == 1:
                return make(shares[0])
            order = tf.data.Dataset.range(own).repeat()
            return tf.data.Dataset.choose_from_datasets([make(one) for one in shares], order)

        return self.strategy.distribute_datasets_from_function(in_turn)

    def gather(self, told: Any) -> list[Any]:
        """Return what each worker tells, in their order; all of them must call it."""
        if self.cluster is None:
            return [told]
        text = np.frombuffer(json.dumps(told).encode(), np.uint8).astype(np.int32)
        return [json.loads(one.astype(np.uint8).tobytes()) for one in self.gather_rows(text)]

    def gather_rows(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the array of each worker, of as many rows as it has; all of them must call it."""
        if self.cluster is None:
            return [values]
        lengths = self._gathered(np.array([len(values)], np.int32)).ravel().tolist()
        added = [(0, max(lengths) - len(values)), *[(0, 0)] * (values.ndim - 1)]
        everyone = self._gathered(np.pad(values, added))
        return [rows[:length] for rows, length in zip(everyone, lengths, strict=True)]

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether a worker has it; all of them must call it."""
        if self.cluster is None:
            return list(flags)
        return np.asarray(self._gathered(np.array(flags, np.int32)).any(axis=0)).tolist()

    def _gathered(self, values: np.ndarray) -> np.ndarray:
        """Return the values of all workers, which have the same shape: one more axis, the first."""
        strategy = self.strategy or tf.distribute.get_strategy()
        found = strategy.run(_gather, args=(tf.constant(values),))
        rows = np.asarray(strategy.experimental_local_results(found)[0])
        # Each replica of a worker has told the same.
        return rows.reshape(self.workers, -1, *values.shape)[:, 0]

    @contextmanager
    def watched(self, advice: str) -> Iterator[None]:
        """Name the worker that is gone where TensorFlow says that one is.

        Raises:
            WorkerLostError: with `advice`.
        """
        try:
            yield
        except _LOST as error:
            if self.cluster is None:
                raise
            raise WorkerLostError(f"{_loss(self.cluster, str(error.message))}; {advice}") from error


def _loss(cluster: Cluster, told: str) -> str:
    """Say which workers are lost, by their ports or by an error of TensorFlow's, or what it is."""
    gone, silent = missing_workers(cluster), silent_workers(cluster, told)
    if gone or silent:
        names = " and ".join(cluster.name(index) for index in gone or silent)
        return f"{names} is {'gone' if gone else 'silent, as if frozen or cut off'}"
    # Before it come the lines of the program.
    reason = told.rpartition("is aborted by: ")[2].partition("\n")[0]
    return f"a step could not be made ({reason})"


@tf.function(reduce_retracing=True)
def _gather(values: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    return context.all_gather(tf.identity(values), axis=0)


def of_this_process(config: FitConfig) -> Replicas:
    """Return the device that the configuration names, or the several.

    Raises:
        InputError: one does not exist.
    """
    if config.devices is None:
        return Replicas((runtime.resolve_device(config.device),))
    devices = runtime.resolve_devices(config.devices)
    if len(devices) == 1:
        return Replicas(devices)
    return Replicas(devices, _mirrored(devices))


@cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """Return the one strategy of a process for these devices.

    Each strategy counts the messages between its devices from the same number, and TensorFlow
    takes those of another for its own.
    """
    return tf.distribute.MirroredStrategy([f"/{name}" for name in devices])


def joined(config: FitConfig, cluster: Cluster | None) -> Replicas:
    """Return the replicas of a training, once all its workers have come.

    The first time it must be TensorFlow's first work in a process of several.

    Raises:
        InputError: a worker did not come or has other devices, a device does not exist, or
            TensorFlow has worked before.
    """
    if cluster is None:
        return of_this_process(config)
    for name in ("device", "devices"):
        value = getattr(config, name)
        if value not in (None, "auto"):
            raise InputError(
                f"`{name}` must be left out with several workers, each of which takes all the "
                f"GPUs that it sees, or its CPU. Received: {name}={value!r}. Set "
                "CUDA_VISIBLE_DEVICES for each."
            )
    strategy = _among_workers(cluster)
    return Replicas(_local_devices(strategy), strategy, cluster)


@cache
def _among_workers(cluster: Cluster) -> tf.distribute.Strategy:
    """Return the one strategy of a process, whose addresses TensorFlow keeps to its end."""
    if LAUNCHER in os.environ:
        stop_with(int(os.environ[LAUNCHER]))
    # Before the others are told that this one has come.
    _check_first_work()
    await_workers(cluster)
    # The resolver does not look for any, and TensorFlow takes the CPU where it names none.
    gpus = len(tf.config.get_visible_devices("GPU"))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker", task_id=cluster.index, rpc_layer="grpc",
        num_accelerators={"GPU": gpus},
    )  # fmt: skip
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    _check_same_devices(cluster, _local_devices(strategy))
    return strategy


def _check_first_work() -> None:
    """Raise `InputError` where TensorFlow has worked in this process, and takes no cluster."""
    if getattr(eager.context(), "_context_handle", None) is not None:
        raise InputError(
            "`cluster` must come before any other work with TensorFlow in a process. Received: "
            "one in a process where TensorFlow has worked before, or with another cluster. Start "
            "a new process, and call this first."
        )


def _check_same_devices(cluster: Cluster, own: tuple[str, ...]) -> None:
    """Raise `InputError` on all workers unless each has as many devices, and of one kind.

    TensorFlow takes it for granted, and nothing can be gathered until it is so.
    """
    store, wait = eager.context(), int(1000 * SECONDS_TO_COME)
    with Replicas(own, cluster=cluster).watched("start all workers again"):
        store.set_config_key_value(f"devices/{cluster.index}", " and ".join(own))
        told = [store.get_config_key_value(f"devices/{index}", timeout_in_ms=wait)
                for index in range(len(cluster.workers))]  # fmt: skip
    for index, found in enumerate(told):
        if found != told[0]:
            raise InputError(
                f"`cluster` must have workers with as many GPUs each, or none. Received: "
                f"{cluster.name(index)} with {found}, {cluster.name(0)} with {told[0]}. Let "
                "CUDA_VISIBLE_DEVICES name as many for each."
            )


def _local_devices(strategy: tf.distribute.Strategy) -> tuple[str, ...]:
    local = strategy.extended.worker_devices
    return tuple(":".join(name.split(":")[-2:]) for name in local)
