import os
import signal
import threading
from types import SimpleNamespace

import pytest

from kclassify.training import interruption
from kclassify.training.interruption import SIGNALS, stop_requests


@pytest.fixture
def clock(monkeypatch):
    """Return the time that the module sees, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_a_second_one_does_not_wait(number, clock):
    before = signal.getsignal(number)
    with stop_requests() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal == number
        clock[0] += 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_sigterm_twice_within_a_second_is_one_request(clock):
    with stop_requests() as request:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            clock[0] += 0.4
        assert request.signal == signal.SIGTERM
        # Somebody who presses Ctrl-C then does not want to wait.
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_twice_does_not_wait_however_soon(clock):
    with stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_process_whose_parent_is_no_more_stops_in_order(monkeypatch):
    parents, sent = [7, 7, 1], []
    monkeypatch.setattr(interruption, "_BETWEEN", 0)
    monkeypatch.setattr(interruption.os, "getppid", lambda: parents.pop(0))
    monkeypatch.setattr(interruption.os, "kill", lambda _, number: sent.append(number))
    interruption._outlive(7)
    assert (parents, sent) == ([], [signal.SIGTERM])


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGINT)
        assert request.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_signals_alone():
    found = []

    def work():
        with stop_requests() as request:
            found.append(request.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
