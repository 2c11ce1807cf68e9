"""Training batches that a tf.data service makes, where one machine cannot make them fast enough."""

import socket

from kclassify import runtime
from kclassify.checks import InputError
from kclassify.data.spec import FileImages, Source

runtime.prepare()

import tensorflow as tf  # noqa: E402

_SCHEME = "grpc://"
_SECONDS_TO_ANSWER = 5.0


def check_service(address: str, source: Source) -> None:
    """Raise `InputError` unless a service answers there that can make batches of these images."""
    if isinstance(source.splits["train"].images, FileImages):
        raise InputError(
            f"`data` must be packed, or fit `memory_budget`, with a `data_service`. Received: "
            f"images in {len(source.splits['train']):,} files with data_service={address!r}. Run "
            "`kclassify pack` first, and put the folder where the service's workers see it."
        )
    host, _, port = address.removeprefix(_SCHEME).rpartition(":")
    if not (address.startswith(_SCHEME) and host and port.isdecimal()):
        raise InputError(
            f"`data_service` must be of the form grpc://host:port. Received: {address!r}."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"`data_service` must be where the dispatcher of a tf.data service answers. Received: "
            f"{address!r} ({error}). Start it, or leave `data_service` out."
        ) from error


def served(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """Return the elements of `dataset`, each made by one of the service's workers.

    One worker keeps their order; several give each element once, as it is ready.

    Args:
        dataset: of whole batches; what it reads, the workers must see.
        address: of the dispatcher.

    Returns:
        The elements; how many, the dataset does not know.
    """
    return dataset.apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, service=address
        )
    )
