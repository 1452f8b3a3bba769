"""Control: edges. The magnitude of the Sobel gradient of the grey image; knows the image, not the model."""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d, pad

META = {
    "family": "control",
    "class_specific": False,
    "signed": False,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "0"},
    "citation": "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018",
}
_GREY = (0.2125, 0.7154, 0.0721)  # scikit-image's rgb2gray


def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], 0 or more, in grey levels per pixel."""
    grey = (images.detach() * torch.tensor(_GREY).to(images).view(3, 1, 1)).sum(1, keepdim=True)
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).to(images) / 8
    slopes = conv2d(pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([across, across.T]).unsqueeze(1))
    return slopes.square().sum(1).sqrt()
