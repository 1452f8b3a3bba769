"""Occlusion: how far the target logit falls when a window of patches is removed.

A square of `window` patches a side slides over the grid in steps of `stride`; the last one of a row or column ends at
the border. A patch's value is the mean fall over the windows that cover it. One patch at a time (the default) is the
leave-one-out effect, which misses evidence that its neighbours repeat; larger windows take both.
"""

from __future__ import annotations

import torch

from unmask.errors import UserError
from unmask.explainers import masked_logits, select, split

META = {
    "family": "perturbation",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "(1 - (window - patches ** 0.5) // stride) ** 2 + 1", "backward": "0"},
    "options": {"window": 1, "stride": 1},
    "ranges": {"window": [1, None], "stride": [1, None]},
    "removal": "mean",
    "citation": "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None, window=1, stride=1) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits; raises `UserError` where the windows do not fit or leave gaps."""
    windows = _windows(model.grid, window, stride).to(images.device)
    keep = (~windows).expand(len(images), -1, -1, -1)
    whole = torch.cat([select(model(images[part]), targets[part]) for part in split(images)])
    falls = whole.unsqueeze(1) - masked_logits(model, removal, images, targets, keep)
    return (falls[..., None, None] * windows).sum(1) / windows.sum(0)


def _windows(grid: tuple[int, int], window: int, stride: int) -> torch.Tensor:
    """Every position of the window, bool [K, gh, gw], True = removed."""
    if window > min(grid):
        raise UserError(
            f"explain.options.occlusion.window: {window} is more than the {min(grid)} patches a side; give less"
        )
    if stride > window:
        raise UserError(
            f"explain.options.occlusion.stride: {stride} leaves patches between windows of {window} that none covers; "
            f"give at most {window}"
        )
    rows, columns = (_covered(side, window, stride) for side in grid)
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)


def _covered(side: int, window: int, stride: int) -> torch.Tensor:
    """The patches of a line under each position of the window, bool [positions, side]."""
    starts = [*range(0, side - window, stride), side - window]
    places = torch.arange(side)
    return torch.stack([(places >= start) & (places < start + window) for start in starts])
