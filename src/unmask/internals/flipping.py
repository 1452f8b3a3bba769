"""The search for the fewest patches whose removal changes a decision.

A search asks for the margins of some sets of absent patches and is sent them, so that the searches of many images share
the model's passes (`together`). A margin is the logit of the class that was decided for less the highest of the others:
below 0 the decision is another.

Greedy: add the patch whose removal lowers the margin most, until it is below 0. Every step tries every patch: trying
only those that lowered it most before (lazy evaluation) finds larger sets, since patches interact.
Refined: leave a patch out of the set; where the decision comes back, swap single patches for those `candidates` that
lowered the margin most when last tried, as long as that lowers it. What is found is never larger than greedy's set.
Exhaustive: all sets of up to so many patches, after which the smallest set is known to be the smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

AT_ONCE = 4096  # sets that an exhaustive search asks for at once


@dataclass(frozen=True)
class Limits:
    """How far to search: `largest` patches in greedy's set, `candidates` to swap for, `refinements` sets tried in
    refining, at most, and up to which size to try all sets (1: what greedy does in any case)."""

    largest: int
    candidates: int
    refinements: int
    exhaustive: int = 1


@dataclass(frozen=True)
class Sets:
    """What was found: patches by number, None where no set was.

    greedy    in the order in which they were added
    smallest  sorted; refined, or found by trying all
    proven    whether all smaller sets were tried
    never     whether the decision stays whichever single patch is left
    """

    greedy: tuple[int, ...] | None
    smallest: tuple[int, ...] | None
    proven: bool
    never: bool


Search = Generator["np.ndarray", "np.ndarray", Sets]  # asks with bool [K, P], True = absent; is sent float64 [K]


def search(patches: int, whole: float, limits: Limits) -> Search:
    """Search one image of `patches` patches, whose margin is `whole` with all of them; returns `Sets`."""
    import numpy as np

    largest = min(limits.largest, patches - 1)
    greedy, gains = yield from _greedy(patches, whole, largest)
    start, never = greedy, False
    if greedy is None:
        margins = yield ~np.eye(patches, dtype=bool)
        never = bool(margins.min() >= 0)
        if not never and largest == patches - 1:
            start = tuple(np.flatnonzero(np.arange(patches) != margins.argmin()).tolist())
    smallest = start if start is None else (yield from _refined(patches, start, gains, limits))
    tried = 0 if smallest is not None and len(smallest) == 1 else 1  # all sets up to this size leave the decision
    for size in range(2, limits.exhaustive + 1):
        if size > (largest if smallest is None else len(smallest) - 1):
            break
        found = yield from _every(patches, size)
        if found is not None:
            smallest = found
            break
        tried = size
    proven = smallest is not None and len(smallest) <= tried + 1
    return Sets(greedy, None if smallest is None else tuple(sorted(smallest)), proven, never and smallest is None)


def most_sets(patches: int, limits: Limits) -> int:
    """How many sets a search tries at most."""
    from math import comb

    largest = min(limits.largest, patches - 1)
    greedy = sum(patches - size for size in range(largest))
    every = sum(comb(patches, size) for size in range(2, min(limits.exhaustive, largest) + 1))
    return greedy + patches + limits.refinements + every


def together(
    searches: list[Search], ask: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[list[Sets], list[int]]:
    """What each search found, and how many sets it tried; `ask(image [M], absent [M, P])` gives margins float64 [M]."""
    import numpy as np

    found: dict[int, Sets] = {}
    tried = [0] * len(searches)
    waiting = {place: next(one) for place, one in enumerate(searches)}
    while waiting:
        sizes = [len(sets) for sets in waiting.values()]
        margins = ask(np.repeat(list(waiting), sizes), np.concatenate(list(waiting.values())))
        answers = dict(zip(waiting, np.split(margins, np.cumsum(sizes)[:-1]), strict=True))
        waiting = {}
        for place, answer in answers.items():
            tried[place] += len(answer)
            try:
                waiting[place] = searches[place].send(answer)
            except StopIteration as end:
                found[place] = end.value
    return [found[place] for place in range(len(searches))], tried


def _greedy(
    patches: int, whole: float, largest: int
) -> Generator[np.ndarray, np.ndarray, tuple[tuple[int, ...] | None, np.ndarray]]:
    """The set that greedy ends with, or None; and how much each patch lowered the margin when it was last tried."""
    import numpy as np

    margins = yield np.eye(patches, dtype=bool)
    gains = whole - margins
    chosen, current = (int(margins.argmin()),), margins.min()
    while current >= 0 and len(chosen) < largest:
        pool = _pool(gains, chosen, patches)
        margins = yield _sets(patches, [(*chosen, patch) for patch in pool])
        gains[pool] = current - margins
        chosen, current = (*chosen, pool[int(margins.argmin())]), margins.min()
    return (chosen if current < 0 else None), gains


def _refined(
    patches: int, start: tuple[int, ...], gains: np.ndarray, limits: Limits
) -> Generator[np.ndarray, np.ndarray, tuple[int, ...]]:
    """A set no larger than `start` that still changes the decision. No single patch does where `start` has several."""
    best, left = start, limits.refinements
    while len(best) > 2 and left >= len(best):
        smaller = [tuple(other for other in best if other != patch) for patch in best]
        margins = yield _sets(patches, smaller)
        left -= len(smaller)
        current, margin = smaller[int(margins.argmin())], margins.min()
        while margin >= 0:
            pool = _pool(gains, current, limits.candidates)
            swaps = [(*(other for other in current if other != out), new) for out in current for new in pool]
            if left < len(swaps):
                return best
            margins = yield _sets(patches, swaps)
            left -= len(swaps)
            if margins.min() >= margin:
                return best
            current, margin = swaps[int(margins.argmin())], margins.min()
        best = current
    return best


def _every(patches: int, size: int) -> Generator[np.ndarray, np.ndarray, tuple[int, ...] | None]:
    """Of all sets of a size the one with the lowest margin, or None where none changes the decision."""
    best, lowest = None, 0.0
    for sets in _chunks(combinations(range(patches), size)):
        margins = yield _sets(patches, sets)
        if margins.min() < lowest:
            best, lowest = sets[int(margins.argmin())], margins.min()
    return best


def _chunks(sets: Iterator[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    while some := list(islice(sets, AT_ONCE)):
        yield some


def _pool(gains: np.ndarray, chosen: tuple[int, ...], candidates: int) -> list[int]:
    """The patches beside the chosen ones that lowered the margin most, the first of equals first."""
    import numpy as np

    taken = set(chosen)
    return [patch for patch in np.argsort(-gains, kind="stable").tolist() if patch not in taken][:candidates]


def _sets(patches: int, sets: list[tuple[int, ...]]) -> np.ndarray:
    import numpy as np

    absent = np.zeros((len(sets), patches), bool)
    for row, members in zip(absent, sets, strict=True):
        row[list(members)] = True
    return absent
