"""How much of the tokens changes from patch to patch, and how much is the same everywhere."""

from __future__ import annotations

import torch

from unmask.errors import Skip


def high_frequency(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The relative log amplitude of the highest frequency, in nats, [N]: `log |F(pi, pi)| - log |F(0, 0)|`.

    F is the Fourier transform of a channel of the tokens [N, P, D] over the grid (on an odd grid, its highest
    frequency); 1e-6 is added to amplitudes, and the mean is over channels. 0 = as much as of the mean, as in white
    noise. Park et al., ICLR 2023, whose code stops one frequency short on an even grid. Raises `Skip` for a single
    token.
    """
    if min(grid) < 2:
        raise Skip(f"tokens on a grid of {grid[0]} x {grid[1]} have no frequencies")
    maps = tokens.double().transpose(1, 2).unflatten(2, grid)
    amplitudes = torch.fft.fft2(maps).abs()
    logs = (amplitudes[..., [0, grid[0] // 2], [0, grid[1] // 2]] + 1e-6).log()
    return (logs[..., 1] - logs[..., 0]).mean(1)
