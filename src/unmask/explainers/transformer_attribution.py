"""Transformer attribution: rollout of the attention's relevance times its gradient, C = prod_b (I + E_h[(dy/dA * R)+]).

The relevance R of an attention map comes from the rules of AttnLRP (`_lrp.py`: uniform for products,
identity for LayerNorm and activations, the epsilon rule for linear layers). The paper's own propagate positive parts
only through linear layers (alpha 1, beta 0), pass relevance through the softmax unchanged and renormalise it where
residuals add up. Read as the decision does, without the identity: under mean pooling it would add to every patch.

Layer-wise relevance propagation is patented; its authors allow personal and scientific use.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from unmask.explainers import _lrp, select, split
from unmask.explainers.chefer import relevance
from unmask.models import rules

META = {
    "family": "relevance",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "0", "backward": "2"},
    "citation": "Chefer et al., Transformer Interpretability Beyond Attention Visualization, CVPR 2021",
}


@torch.enable_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    maps = []
    for part in split(images, 4):  # a pass holds every block's attention and its gradient
        _, slopes = _slopes(model, images[part], targets[part], nullcontext())
        attention, altered = _slopes(model, images[part], targets[part], _lrp.propagation(model, "uniform"))
        # Half, since the values take the other half of what reaches their product with the attention.
        relevances = [block * slope / 2 for block, slope in zip(attention, altered, strict=True)]
        maps.append(rules.decision_row(model, relevance(relevances, slopes)))
    return torch.cat(maps)


def _slopes(model, images: torch.Tensor, targets: torch.Tensor, propagation):
    """Each block's attention and the target logit's gradient to it as `propagation` has it, both [N, heads, T, T]."""
    with propagation, rules.attention_maps(model) as attention:
        # The weights need no gradients, so the graph of the attention starts at the input.
        logits = model(images.detach().clone().requires_grad_())
        slopes = torch.autograd.grad(select(logits, targets).sum(), attention)
    return [block.detach() for block in attention], slopes
