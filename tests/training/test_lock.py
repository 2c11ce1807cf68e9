import subprocess
import sys

import pytest

from kclassify.checks import InputError
from kclassify.runs import Run
from kclassify.training.lock import sole_writer
from kclassify.training.place import taken_place

HOLD = """
import sys, time
from kclassify.runs import Run
from kclassify.training.lock import sole_writer
from pathlib import Path
with sole_writer(Run(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_with_the_firsts_name(tmp_path, other):
    with (
        pytest.raises(InputError, match=rf"process {other.pid} on .* \(since 20\d\d-") as error,
        sole_writer(Run(tmp_path)),
    ):
        pass
    assert "choose another run_dir" in str(error.value)


def test_the_lock_of_a_process_that_was_killed_is_recognised(tmp_path, other):
    other.kill()
    other.wait()
    with sole_writer(Run(tmp_path)) as before:
        assert f"process {other.pid}" in before
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with sole_writer(Run(tmp_path)) as before:
            assert before is None


def test_of_two_that_found_no_folder_the_second_is_refused(tmp_path):
    path = tmp_path / "run"
    with taken_place(path, again="", began=0.0, verbose=False) as place:
        path.mkdir()
        with sole_writer(Run(path)), pytest.raises(InputError, match="process "):
            place.begin({}, None)
