"""What explainers of the pretraining network share: masks as in its training, and full passes over them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from unmask.device import batch_size
from unmask.encoders import masked_cells
from unmask.errors import Skip
from unmask.explainers import split


def draw(model, images: torch.Tensor, count: int, generator: torch.Generator, *, visible: bool = False) -> torch.Tensor:
    """`count` masks of each image at the ratio and in the cells of pretraining: bool [N, count, gh, gw], True = MASKED.

    Each mask is uniformly random, as there, but one image's are not independent: every round of them deals out one
    random order of the cells, each mask taking the complement of those before it first, so that a round masks every
    patch (or, with `visible`, shows every patch). Raises `Skip` where `count` masks are less than a round.
    """
    height, width = model.grid
    scale = model.pretraining.mask_cell // model.patch
    down, cells = height // scale, height * width // scale**2
    masked = masked_cells(cells, model.pretraining.mask_ratio)
    dealt = cells - masked if visible else masked
    per_round = -(-cells // dealt)
    if count < per_round:
        what = "shown" if visible else "masked"
        raise Skip(f"{count} masks of {masked} of {cells} cells cannot have every patch {what}; it takes {per_round}")
    rounds = -(-count // per_round)
    places = torch.arange(per_round * dealt) % cells  # the last mask of a round is filled up from its start
    drawn = []
    for _ in images:
        order = torch.rand(rounds, cells, generator=generator).argsort(1)
        hands = order[:, places].reshape(-1, dealt)[:count]
        mask = torch.zeros(count, cells, dtype=torch.bool).scatter_(1, hands, True) ^ visible
        drawn.append(mask.reshape(count, down, -1).repeat_interleave(scale, 1).repeat_interleave(scale, 2))
    return torch.stack(drawn).to(images.device)


def over_masks(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], images: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """`function(images [M, 3, H, W], masks [M, gh, gw])`, one row per input, for K masks of each image: [N, K, ...].

    `masks` bool [N, K, gh, gw]. Passes are full: of one image's masks where they overflow one, else of several images.
    """
    count, limit = masks.shape[1], batch_size(images.device)
    parts = masks.split(-(-count // -(-count // limit)), 1)
    rows = []
    for chosen in split(images, count):
        some = images[chosen]
        done = [
            function(some.repeat_interleave(part.shape[1], 0), part[chosen].flatten(0, 1)).unflatten(0, (len(some), -1))
            for part in parts
        ]
        rows.append(torch.cat(done, 1))
    return torch.cat(rows)
