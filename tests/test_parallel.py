"""Pieces of work side by side."""

import os
from functools import partial

import numpy as np
import pytest

from unmask.errors import UserError
from unmask.parallel import each


def piece(number, read):
    return number, os.getpid(), read[number]


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_results_come_in_the_order_of_the_tasks(jobs):
    read = np.arange(5) * 10
    found = each([partial(piece, number, read) for number in range(5)], jobs)
    assert [(number, value) for number, _, value in found] == [(i, i * 10) for i in range(5)]
    assert (os.getpid() in {process for _, process, _ in found}) == (jobs == 1)


def test_what_cannot_be_pickled_can_be_a_task():
    assert each([lambda: 1, lambda: 2], 2) == [1, 2]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_mistake_stays_a_sentence(jobs):
    def wrong():
        raise UserError("this file is broken")

    with pytest.raises(UserError, match="this file is broken"):
        each([wrong, int], jobs)


def test_without_tasks_there_is_nothing_to_do():
    assert each([], 4) == []
