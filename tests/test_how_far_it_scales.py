"""The arithmetic of scripts/scaling.py, and that the constants it reads are kept."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "scaling.py"


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules["scaling"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling"]


def test_a_ring_of_two_sends_a_vector_once_and_hops_twice(scaling):
    assert scaling.Link(hop=0.5, bandwidth=100).seconds(2, 300) == pytest.approx(2 * 0.5 + 3)
    assert scaling.Link(hop=0.5, bandwidth=100).seconds(1, 300) == 0


def test_a_step_is_compute_and_two_collectives_a_layer_and_one(scaling):
    work = scaling.Work(
        compute=0.1, normalizing=0.05, layers=3, channels=8, parameters=10, reading=0
    )
    instant = scaling.Link(hop=1.0, bandwidth=1e30)
    assert work.step(1, 10, instant) == pytest.approx(1.0)
    assert work.step(2, 10, instant) == pytest.approx(1.5 + 7 * 2)
    assert work.step(4, 10, instant, cores=2) == pytest.approx(3.0 + 7 * 6)


def test_reading_is_waited_for_where_it_takes_longer(scaling):
    work = scaling.Work(0.1, 0.0, layers=0, channels=0, parameters=0, reading=0.3)
    assert work.step(1, 10, scaling.Link(1, 1)) == pytest.approx(3.0)


def test_the_measured_constants_are_kept(scaling):
    link = scaling.Link.measured()
    assert 1e-6 < link.hop < 0.1
    assert 1e6 < link.bandwidth < 1e12
    work = scaling.work_of("convnet", 1000, 2)
    assert work.compute == pytest.approx(0.0005)
    assert work.layers == 6
    assert 0 < work.normalizing < work.compute
