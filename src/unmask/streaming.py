"""Batches of a pool that stays on disk: read, cropped and flipped by other processes, never all in memory.

Every draw of an epoch is made from its generator before the first image is read, as in `unmask.augment`: order, crops
and flips are the same there and here, and for any number of processes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unmask.augment import crops, in_batches
from unmask.errors import UserError
from unmask.pool import Pool
from unmask.stopping import SIGNALS

BLOCK = 1024  # images of which masks are drawn at once


@dataclass(frozen=True)
class Stored:
    """Images `rows` int64 [N] of a pool, to be read at `size` by `workers` processes (0 = by this one)."""

    pool: Pool
    rows: np.ndarray
    size: int
    workers: int

    def __len__(self) -> int:
        return len(self.rows)

    def whole(self) -> torch.Tensor:
        """All of them without augmentation, uint8 [N, size, size, 3]; for few."""
        return torch.cat(list(_loaded(_Reads(self, None), [[i] for i in range(len(self))], self.workers)))


class Streamed:
    """One epoch over images on disk: yields what `unmask.augment.Augmented` does of images in memory.

    A crop is cut out of the full image and resized once. What is read follows the list `batches` when iteration begins:
    batches that are taken out of it, or of which a part is, cost nothing. Images go to `device` as bytes.
    """

    def __init__(
        self,
        images: Stored,
        batch: int,
        generator: torch.Generator,
        crop_scale: tuple[float, float],
        device: torch.device | None = None,
    ):
        n = len(images)
        self.images, self.device = images, device or torch.device("cpu")
        self.order = torch.randperm(n, generator=generator)
        self.batches = in_batches(self.order, batch)
        flip = torch.rand(n, generator=generator) < 0.5
        self.theta = crops(n, crop_scale, generator)
        self.theta[flip, 0, 0] *= -1
        self.key = int(torch.randint(2**62, (), generator=generator))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        batches = list(self.batches)
        loaded = _loaded(_Reads(self.images, self.theta), [index.tolist() for index in batches], self.images.workers)
        for index, images in zip(batches, loaded, strict=True):
            yield images.to(self.device).permute(0, 3, 1, 2).float().div_(255), index


class Given:
    """What goes with each image of an epoch, `draw(n, generator)` [n, ...], drawn a block of the order at a time.

    `given[index]` is that of the images `index` [B]. Keyed by the place in the epoch: batches and skips change nothing.
    """

    def __init__(self, epoch: Streamed, draw: Callable[[int, torch.Generator], torch.Tensor]):
        self._draw, self._key = draw, epoch.key
        self._place = torch.empty_like(epoch.order)
        self._place[epoch.order] = torch.arange(len(epoch.order))
        self._blocks: dict[int, torch.Tensor] = {}

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        places = self._place[index]
        wanted = (places // BLOCK).unique().tolist()
        # A batch lies in one block or in a few that follow one another; those behind it are not asked for again.
        self._blocks = {b: self._blocks[b] if b in self._blocks else self._drawn(b) for b in wanted}
        return torch.cat([self._blocks[block] for block in wanted])[
            torch.searchsorted(torch.tensor(wanted), places // BLOCK) * BLOCK + places % BLOCK
        ]

    def _drawn(self, block: int) -> torch.Tensor:
        from unmask.seeds import torch_generator

        return self._draw(BLOCK, torch_generator(self._key, "given", block))


class _Reads(Dataset):
    """A batch's pixels uint8 [B, size, size, 3] by the indices of its images; where one is broken, what is wrong."""

    def __init__(self, images: Stored, theta: torch.Tensor | None):
        self.images, self.theta = images, theta

    def __getitem__(self, index: list[int]) -> torch.Tensor | str:
        found = []
        for i in index:
            try:
                found.append(self._pixels(i))
            except Exception as error:  # raised, it would come out of another process wrapped in its traceback
                return self.images.pool.wrong(int(self.images.rows[i]), error)
        return torch.from_numpy(np.stack(found))

    def _pixels(self, i: int) -> np.ndarray:
        pool, size, row = self.images.pool, self.images.size, int(self.images.rows[i])
        if self.theta is None:
            return pool.pixels(row, size)
        (width, _, x), (_, height, y) = self.theta[i].tolist()
        half = abs(width)
        frame = [(1 + end) / 2 for end in (x - half, y - height, x + half, y + height)]
        pixels = pool.pixels(row, size, tuple(min(1.0, max(0.0, end)) for end in frame))
        return pixels[:, ::-1] if width < 0 else pixels


def _loaded(reads: _Reads, batches: list[list[int]], workers: int) -> Iterator[torch.Tensor]:
    """The batches in order; `workers` processes read ahead, two batches each."""
    # Its own generator: the loader draws a seed for its processes, which must not move torch's.
    loader = DataLoader(
        reads,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_undisturbed,
        generator=torch.Generator(),
    )
    for found in loader:
        if isinstance(found, str):
            raise UserError(f"{found}; it was whole when the pool was listed: run `unmask data --pool` again")
        yield found


def _undisturbed(_worker: int) -> None:
    """Signals to end are for the process that trains: it keeps its state, and these end with it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(found: torch.Tensor | str) -> torch.Tensor | str:
    return found
