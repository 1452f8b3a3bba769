"""Attention rollout: the product over blocks of (A + I) / 2, A the attention's mean over heads (eq. 1)."""

from __future__ import annotations

import torch

from unmask.explainers import split
from unmask.models import rules

META = {
    "family": "attention",
    "class_specific": False,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "1", "backward": "0"},
    "citation": "Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 to 1."""
    maps = []
    for part in split(images, 4):  # a pass holds every block's attention
        with rules.attention_maps(model) as attention:
            model(images[part])
            maps.append(rules.decision_row(model, rollout(attention)))
    return torch.cat(maps)


def rollout(attention: list[torch.Tensor]) -> torch.Tensor:
    """The blocks' attentions [N, heads, T, T], first block first, as one row-stochastic [N, T, T]."""
    product = torch.eye(attention[0].shape[-1]).to(attention[0])
    identity = product
    for block in attention:
        product = (block.mean(1) + identity) / 2 @ product  # rows of attention sum to 1, so these do as well
    return product
