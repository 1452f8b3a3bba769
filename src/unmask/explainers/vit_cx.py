"""ViT-CX: which patches were present when masks made of the model's own feature maps kept the target logit high.

The masks: each channel of the patch embeddings at the CAM layer (see `unmask.models.rules`) is a map over the patches,
scaled to [0, 1]; channels are clustered (agglomerative, complete linkage, cosine distance) into `masks` clusters, and
a cluster's mask is the sum of its channels. The impact s_i of mask i is the target logit of the image under it, and

    S(patch) = sum_i (s_i - s) M_i(patch) / sum_i M_i(patch),

s the mean impact. The division is the paper's correction for patches that many masks cover; one that none covers is 0.
Unlike the paper: the number of clusters is given, not their distance, so that the cost is known; a mask keeps the share
`keep` of the patches where it is highest, since removals know no half-present patch; and absence comes from the
removal, so that the term f(image with noise) - f(image), which takes out the effect of the paper's noise, falls away.
With 64 masks the patch-flipping area on the proxies is within .003 of that with a mask for each of 96 channels, with 8
up to .15 above (benchmarks/README.md).
"""

from __future__ import annotations

import torch
from sklearn.cluster import AgglomerativeClustering

from unmask.explainers import masked_logits, split
from unmask.models import rules

META = {
    "family": "perturbation",
    "class_specific": True,
    "signed": True,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "(masks if masks < width else width) + 1", "backward": "0"},
    "options": {"masks": 64, "keep": 0.5},
    "ranges": {"masks": [2, None], "keep": [0.01, 0.99]},
    "removal": "mean",
    "citation": "Xie et al., ViT-CX: Causal Explanation of Vision Transformers, IJCAI 2023",
}


@torch.no_grad()
def explain(model, images, targets, *, generator, removal=None, masks=64, keep=0.5) -> torch.Tensor:
    """Maps [N, gh, gw], signed, in logits."""
    features = []
    for part in split(images):
        with rules.leaf_output(rules.cam_layer(model)) as outputs:
            model(images[part])
        features.append(rules.tokens_to_grid(model, outputs[0].detach()).flatten(2))
    chosen = torch.stack([_masks(one, masks, keep) for one in torch.cat(features).cpu()])  # [N, K, P]
    chosen = chosen.unflatten(2, model.grid).to(images.device)
    logits = masked_logits(model, removal, images, targets, chosen)
    impact = logits - logits.mean(1, keepdim=True)
    return (impact[..., None, None] * chosen).sum(1) / chosen.sum(1).clamp(min=1)


def _masks(features: torch.Tensor, masks: int, keep: float) -> torch.Tensor:
    """Masks bool [K, P] of the channels [D, P] of one image, K = min(masks, D)."""
    low, high = features.aminmax(dim=1, keepdim=True)
    scaled = (features - low) / (high - low).clamp(min=1e-12)
    directions = torch.nn.functional.normalize(scaled.double(), dim=1)
    distance = (1 - directions @ directions.T).clamp(min=0)
    count = min(masks, len(features))
    clusters = AgglomerativeClustering(n_clusters=count, metric="precomputed", linkage="complete").fit_predict(distance)
    sums = torch.zeros(count, features.shape[1]).index_add_(0, torch.from_numpy(clusters), scaled)
    kept = sums.topk(max(1, round(keep * sums.shape[1])), 1).indices
    return torch.zeros(sums.shape, dtype=torch.bool).scatter_(1, kept, True)
