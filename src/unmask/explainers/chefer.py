"""Generic attention explainability: R += E_h[(dy/dA * A)+] R over the blocks (eqs. 5 and 6), self-attention only.

Read as the decision does, without the identity that R starts from: under mean pooling it would add to every patch.
"""

from __future__ import annotations

import torch

from unmask.explainers import select, split
from unmask.models import rules

META = {
    "family": "attention",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Chefer et al., Generic Attention-model Explainability, ICCV 2021",
}


@torch.enable_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    maps = []
    for part in split(images, 4):  # a pass holds every block's attention and its gradient
        with rules.attention_maps(model) as attention:
            # The weights need no gradients, so the graph of the attention starts at the input.
            logits = model(images[part].detach().clone().requires_grad_())
        slopes = torch.autograd.grad(select(logits, targets[part]).sum(), attention)
        maps.append(rules.decision_row(model, relevance([block.detach() for block in attention], slopes)))
    return torch.cat(maps)


def relevance(attention, slopes) -> torch.Tensor:
    """R - I as [N, T, T], from the blocks' attentions and their gradients [N, heads, T, T], first block first."""
    identity = torch.eye(attention[0].shape[-1]).to(attention[0])
    total = identity.expand(len(attention[0]), -1, -1)
    for block, slope in zip(attention, slopes, strict=True):
        total = total + (slope * block).relu().mean(1) @ total
    return total - identity
