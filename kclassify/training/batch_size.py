"""The batch size that is trained with: given, of the preset, or what the memory allows."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kclassify import runtime
from kclassify.checks import InputError, OutOfMemoryError
from kclassify.config import FitConfig, resolve
from kclassify.data.spec import Source

runtime.prepare()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from kclassify.scaling import (  # noqa: E402
    SMALLEST_BATCH,
    for_few_images,
    scaled_to,
    showing_all,
    without_auto,
)
from kclassify.training.learned import skipping_where_it_can  # noqa: E402
from kclassify.training.replicas import of_this_process  # noqa: E402
from kclassify.training.session import Session, build_session  # noqa: E402
from kclassify.training.time_budget import measure_pace  # noqa: E402

# An epoch of fewer steps learns little, whatever memory there is.
FEWEST_STEPS = 50
# The gradients need as much again as the activations, and something else may need some too.
SHARE_OF_MEMORY = 1 / 4
# As a container sees its own: the folder, the limit and what is used, of version 2 and 1.
CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def before_loading(preset: str, options: Mapping[str, Any]) -> FitConfig:
    """Return the configuration by which the data is loaded, with the batch size still open."""
    # One image is a batch that no data is too small for.
    config = resolve(preset, {"batch_size": 1, **without_auto(options)})
    return skipping_where_it_can(config, given=options)


def after_loading(preset: str, options: Mapping[str, Any], source: Source) -> FitConfig:
    """Return the configuration to train with, its batch size chosen where it was not given.

    Args:
        preset: the name of one.
        options: what the user gave; ``batch_size="auto"`` takes the largest that memory allows,
            see `largest_batch`.
        source: the data, prepared.
    """
    given, images = without_auto(options), len(source.splits["train"])
    settings = skipping_where_it_can(resolve(preset, given), source, given=given)
    if options.get("batch_size") == "auto":
        settings = showing_all(settings, images, given=given)
        return largest_batch(source, settings, given=given)
    return for_few_images(settings, images, given=given)


def activation_bytes(model: keras.Model) -> int:
    """Return the bytes that the layers' outputs for one image take in float32.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        >>> activation_bytes(model)  # 6 x 6 x 4 numbers of 4 bytes
        576
    """
    return sum(_output_bytes(layer) for layer in model.layers)


def _output_bytes(layer: keras.Layer) -> int:
    if isinstance(layer, keras.Model):
        return activation_bytes(layer)
    if isinstance(layer, keras.layers.InputLayer):
        return 0
    return 4 * math.prod(layer.output.shape[1:])


def bytes_per_image(session: Session) -> int:
    """Return the bytes that the activations of one image take in the session's dtype."""
    return activation_bytes(session.network) // (1 if session.policy == "float32" else 2)


def available_memory() -> int | None:
    """Return the bytes that this process can still get, where Linux says so."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    found += [left for group in CONTROL_GROUPS if (left := _left_to(*map(Path, group))) is not None]
    return min(found, default=None)


def _left_to(folder: Path, limit: Path, used: Path) -> int | None:
    """Return the bytes that a control group, such as a container's, has left; None without one."""
    try:
        most, now = ((folder / name).read_text().strip() for name in (limit, used))
        kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    # Files that were read are given up for others.
    cache = kept.get("total_inactive_file", kept.get("inactive_file", "0"))
    return None if most == "max" else max(0, int(most) - int(now) + int(cache))


def check_batch_fits(session: Session) -> None:
    """Raise `InputError` for a batch whose activations alone are more than the memory.

    Memory of accelerators is not looked at: there TensorFlow says so itself.
    """
    available, batch_size = available_memory(), session.config.batch_size
    # Of several workers each has its share of the batch; those of one machine share its memory.
    cluster = session.replicas.cluster
    machines = len(cluster.workers) / cluster.neighbours if cluster else 1
    one = bytes_per_image(session) / machines
    if available is None or session.device != "CPU:0" or one * batch_size <= available:
        return
    raise InputError(
        f"`batch_size` must be at most {int(available / one):,} for this network and the "
        f"{available / 2**30:.1f} GB of memory that are free. Received: batch_size={batch_size}. "
        'Lower it, or take "auto".'
    )


def out_of_memory(session: Session, error: tf.errors.ResourceExhaustedError) -> OutOfMemoryError:
    """Return what to say where a step has run out of its device's memory."""
    size, reason = session.config.batch_size, str(error.message).partition("\n")[0]
    return OutOfMemoryError(
        f"`batch_size` must be one whose step {session.device} has memory for. Received: "
        f"batch_size={size}, and TensorFlow says: {reason}. Take {max(1, size // 2)} or "
        '"auto", or smaller images.'
    )


def largest_batch(source: Source, config: FitConfig, *, given: Collection[str]) -> FitConfig:
    """Return `config` with the largest batch size that memory allows, and its rate scaled to it.

    It is a power of two for each device and leaves at least 50 steps an epoch, but is 8 where
    there are too few images for that. A step is tried, and halved while it runs out of memory.

    Raises:
        OutOfMemoryError: not even an image for each device can be learned from.
    """
    session = build_session(source, config.replace(devices=None))
    count = of_this_process(config).count
    one, available = bytes_per_image(session), available_memory() or 2**32
    images = len(source.splits["train"])
    enough = max(images // FEWEST_STEPS, min(SMALLEST_BATCH, images))
    most = min(enough, SHARE_OF_MEMORY * available / one)
    batch_size = count * 2 ** int(math.log2(max(1, most / count)))
    while True:
        scaled = scaled_to(config, batch_size, given=given)
        session = build_session(source, scaled)
        try:
            measure_pace(session, source, seconds=0)
        except tf.errors.ResourceExhaustedError as error:
            if batch_size == count:
                raise out_of_memory(session, error) from error
            batch_size //= 2
        else:
            return scaled
