"""The files of a packed set: records of `tf.train.Example`, and what TFDS reads them by."""

import json
import math
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kclassify import runtime
from kclassify.atomic import file_hash, replacing
from kclassify.data.packed import Shard, shard_name
from kclassify.data.preparation import decoded_files
from kclassify.data.spec import SPLITS, Examples, FileImages, Source

runtime.prepare()

import tensorflow as tf  # noqa: E402

SHARD_BYTES = 16 * 2**20
# Of a record besides its pixels, about: label, id, names and checksums.
OVERHEAD = 100
# Before a record's bytes stand its length and the checksum of that; after it, its own checksum.
HEAD, TAIL = 12, 4
# Shards that are written at a time, while the next is decoded.
WRITERS = 2
# Of what stands before the split in a file's name.
LONGEST_NAME = 64
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclass(frozen=True, eq=False)
class Part:
    """What a shard is made of.

    Attributes:
        path: where it goes.
        examples: of its split.
        indices: of those that it takes, in its order.
    """

    path: Path
    examples: Examples
    indices: np.ndarray

    @property
    def facts_file(self) -> Path:
        """What is known of the shard, which is whole once this is there."""
        return self.path.with_name(f"{self.path.name}.json")


@dataclass(frozen=True)
class Written:
    """A shard that is there, and where in it each image's bytes begin."""

    shard: Shard
    offsets: list[int]


def shards_of(folder: Path, source: Source, split: str, order: np.ndarray) -> list[Part]:
    """Return how the images of a split, in that order, are cut into files of equal length."""
    each = max(1, SHARD_BYTES // (math.prod(source.input_shape) + OVERHEAD))
    count = max(1, math.ceil(len(order) / each))
    examples, name = source.splits[split], tfds_name(source.name)
    return [
        Part(folder / shard_name(name, split, index, count), examples, indices)
        for index, indices in enumerate(np.array_split(order, count))
    ]


def write_shards(plan: Mapping[str, list[Part]], *, verbose: bool) -> dict[str, list[Written]]:
    """Write the shards that are not there yet, some while the next are decoded.

    Raises:
        InputError: an image cannot be decoded.
        StorageError: the disk is full.
    """
    parts = [part for split in plan.values() for part in split]
    total = sum(len(part.indices) for part in parts)
    pool = ThreadPoolExecutor(WRITERS)
    bar = tqdm(total=total, desc="packing", unit="image", delay=1.5, disable=not verbose)
    try:
        found = _write_missing(parts, pool, bar)
    finally:
        # On an error or Ctrl-C, what has not begun is not begun.
        pool.shutdown(cancel_futures=True)
        bar.close()
    return {split: [found[part] for part in own] for split, own in plan.items()}


def _write_missing(parts: list[Part], pool: ThreadPoolExecutor, bar: tqdm) -> dict[Part, Written]:
    there = zip(parts, pool.map(_there, parts), strict=True)
    found = {part: written for part, written in there if written is not None}
    bar.update(sum(len(part.indices) for part in found))
    waiting: deque[tuple[Part, Future[Written]]] = deque()

    def take_oldest() -> None:
        part, written = waiting.popleft()
        found[part] = written.result()
        bar.update(len(part.indices))

    missing = [part for part in parts if part not in found]
    for part, images in zip(missing, _pixels(missing), strict=True):
        waiting.append((part, pool.submit(_write, part, images)))
        # So many are in memory at once, and no more.
        if len(waiting) == WRITERS:
            take_oldest()
    while waiting:
        take_oldest()
    return found


def _pixels(parts: list[Part]) -> Iterator[np.ndarray]:
    """Yield the uint8 images of one part after another."""
    images = [part.examples.images for part in parts]
    files = [one.take(part.indices) for part, one in zip(parts, images, strict=True)
             if isinstance(one, FileImages)]  # fmt: skip
    if not files:
        yield from (np.asarray(part.examples.take(part.indices).images) for part in parts)
        return
    # One stream through all the files: to set one up takes as long as to decode thousands.
    everything = replace(files[0], paths=np.concatenate([one.paths for one in files]))
    decoded = decoded_files(everything)
    for part in parts:
        yield np.stack(list(islice(decoded, len(part.indices))))


def write_metadata(folder: Path, source: Source, shards: Mapping[str, list[Shard]]) -> None:
    """Write the files by which `tfds.builder_from_directory` reads the set."""
    import tensorflow_datasets as tfds

    name = tfds_name(source.name)
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.images for shard in shards[split]],
            num_bytes=sum(shard.bytes for shard in shards[split]),
            filename_template=tfds.core.ShardedFileTemplate(
                dataset_name=name, split=split, data_dir=folder, filetype_suffix="tfrecord",
                template=TEMPLATE,
            ),
        )
        for split in SPLITS
    ]  # fmt: skip
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=_features(source), split_infos=splits, filename_template=TEMPLATE
    )


def tfds_name(name: str) -> str:
    """Return the name as one that TFDS takes: small letters, digits and underscores."""
    plain = re.sub("[^a-z0-9]+", "_", name.lower())[:LONGEST_NAME]
    return plain if re.match("[a-z]", plain) else f"set_{plain}"


def _features(source: Source) -> Any:
    import tensorflow_datasets as tfds

    features = tfds.features
    soft = features.Tensor(shape=(source.num_classes,), dtype=np.float32)
    return features.FeaturesDict(
        {
            "image": features.Tensor(shape=source.input_shape, dtype=np.uint8, encoding="bytes"),
            "label": soft
            if source.splits["train"].soft
            else features.ClassLabel(names=list(source.class_names)),
            "id": features.Text(),
        }
    )


def _write(part: Part, images: np.ndarray) -> Written:
    with replacing(part.path) as beside:
        offsets = _write_records(beside, part, images)
    size, count = os.path.getsize(part.path), len(part.indices)
    written = Written(Shard(part.path.name, count, size, file_hash(part.path)), offsets)
    with replacing(part.facts_file) as beside:
        beside.write_text(json.dumps(asdict(written)), "utf-8")
    return written


def _there(part: Part) -> Written | None:
    """Return a shard that was written before, if it is still what was written."""
    try:
        facts = json.loads(part.facts_file.read_text("utf-8"))
        written = Written(Shard(**facts["shard"]), facts["offsets"])
        whole = len(written.offsets) == len(part.indices)
        return written if whole and file_hash(part.path) == written.shard.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_records(path: Path, part: Part, images: np.ndarray) -> list[int]:
    """Write images with their labels and ids; return where in the file each image begins."""
    labels, ids = (values[part.indices] for values in (part.examples.labels, part.examples.ids))
    offsets, position = [], 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label, name in zip(images, labels, ids.tolist(), strict=True):
            pixels = image.tobytes()
            record = _record(pixels, label, name)
            writer.write(record)
            offsets.append(position + HEAD + record.index(pixels))
            position += HEAD + len(record) + TAIL
    return offsets


def _record(pixels: bytes, label: np.ndarray, name: str) -> bytes:
    feature, soft = tf.train.Feature, np.ndim(label) == 1
    values = {
        "image": feature(bytes_list=tf.train.BytesList(value=[pixels])),
        "label": feature(float_list=tf.train.FloatList(value=label))
        if soft
        else feature(int64_list=tf.train.Int64List(value=[int(label)])),
        # File names need not be text.
        "id": feature(bytes_list=tf.train.BytesList(value=[os.fsencode(name)])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=values))
    # In a fixed order, so that the same images make the same bytes.
    return example.SerializeToString(deterministic=True)
