"""SimMIM with a Siamese contrast: an image's masked view is to be told from those of others by its full view.

Both views go through one encoder (shared weights). The masked one is reconstructed as in SimMIM; what is read of both
(`Classifier.pooled`) goes through a projection head, and InfoNCE asks which two views are of one image:
SimMIM (Xie et al., CVPR 2022) with the contrast of SimCLR (Chen et al., ICML 2020), its negatives from the other view.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from unmask.models.simmim import SimMIM
from unmask.models.vit import MaskedImages, in_full_precision


def info_nce(one: torch.Tensor, other: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE of two views, projections [N, D], row i of both being of image i (van den Oord et al., 2018, eq. 4).

    The cross-entropy of finding i's other view among all N by cosine over `temperature`, in both directions, their
    mean. A scalar >= 0; log N where nothing is told apart.
    """
    similarity = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T / temperature
    places = torch.arange(len(one), device=one.device)
    return (functional.cross_entropy(similarity, places) + functional.cross_entropy(similarity.T, places)) / 2


class SiameseSimMIM(SimMIM):
    """`forward(images, mask)` gives SimMIM's loss + `contrast_weight` x InfoNCE, and both as its parts.

    The projection head (width, width, ReLU between) is left behind after pretraining, as in SimCLR.
    """

    def __init__(self, *, temperature: float, contrast_weight: float, **architecture):
        super().__init__(**architecture)
        self.temperature, self.contrast_weight = temperature, contrast_weight
        width = self.encoder.backbone.embed_dim
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # One pass over both views: the encoder has no batch statistics, so it is two.
        masked = self.encode(MaskedImages(torch.cat([images, images]), torch.cat([~mask, torch.ones_like(mask)])))
        views = in_full_precision(self.projection, self.encoder.pooled(masked))
        reconstruction = self.loss(self.target(images), self.decode(masked[: len(images)]), mask)
        contrast = in_full_precision(lambda views: info_nce(*views.chunk(2), self.temperature), views)
        parts = {"reconstruction_loss": reconstruction, "contrast_loss": contrast}
        return reconstruction + self.contrast_weight * contrast, parts
