"""What must happen around TensorFlow's import: environment variables, seeds, devices, facts."""

import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kclassify.checks import InputError

# Read by TensorFlow while it is imported: value and reason. A value that the user has set wins.
ENVIRONMENT = {
    "KERAS_BACKEND": ("tensorflow", "the only backend that kclassify runs on"),
    "TF_ENABLE_ONEDNN_OPTS": (
        "1",
        "quicker kernels on processors with AVX2; without AVX512-VNNI or newer units they are off "
        "by default, and worth 1.2x to 1.6x",
    ),
    "TF_CPP_MIN_LOG_LEVEL": (
        "3",
        'no lines of native code; at 2 there is one of the level "error" wherever uint8 images '
        "meet oneDNN, and it is none",
    ),
}
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# With any of these TensorFlow turns oneDNN on by itself.
ONEDNN_FLAGS = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
# The compute capability from which GPUs of NVIDIA have units for float16.
TENSOR_CORES = (7, 0)
# TensorFlow reads it for the threads inside an operation; OMP_NUM_THREADS changes nothing there.
THREADS = "TF_NUM_INTRAOP_THREADS"
# The variables that `prepare` has set, not the user.
_set_here: set[str] = set()
PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "keras-tuner", "numpy", "pandas")


@cache
def prepare() -> None:
    """Set what TensorFlow reads at import, and import it. Twice is the same as once."""
    late = "tensorflow" in sys.modules
    if late and (lost := lost_by_import_order()):
        warnings.warn(lost, stacklevel=2)
    for name, value in _defaults().items():
        # Set too late it would have no effect, but be recorded as if it had.
        if name not in os.environ and not (late and name == ONEDNN):
            os.environ[name] = value
            _set_here.add(name)
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        raise InputError(
            "`KERAS_BACKEND` must be 'tensorflow'. "
            f"Received: KERAS_BACKEND={os.environ['KERAS_BACKEND']!r}. Unset it."
        )
    if not late:
        _import_quietly()
        # For whatever comes first; `fit` may be told another number.
        set_threads(None)


def _defaults() -> dict[str, str]:
    """Return the variables that are worth setting on this machine."""
    values = {name: value for name, (value, _) in ENVIRONMENT.items()}
    if "avx2" not in processor_flags():
        # Where it was not measured, such as on ARM, it is as TensorFlow has it.
        del values[ONEDNN]
    return values


def lost_by_import_order() -> str | None:
    """Return what is lost when TensorFlow was imported before kclassify, or None."""
    if ONEDNN in os.environ or ONEDNN not in _defaults() or ONEDNN_FLAGS & processor_flags():
        return None
    return (
        "TensorFlow was imported before kclassify, so oneDNN stays off, and training takes 1.2 to "
        "1.6 times as long on this processor. Import kclassify first and use one of its names, or "
        f"set {ONEDNN}=1."
    )


@dataclass(frozen=True)
class Setting:
    """One thing that was decided before training: its name, value, by whom, and why."""

    name: str
    value: str
    by: str
    reason: str


def settings() -> list[Setting]:
    """Return what `prepare` and `fit` decide on this machine."""
    return [*map(_variable, ENVIRONMENT), _threads(), _precision()]


def _variable(name: str) -> Setting:
    value, reason = ENVIRONMENT[name]
    if name in os.environ:
        by = "kclassify" if name in _set_here else "your environment"
        return Setting(name, os.environ[name], by, reason)
    if name in _defaults() and "tensorflow" not in sys.modules:
        # `prepare` is still to come.
        return Setting(name, value, "kclassify", reason)
    return Setting(name, "not set", "TensorFlow", reason)


def _threads() -> Setting:
    if THREADS in os.environ:
        reason = f"{THREADS}; `threads` chooses another number"
        return Setting("threads", os.environ[THREADS], "your environment", reason)
    reason = f"physical cores, of {logical_cores()} logical ones; `threads` chooses another number"
    return Setting("threads", str(physical_cores()), "kclassify", reason)


def _precision() -> Setting:
    units = sorted(BFLOAT16_FLAGS & processor_flags())
    reason = f"it has {', '.join(units)}" if units else "it has neither avx512_bf16 nor amx_bf16"
    policy = mixed_precision_policy("CPU", None)
    reason += "; a GPU takes mixed_float16; `mixed_precision` chooses"
    return Setting("precision on this CPU", policy, "kclassify", reason)


def physical_cores() -> int:
    """Return how many cores this process may use, hyper-threads not counted."""
    return len({_core(number) for number in _allowed()}) or logical_cores()


def logical_cores() -> int:
    """Return how many logical processors this process may use."""
    return len(_allowed()) or os.cpu_count() or 1


def concurrency() -> int:
    """Return how many files to read, or batches to make, at the same time."""
    # Of two, one can wait for the disk.
    return max(2, logical_cores())


def _allowed() -> set[int]:
    """Return the numbers of these processors; none where the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _core(number: int) -> tuple[str, str]:
    """Return the package and core of a logical processor; itself, where Linux does not say."""
    topology = Path(f"/sys/devices/system/cpu/cpu{number}/topology")
    names = ("physical_package_id", "core_id")
    try:
        package, core = ((topology / name).read_text().strip() for name in names)
    except OSError:
        return "", str(number)
    return package, core


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
    """Set how many threads one operation uses; None for as many as there are physical cores.

    A number wins over the user's TF_NUM_INTRAOP_THREADS, None does not. TensorFlow takes it once
    in a process, before its first operation; later there is a warning, except where what it then
    has is its own choice and nobody asked for another.
    """
    import tensorflow as tf

    if threads is None and THREADS in os.environ:
        return
    # 0 is TensorFlow's own choice, all the logical processors.
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    wanted, current = threads or physical_cores(), chosen or logical_cores()
    if wanted == current and (chosen or THREADS not in os.environ):
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(wanted)
    except RuntimeError:
        if threads is None and not chosen:
            return
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


def resolve_device(device: str, *, among: Sequence[str] | None = None) -> str:
    """Return TensorFlow's name of `device`: ``"auto"`` is the first GPU, or the CPU.

    Args:
        device: as in `FitConfig`.
        among: the devices that there are, such as ``["CPU:0"]``; by default what TensorFlow finds
            once it has started, and with that has taken the memory of the GPUs.
    """
    devices = among or _started_devices()
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


def resolve_devices(devices: str | int | Sequence[str]) -> tuple[str, ...]:
    """Return TensorFlow's names of several devices.

    Args:
        devices: ``"all"`` GPUs, the first so many of them, or their names.
    """
    found = _started_devices()
    gpus = [name for name in found if name.startswith("GPU")]
    if isinstance(devices, str):
        devices = devices.split(",") if devices != "all" else max(1, len(gpus))
    if not isinstance(devices, int):
        return _each_once(devices)
    if devices > max(1, len(gpus)):
        raise InputError(
            f"`devices` must be at most the number of GPUs here, {len(gpus)}. "
            f"Received: devices={devices}. TensorFlow sees {found}."
        )
    return tuple(gpus[:devices]) or ("CPU:0",)


def _each_once(devices: Sequence[str]) -> tuple[str, ...]:
    names = tuple(resolve_device(name) for name in devices)
    if len(set(names)) < len(names):
        raise InputError(
            f"`devices` must name each device once. Received: devices={list(devices)!r}, which "
            f"are {', '.join(names)}. With one device, give `device`."
        )
    return names


def _started_devices() -> list[str]:
    import tensorflow as tf

    return [found.name.removeprefix("/device:") for found in tf.config.list_logical_devices()]


def mixed_precision_policy(device: str, wanted: bool | None) -> str:
    """Return the Keras dtype policy for `device`; None takes 16 bits where they are faster."""
    if wanted is False:
        return "float32"
    if device.startswith("GPU"):
        return "mixed_float16" if wanted or _has_float16_units(device) else "float32"
    if BFLOAT16_FLAGS & processor_flags():
        return "mixed_bfloat16"
    if wanted:
        raise InputError(
            "`mixed_precision` must be False on a CPU without bfloat16 units (avx512_bf16 or "
            "amx_bf16), where it only costs time. Received: mixed_precision=True. "
            "Leave it out, or choose a GPU with `device`."
        )
    return "float32"


def _has_float16_units(device: str) -> bool:
    """Tell whether a GPU multiplies quicker in 16 bits; one that says nothing of itself does."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    number = int(device.rpartition(":")[2])
    known = tf.config.experimental.get_device_details(gpus[number]) if number < len(gpus) else {}
    return known.get("compute_capability", TENSOR_CORES) >= TENSOR_CORES


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
