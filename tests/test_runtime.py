import subprocess
import sys

import pytest

from kclassify import runtime
from kclassify.checks import InputError


def child(code, **env):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}
    )


def test_a_users_own_variables_win():
    code = "from kclassify import runtime; runtime.prepare(); import os; print(os.environ[%r])"
    name = "TF_ENABLE_ONEDNN_OPTS"
    assert child(code % name, **{name: "0"}).stdout.strip() == "0"


def test_another_backend_is_refused():
    done = child("from kclassify import runtime; runtime.prepare()", KERAS_BACKEND="jax")
    assert "`KERAS_BACKEND` must be 'tensorflow'" in done.stderr


def test_what_is_held_back_is_shown_when_the_start_fails(capfd):
    import os

    def fail():
        with runtime._standard_error_held_back():
            os.write(2, b"the reason")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "the reason" in capfd.readouterr().err


def test_a_device_that_is_not_there_lists_those_that_are():
    with pytest.raises(InputError, match=r"'CPU:0'"):
        runtime.resolve_device("gpu:3")
    assert runtime.resolve_device("cpu") == "CPU:0"


@pytest.mark.parametrize(
    ("devices", "there", "expected"),
    [
        ("all", ["CPU:0"], ("CPU:0",)),
        ("all", ["CPU:0", "GPU:0", "GPU:1"], ("GPU:0", "GPU:1")),
        (1, ["CPU:0", "GPU:0", "GPU:1"], ("GPU:0",)),
        ("gpu:1,gpu:0", ["CPU:0", "GPU:0", "GPU:1"], ("GPU:1", "GPU:0")),
        (("cpu:0", "cpu:1"), ["CPU:0", "CPU:1"], ("CPU:0", "CPU:1")),
    ],
)
def test_several_devices_are_all_so_many_or_named(monkeypatch, devices, there, expected):
    monkeypatch.setattr(runtime, "_started_devices", lambda: there)
    assert runtime.resolve_devices(devices) == expected


def test_more_gpus_than_there_are_and_names_that_are_none_are_refused(monkeypatch):
    monkeypatch.setattr(runtime, "_started_devices", lambda: ["CPU:0", "GPU:0"])
    with pytest.raises(InputError, match="at most the number of GPUs here, 1"):
        runtime.resolve_devices(2)
    with pytest.raises(InputError, match=r"'GPU:0'.*device='gpu:7'"):
        runtime.resolve_devices("gpu:0,gpu:7")
    for twice in ("gpu:0,gpu:0", ("gpu", "gpu:0")):
        with pytest.raises(InputError, match=r"name each device once.*are GPU:0, GPU:0"):
            runtime.resolve_devices(twice)


def test_threads_are_set_before_the_first_operation_and_not_after():
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from kclassify import runtime; runtime.prepare(); import tensorflow as tf\n"
        "runtime.set_threads(1); tf.zeros(1); runtime.set_threads(1)\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads())\n"
        "runtime.set_threads(2)"
    )
    done = child(code)
    assert done.stdout.strip() == "1"
    assert "threads=2, which has no effect here" in done.stderr


def test_a_number_of_threads_wins_over_the_environment(monkeypatch):
    import tensorflow as tf

    asked = []
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 0)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", asked.append)
    runtime.set_threads(runtime.logical_cores())
    assert asked == [runtime.logical_cores()]


@pytest.fixture
def started(monkeypatch):
    """Return a function that makes TensorFlow one that has started with so many threads."""
    import tensorflow as tf

    threading = tf.config.threading

    def refuse(threads):
        raise RuntimeError

    def start(chosen):
        monkeypatch.setattr(threading, "get_intra_op_parallelism_threads", lambda: chosen)
        monkeypatch.setattr(threading, "set_intra_op_parallelism_threads", refuse)

    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(runtime, "logical_cores", lambda: 4)
    monkeypatch.setattr(runtime, "physical_cores", lambda: 2)
    return start


def test_tensorflows_own_number_of_threads_is_no_reason_for_a_warning(started):
    started(0)
    runtime.set_threads(None)


@pytest.mark.parametrize(("chosen", "threads"), [(1, None), (0, 3)])
def test_threads_that_come_too_late_are_warned_of(started, chosen, threads):
    started(chosen)
    with pytest.warns(UserWarning, match=f"threads={threads}, which has no effect here"):
        runtime.set_threads(threads)


def test_mixed_precision_names_the_policy_of_the_device(monkeypatch):
    assert runtime.mixed_precision_policy("GPU:0", None) == "mixed_float16"
    assert runtime.mixed_precision_policy("GPU:0", False) == "float32"
    monkeypatch.setattr(runtime, "processor_flags", lambda: {"avx512_bf16"})
    assert runtime.mixed_precision_policy("CPU:0", None) == "mixed_bfloat16"
    monkeypatch.setattr(runtime, "processor_flags", lambda: {"avx2"})
    assert runtime.mixed_precision_policy("CPU:0", None) == "float32"
    with pytest.raises(InputError, match="`mixed_precision` must be False"):
        runtime.mixed_precision_policy("CPU:0", True)


@pytest.mark.parametrize(("capability", "policy"), [((6, 1), "float32"), ((8, 0), "mixed_float16")])
def test_a_gpu_without_float16_units_trains_in_float32(monkeypatch, capability, policy):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["one", "other"])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details",
        lambda gpu: {"compute_capability": capability if gpu == "other" else (9, 0)},
    )  # fmt: skip
    assert runtime.mixed_precision_policy("GPU:1", None) == policy
    assert runtime.mixed_precision_policy("GPU:1", True) == "mixed_float16"


def test_threads_are_the_physical_cores():
    code = (
        "from kclassify import runtime; runtime.physical_cores = lambda: 1; runtime.prepare()\n"
        "import tensorflow as tf\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads())"
    )
    done = child(code)
    assert done.stdout.strip() == "1"
    # TensorFlow starts without a line of its own.
    assert done.stderr == ""
    assert child(code, TF_NUM_INTRAOP_THREADS="2").stdout.strip() == "0"


def test_hyper_threads_share_a_core(monkeypatch):
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(runtime, "_core", lambda number: ("0", str(number % 2)))
    assert runtime.physical_cores() == 2
    assert runtime.logical_cores() == 4


def test_a_system_that_does_not_say_has_what_python_counts(monkeypatch):
    monkeypatch.delattr(runtime.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(runtime.os, "cpu_count", lambda: 6)
    assert runtime.physical_cores() == runtime.logical_cores() == 6


@pytest.mark.parametrize(
    ("flags", "environment", "lost"),
    [
        ({"avx2"}, {}, True),
        ({"avx2"}, {"TF_ENABLE_ONEDNN_OPTS": "0"}, False),
        ({"avx2", "avx512_vnni"}, {}, False),
        (set(), {}, False),
    ],
)
def test_what_importing_tensorflow_first_loses(monkeypatch, flags, environment, lost):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runtime, "processor_flags", lambda: flags)
    assert bool(runtime.lost_by_import_order()) == lost


def test_importing_tensorflow_first_is_warned_of_where_it_costs():
    code = (
        "import os; os.environ.pop('TF_ENABLE_ONEDNN_OPTS', None); import tensorflow\n"
        "from kclassify import runtime; runtime.processor_flags = lambda: {'avx2'}\n"
        "runtime.prepare(); runtime.prepare()\n"
        "print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'), runtime.settings()[1].by)"
    )
    done = child(code, TF_CPP_MIN_LOG_LEVEL="3")
    assert done.stderr.count("oneDNN stays off") == 1
    assert done.stdout.strip() == "None TensorFlow"


def test_a_warning_comes_where_tensorflow_has_onednn_off_and_nowhere_else():
    code = (
        "import os; os.environ.pop('TF_ENABLE_ONEDNN_OPTS', None)\n"
        "from tensorflow.python.util import _pywrap_util_port as port\n"
        "from kclassify import runtime\n"
        "print('avx2' in runtime.processor_flags() and not port.IsMklEnabled())\n"
        "print(runtime.lost_by_import_order() is not None)"
    )
    off, warned = child(code, TF_CPP_MIN_LOG_LEVEL="3").stdout.split()
    assert off == warned


def test_each_setting_says_by_whom_and_why(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(runtime, "_set_here", set())
    found = {setting.name: setting for setting in runtime.settings()}
    assert found["TF_CPP_MIN_LOG_LEVEL"].by == "your environment"
    assert found["TF_CPP_MIN_LOG_LEVEL"].value == "0"
    assert found["threads"].by == "kclassify"
    assert found["threads"].value == str(runtime.physical_cores())
    assert all(setting.reason for setting in found.values())


def test_threads_of_the_users_environment_are_said(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    found = {setting.name: setting for setting in runtime.settings()}["threads"]
    assert (found.value, found.by) == ("3", "your environment")
    assert "TF_NUM_INTRAOP_THREADS" in found.reason


@pytest.mark.parametrize(
    ("flags", "policy", "reason"),
    [
        ({"avx512_bf16", "amx_bf16"}, "mixed_bfloat16", "it has amx_bf16, avx512_bf16"),
        ({"avx2"}, "float32", "neither avx512_bf16 nor amx_bf16"),
    ],
)
def test_the_precision_says_which_units_there_are(monkeypatch, flags, policy, reason):
    monkeypatch.setattr(runtime, "processor_flags", lambda: flags)
    found = runtime.settings()[-1]
    assert found.value == policy
    assert reason in found.reason


def test_onednn_is_left_to_tensorflow_without_avx2(monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(runtime, "processor_flags", set)
    found = {setting.name: setting for setting in runtime.settings()}["TF_ENABLE_ONEDNN_OPTS"]
    assert (found.value, found.by) == ("not set", "TensorFlow")


def test_the_environment_names_versions_and_settings():
    facts = runtime.environment()
    assert facts["packages"]["keras"].startswith("3.")
    assert facts["packages"]["kclassify"]
    assert set(facts["variables"]) == set(runtime.ENVIRONMENT)
