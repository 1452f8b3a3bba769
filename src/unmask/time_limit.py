"""A limit on the time that one cell may take, so that a plug-in that hangs costs itself alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float, key: str) -> Iterator[None]:
    """Raise `TimeoutError` in a block that runs longer; `key` is the config's key that sets the limit.

    Works by an alarm, which only Python code of the main thread notices: elsewhere there is no limit, and a call into C
    is interrupted when it returns.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number, frame):
        raise TimeoutError(f"took longer than {seconds:g} s ({key})")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
