"""Independent pieces of a stage's work, side by side in forked processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_tasks: Sequence[Callable[[], object]]  # what the processes take their pieces from


def each(tasks: Sequence[Callable[[], T]], jobs: int = 1) -> list[T]:
    """What every task returns, in their order; put the longest first.

    Forked processes have all that was read already, so that a task costs nothing to hand over, and what it returns is
    pickled. Where processes cannot be forked, or `jobs` is 1, the tasks run here one after the other. What a task
    raises is raised.
    """
    global _tasks
    from threadpoolctl import threadpool_limits

    jobs = min(jobs, len(tasks))
    # One thread for each process: together they have the cores, and sums depend on the number of threads.
    with threadpool_limits(1):
        if jobs < 2 or "fork" not in multiprocessing.get_all_start_methods():
            return [task() for task in tasks]
        _tasks = tasks
        try:
            with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), threadpool_limits, (1,)) as pool:
                return list(pool.map(_run, range(len(tasks))))
        finally:
            _tasks = ()  # and with them what they hold


def _run(place: int) -> object:
    return _tasks[place]()
