"""Fixtures of the compression tests."""

import pytest


@pytest.fixture(scope="module")
def no_measuring():
    """Leave out the process that measures speed: seconds each time, and tested on its own."""
    rows = [{"p50_ms": 1.0, "p95_ms": 2.0, "images_per_second": 100.0}] * 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kclassify.compression.measuring.measure_in_child", lambda *_: {"rows": rows})
        yield
