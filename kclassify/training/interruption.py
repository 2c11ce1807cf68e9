"""Ctrl-C and a scheduler's SIGTERM, taken note of, so that the step in work can be finished."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kclassify.checks import printable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A service manager sends SIGTERM to every process, and `launch` to its workers once more: within
# so many seconds it is the same request.
SECONDS_OF_ONE_STOP = 1.0
_BETWEEN = 0.5


class Interrupted(BaseException):
    """Somebody asked to stop, by a signal; all is saved.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def giving_way(advice: str) -> Iterator[None]:
    """End an interrupted work as its signal asks for, and say how to go on.

    Raises:
        KeyboardInterrupt: with `advice`, after Ctrl-C.
        SystemExit: with 143, after SIGTERM.
    """
    try:
        yield
    except Interrupted as stop:
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt(f"; {advice}") from None
        print(printable(f"kclassify: {stop.signal.name}; {advice}"), file=sys.stderr)
        raise SystemExit(128 + stop.signal) from None


class StopRequest:
    """Whether somebody has asked to stop, and by which signal.

    Args:
        end: when it is time to stop anyway, by `time.perf_counter`.
    """

    def __init__(self, end: float = math.inf) -> None:
        self.signal: signal.Signals | None = None
        self.end = end
        self._noted = -math.inf

    @property
    def asked(self) -> bool:
        """Whether to stop, by a signal or because it is time."""
        return self.signal is not None or time.perf_counter() >= self.end

    def note(self, number: int, _: Any = None) -> None:
        """Take note; a second time does not wait for the end of the step."""
        soon = time.monotonic() < self._noted + SECONDS_OF_ONE_STOP
        if soon and self.signal == number == signal.SIGTERM:
            return
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal, self._noted = signal.Signals(number), time.monotonic()


@contextmanager
def stop_requests(end: float = math.inf) -> Iterator[StopRequest]:
    """Yield a `StopRequest` that the signals come to; after that they do what they did before.

    A signal that is ignored, as in a shell's background jobs, stays ignored. Python gives signals
    to the main thread alone, so elsewhere nothing changes.
    """
    request = StopRequest(end)
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, request.note)
    try:
        yield request
    finally:
        for number in heard:
            signal.signal(number, before[number])


def stop_with(parent: int) -> None:
    """Stop this process in order, by SIGTERM, when its parent is no more, whatever ended that."""
    threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_BETWEEN)
    os.kill(os.getpid(), signal.SIGTERM)
