"""SimMIM with a Siamese contrast: an image's masked view is to be told from those of others by its full view.

Both views go through one encoder (shared weights). The masked one is reconstructed as in SimMIM; what is read of both
(`Classifier.pooled`) goes through a projection head, and InfoNCE asks which two views are of one image:
SimMIM (Xie et al., CVPR 2022) with the contrast of SimCLR (Chen et al., ICML 2020), its negatives from the other view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from unmask.models.simmim import SimMIM
from unmask.models.vit import MaskedImages, in_full_precision

if TYPE_CHECKING:
    from unmask.processes import World


def info_nce(
    one: torch.Tensor,
    other: torch.Tensor,
    temperature: float,
    among: tuple[torch.Tensor, torch.Tensor] | None = None,
    start: int = 0,
) -> torch.Tensor:
    """InfoNCE of two views, projections [N, D], row i of both being of image i (van den Oord et al., 2018, eq. 4).

    The cross-entropy of finding i's other view among all N by cosine over `temperature`, in both directions, their
    mean. A scalar >= 0; log N where nothing is told apart. With `among`, both views of more images, row i is image
    `start` + i of those, and is found among them.
    """
    one, other = functional.normalize(one, dim=1), functional.normalize(other, dim=1)
    places = start + torch.arange(len(one), device=one.device)
    forth = one @ (other if among is None else functional.normalize(among[1], dim=1)).T / temperature
    back = forth.T if among is None else other @ functional.normalize(among[0], dim=1).T / temperature
    return (functional.cross_entropy(forth, places) + functional.cross_entropy(back, places)) / 2


class SiameseSimMIM(SimMIM):
    """`forward(images, mask)` gives SimMIM's loss + `contrast_weight` x InfoNCE, and both as its parts.

    The projection head (width, width, ReLU between) is left behind after pretraining, as in SimCLR. In training,
    `world` are the processes that hold other parts of the batch, whose images the contrast is among, too.
    """

    world: World | None = None

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
        contrast = in_full_precision(lambda views: self._contrast(*views.chunk(2), mask), views)
        parts = {"reconstruction_loss": reconstruction, "contrast_loss": contrast}
        return reconstruction + self.contrast_weight * contrast, parts

    def _contrast(self, one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """InfoNCE of two views; of a part of a batch, times what makes its share one of images, not of patches."""
        world = self.world
        if not self.training or world is None or world.size == 1:
            return info_nce(one, other, self.temperature)
        own = len(one) if world.counts else 0
        whole, start = world.gather(torch.stack([one[:own], other[:own]], 1))
        masked = world.sum(mask[:own].sum())
        if not own:  # the others' gradients pass through here
            return 0 * whole.sum()
        contrast = info_nce(one, other, self.temperature, whole.unbind(1), start)
        return contrast * (own / len(whole)) * (masked / mask.sum())
