"""What must happen around TensorFlow's import: environment variables, seeds, devices, facts."""

import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kclassify.checks import InputError

# Read by TensorFlow while it is imported. A value that the user has set wins.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    # Off by default on processors without AVX-512, where it is worth 1.2x to 1.6x.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # At 2 there is a line of the level "error" wherever uint8 images meet oneDNN, and it is none.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "keras-tuner", "numpy", "pandas")


def prepare() -> None:
    """Set what TensorFlow reads at import, and import it. Twice is the same as once."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        raise InputError(
            "`KERAS_BACKEND` must be 'tensorflow'. "
            f"Received: KERAS_BACKEND={os.environ['KERAS_BACKEND']!r}. Unset it."
        )
    if "tensorflow" not in sys.modules:
        _import_quietly()


def _import_quietly() -> None:
    """Import TensorFlow and look for devices, without the lines that it prints on every machine.

    They come from native code before TF_CPP_MIN_LOG_LEVEL is heeded.
    """
    with _standard_error_held_back():
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextmanager
def _standard_error_held_back() -> Iterator[None]:
    """Hold back what is written to standard error, by native code too; show it on an error."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


def set_threads(threads: int | None) -> None:
    """Set how many threads one operation uses; None for as many as there are cores.

    TensorFlow takes it once in a process, before its first operation; later there is a warning.
    """
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() == (threads or 0):
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads or 0)
    except RuntimeError:
        warnings.warn(
            f"`threads` must be set before TensorFlow's first operation in a process. Received: "
            f"threads={threads}, which has no effect here; results are the same, at another "
            "speed. Start a new process.",
            stacklevel=3,
        )


def seed_everything(seed: int, *, deterministic: bool) -> None:
    """Seed Python, NumPy, TensorFlow and Keras; with `deterministic`, use repeatable kernels."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def resolve_device(device: str) -> str:
    """Return TensorFlow's name of `device`: ``"auto"`` is the first GPU, or the CPU."""
    import tensorflow as tf

    devices = [name.name.removeprefix("/device:") for name in tf.config.list_logical_devices()]
    gpus = [name for name in devices if name.startswith("GPU")]
    if device == "auto":
        return gpus[0] if gpus else "CPU:0"
    name = device.upper() if ":" in device else f"{device.upper()}:0"
    if name not in devices:
        raise InputError(
            f"`device` must be 'auto' or one that TensorFlow sees here, {devices}. "
            f"Received: device={device!r}. Leave it out for {(gpus or devices)[0]}."
        )
    return name


def mixed_precision_policy(device: str, wanted: bool | None) -> str:
    """Return the Keras dtype policy for `device`; None takes 16 bits where they are faster."""
    if wanted is False:
        return "float32"
    if device.startswith("GPU"):
        return "mixed_float16"
    if {"avx512_bf16", "amx_bf16"} & processor_flags():
        return "mixed_bfloat16"
    if wanted:
        raise InputError(
            "`mixed_precision` must be False on a CPU without bfloat16 units (avx512_bf16 or "
            "amx_bf16), where it only costs time. Received: mixed_precision=True. "
            "Leave it out, or choose a GPU with `device`."
        )
    return "float32"


def processor_flags() -> set[str]:
    """Return the instruction sets of this processor, as Linux names them."""
    return set(_cpuinfo("flags").split())


def environment() -> dict[str, Any]:
    """Return what a result depends on besides the configuration: versions, machine, settings."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _cpuinfo("model name") or platform.processor(),
        "cpu_count": os.cpu_count(),
        "packages": {name: _version(name) for name in ("kclassify", *PACKAGES)},
        "variables": {name: os.environ.get(name) for name in sorted(ENVIRONMENT)},
    }


@cache
def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
