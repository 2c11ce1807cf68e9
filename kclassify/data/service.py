"""Training batches that a tf.data service makes, where one machine cannot make them fast enough."""

import socket

from kclassify import runtime
from kclassify.checks import InputError, parse_address
from kclassify.data.spec import FileImages, PackedImages, Source

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
    place = parse_address(address.removeprefix(_SCHEME))
    if place is None or not address.startswith(_SCHEME):
        raise InputError(
            f"`data_service` must be of the form grpc://host:port. Received: {address!r}."
        )
    try:
        socket.create_connection(place, timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise InputError(
            f"`data_service` must be where the dispatcher of a tf.data service answers. Received: "
            f"{address!r} ({error}). Start it, or leave `data_service` out."
        ) from error
    images = source.splits["train"].images
    if isinstance(images, PackedImages):
        _check_seen(str(images.paths[0]), address)


def _check_seen(path: str, address: str) -> None:
    """Raise `InputError` unless a worker of the service can read a file of records."""
    try:
        next(iter(served(tf.data.TFRecordDataset(path).take(1), address)))
    except tf.errors.OpError as error:
        raise InputError(
            f"`data` must lie where the workers of the `data_service` see it. Received: {path!r}, "
            f"which one could not read ({str(error.message).splitlines()[0]}). Put it on a file "
            "system that they share."
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
