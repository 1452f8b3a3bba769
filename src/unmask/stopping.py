"""Stopping in good order: a signal asks for it, the training finishes its step, keeps its state and ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # of schedulers that take a machine back, and of Ctrl-C


class Asked:
    """`signal` is the one that came, None so far."""

    signal: signal.Signals | None = None


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Note SIGTERM and SIGINT inside the block in place of dying of them; the second one is acted on as ever.

    One that this process was started to ignore, as shells start what runs in the background, stays ignored. Signals
    reach a process's main thread only: in another one nothing is noted.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: object) -> None:
        asked.signal = signal.Signals(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        restore()
