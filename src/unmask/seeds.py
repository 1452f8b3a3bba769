"""Random generators seeded by (base seed, stage, cell): no draw anywhere depends on the order of the jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(base: int, stage: str, *cell: object) -> int:
    """A 63-bit seed from the base seed, the stage's name and the parts that name the cell."""
    text = "\x1f".join(str(part) for part in (base, stage, *cell))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(base: int, stage: str, *cell: object) -> np.random.Generator:
    """A numpy generator for one cell."""
    import numpy as np

    return np.random.default_rng(derive(base, stage, *cell))


def torch_generator(base: int, stage: str, *cell: object) -> torch.Generator:
    """A torch generator on the CPU for one cell; draws are moved to the device, so every device sees the same."""
    import torch

    return torch.Generator().manual_seed(derive(base, stage, *cell))


@contextmanager
def numpy_global(seed: int) -> Iterator[None]:
    """Seed numpy's global generator (all that Quantus knows) and put the old state back afterwards."""
    import numpy as np

    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
