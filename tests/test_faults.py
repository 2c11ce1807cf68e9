"""The short form of `scripts/faults.py`, as CI runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "faults.py"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["kill signals two", "disk", "damage", "network"])
def test_a_training_ends_as_it_should_whatever_happens(what):
    command = [sys.executable, str(SCRIPT), *what.split(), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    counts = [line for line in done.stdout.splitlines() if " ended as they should" in line]
    print(*counts, sep="\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(":")[0] for line in counts] == what.split()
    if "0 of 0" in counts[0]:
        pytest.skip(counts[0])
