"""Tokens that stand out by their norm, as registers do."""

from __future__ import annotations

import torch

DEVIATIONS = 5.0


def high_norms(tokens: torch.Tensor) -> torch.Tensor:
    """The share of an image's patch tokens of high norm, [N] in [0, 1], of tokens [N, P, D].

    High is above the median by five standard deviations, both over all images, the deviation as 1.4826 times the
    median absolute one: of normal norms that is one in three million. Darcet et al., Vision Transformers Need
    Registers, ICLR 2024, whose fixed limit fits one model only.
    """
    norms = tokens.double().norm(dim=-1)
    centre = norms.median()
    spread = 1.4826 * (norms - centre).abs().median()
    return (norms > centre + DEVIATIONS * spread + 1e-6 * centre).double().mean(1)
