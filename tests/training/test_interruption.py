import os
import signal
import threading

import pytest

from kclassify.training.interruption import SIGNALS, stop_requests


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_a_second_one_does_not_wait(number):
    before = signal.getsignal(number)
    with stop_requests() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


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
