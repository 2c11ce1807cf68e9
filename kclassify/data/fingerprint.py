"""The identity of the data: a training that goes on must go on with the same images."""

import hashlib
import json
import os

import numpy as np

from kclassify.data.spec import FileImages, PackedImages, Source


def fingerprint(source: Source) -> str:
    """Return the SHA-256 of a prepared source: its classes, and each split in its order.

    Images in memory count with every pixel. Files that are decoded as they are used count with
    their ids and sizes in bytes, since reading them all would take as long as an epoch; packed
    images with the hashes of their files, which hold the ids too.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(source.class_names).encode())
    for split, examples in source.splits.items():
        digest.update(f"{split} {len(examples)}".encode())
        if isinstance(examples.images, PackedImages):
            digest.update(json.dumps(examples.images.hashes).encode())
            _update(digest, examples.labels)
            continue
        digest.update(json.dumps(examples.ids.tolist()).encode())
        _update(digest, examples.labels)
        if isinstance(examples.images, FileImages):
            sizes = [os.path.getsize(path) for path in examples.images.paths]
            digest.update(json.dumps([examples.images.input_shape, sizes]).encode())
        else:
            _update(digest, examples.images)
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", values: np.ndarray) -> None:
    digest.update(f"{values.dtype}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
