"""AttnLRP: layer-wise relevance propagation that also follows the attention, through its softmax and products.

A product of two matrices halves relevance between them (proposition 3.3), the softmax is expanded at its input, with a
bias that takes or gives a part (3.1), LayerNorm (3.4) and activations follow the identity rule (eq. 9). `_lrp.py` has
the rules and a limit of theirs. `gamma` is that of the linear layers and the patch embedding: 0 is the epsilon rule,
and the authors advise more for vision transformers, tuned to the model; on average 0.1 and 1 were no better on six
fine-tuned models here, at four times the time. Relevance is read at the pixels, as in the paper, and alternates in
sign within a patch; the suite's metrics sum it over patches.

Layer-wise relevance propagation is patented; its authors allow personal and scientific use.
"""

from __future__ import annotations

import torch

from unmask.explainers import _lrp

META = {
    "family": "relevance",
    "class_specific": True,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit"],
    "passes": {"forward": "0", "backward": "1"},
    "options": {"gamma": 0.0},
    "ranges": {"gamma": [0, None]},
    "citation": "Achtibat et al., AttnLRP: Attention-Aware Layer-Wise Relevance Propagation, ICML 2024",
}


def explain(model, images, targets, *, generator, removal=None, gamma=0.0) -> torch.Tensor:
    """Maps [N, H, W], signed, in logits."""
    return _lrp.relevance(model, images, targets, "uniform", gamma)
