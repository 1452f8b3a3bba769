"""Between pixels and the patch grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def to_pixels(grid: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Repeat each cell of `[N, gh, gw]` over its pixels: `[N, H, W]`, H and W multiples of gh and gw."""
    rows, columns = size[0] // grid.shape[-2], size[1] // grid.shape[-1]
    return grid.repeat_interleave(rows, -2).repeat_interleave(columns, -1)


def patch_sum(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Sum `[N, H, W]` over the pixels of each patch: `[N, gh, gw]`. A map on the grid already passes unchanged."""
    if tuple(maps.shape[-2:]) == tuple(grid):
        return maps
    n, height, width = maps.shape
    return maps.reshape(n, grid[0], height // grid[0], grid[1], width // grid[1]).sum((2, 4))
