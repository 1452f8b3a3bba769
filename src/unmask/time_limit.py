"""A limit on the time that one cell may take, so that a plug-in that hangs costs itself alone."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float, key: str) -> Iterator[None]:
    """Raise `TimeoutError` in a block that runs longer; `key` is the config's key that sets the limit.

    Works by an alarm, which only Python code of the main thread notices: elsewhere there is no limit, and a call into C
    is interrupted when it returns. Inside another limit, the one that ends first counts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started, around = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)[0]
    if 0 < around <= seconds:
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
        if around:
            signal.setitimer(signal.ITIMER_REAL, max(around - (time.monotonic() - started), 1e-6))
