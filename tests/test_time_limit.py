"""The limit ends what runs longer, and leaves no trace of itself."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from unmask.time_limit import time_limit


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_takes_longer_is_ended_and_named():
    start = time.monotonic()
    words = r"^took longer than 0.05 s \(explain\.time_limit\)$"
    with pytest.raises(TimeoutError, match=words), time_limit(0.05, "explain.time_limit"):
        time.sleep(5)
    assert time.monotonic() - start < 1


def test_no_alarm_is_left_after_what_is_done_in_time():
    with time_limit(0.05, "key"):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    time.sleep(0.1)  # a late alarm would raise here


def test_an_error_inside_gets_out():
    with pytest.raises(RuntimeError, match="of its own"), time_limit(0.05, "key"):
        raise RuntimeError("of its own")
    time.sleep(0.1)


@pytest.mark.parametrize(("outer", "inner", "late"), [(0.05, 5, "outer"), (5, 0.05, "inner")])
def test_of_two_limits_the_one_that_ends_first_counts(outer, inner, late):
    with pytest.raises(TimeoutError, match=late), time_limit(outer, "outer"), time_limit(inner, "inner"):
        time.sleep(10)


def test_a_limit_goes_on_after_another_inside_it():
    def work():
        with pytest.raises(TimeoutError, match="inner"), time_limit(0.05, "inner"):
            time.sleep(10)
        time.sleep(10)

    with pytest.raises(TimeoutError, match="outer"), time_limit(0.2, "outer"):
        work()


def test_in_another_thread_there_is_no_limit():
    done = []

    def work():
        with time_limit(0.02, "key"):
            time.sleep(0.1)
            done.append(signal.getitimer(signal.ITIMER_REAL))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [(0, 0)]
