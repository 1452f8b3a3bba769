"""Which images of a split are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def choose(labels: np.ndarray, count: int, generator: np.random.Generator) -> list[int]:
    """`count` rows (or all there are), one class after the other, so that every prefix is balanced.

    A class that has run out is passed over. Fewer rows are always a prefix of more.
    """
    import numpy as np

    shuffled = [generator.permutation(np.flatnonzero(labels == label)).tolist() for label in np.unique(labels)]
    rounds = max(map(len, shuffled))
    return [rows[i] for i in range(rounds) for rows in shuffled if i < len(rows)][:count]


def explained(labels: np.ndarray, count: int, seed: int, domain: str) -> list[int]:
    """The first `count` rows of a domain's test split in the order in which images are explained, for every model."""
    from unmask.seeds import numpy_generator

    return choose(labels, count, numpy_generator(seed, "explain", domain))
