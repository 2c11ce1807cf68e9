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


def test_tensorflow_starts_without_a_line():
    done = child("from kclassify import runtime; runtime.prepare(); import tensorflow")
    assert done.returncode == 0
    assert done.stderr == ""


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


def test_mixed_precision_names_the_policy_of_the_device(monkeypatch):
    assert runtime.mixed_precision_policy("GPU:0") == "mixed_float16"
    monkeypatch.setattr(runtime, "processor_flags", lambda: {"avx512_bf16"})
    assert runtime.mixed_precision_policy("CPU:0") == "mixed_bfloat16"


def test_the_environment_names_versions_and_settings():
    facts = runtime.environment()
    assert facts["packages"]["keras"].startswith("3.")
    assert facts["packages"]["kclassify"]
    assert set(facts["variables"]) == set(runtime.ENVIRONMENT)
