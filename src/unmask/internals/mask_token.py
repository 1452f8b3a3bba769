"""How unlike a seen patch a masked one looks to the encoder."""

from __future__ import annotations

import torch


def separation(tokens: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """How far masked tokens are from visible ones, in units of how far those are from one another: [N] >= 0.

    `sqrt(mean ||m - v||^2 / mean ||v - v'||^2)` over an image's masked tokens m and visible ones v != v'; tokens
    [N, P, D], `keep` bool [N, P], True = visible, at least two visible and one masked. 1 = as if drawn from the same
    cloud. After "data singularity" in Choi et al., Emerging Property of Masked Token for Effective Pre-training, ECCV
    2024; the formula is ours.
    """
    tokens = tokens.double()
    (seen, seen_mean, seen_square), (_, hidden_mean, hidden_square) = (_moments(tokens, part) for part in (keep, ~keep))
    between = hidden_square + seen_square - 2 * (hidden_mean * seen_mean).sum(-1)
    within = 2 * (seen_square - seen_mean.square().sum(-1)) * seen / (seen - 1)
    return (between / within.clamp(min=1e-300)).clamp(min=0).sqrt()


def _moments(tokens: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number, mean token and mean squared norm of an image's chosen tokens."""
    weights = chosen.to(tokens)
    count = weights.sum(1)
    shares = weights / count[:, None]
    return count, torch.einsum("np,npd->nd", shares, tokens), (shares * tokens.square().sum(-1)).sum(1)
