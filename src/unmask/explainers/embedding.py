"""Label-free attribution of the embedding that the head is given: input x gradient of its product with itself.

For an embedding f and an image x0, the map is x0 times the gradient at x0 of <f(x), f(x0)>, f(x0) held constant, summed
over channels: which pixels put the image where it lies in the embedding, whatever the classes are.
"""

from __future__ import annotations

import torch

from unmask.explainers import split

META = {
    "family": "mim",
    "class_specific": False,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Crabbé & van der Schaar, Label-Free Explainability for Unsupervised Models, ICML 2022",
}


@torch.enable_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, H, W], signed."""
    return torch.cat([_attributions(model, images[part]) for part in split(images)])


def _attributions(model, images: torch.Tensor) -> torch.Tensor:
    leaf = images.detach().clone().requires_grad_()
    embedding = _embedding(model, leaf)
    (slope,) = torch.autograd.grad((embedding * embedding.detach()).sum(), leaf)
    return (slope * images).sum(1)


def _embedding(model, images: torch.Tensor) -> torch.Tensor:
    """What the head is given, [N, width]."""
    given: list[torch.Tensor] = []
    handle = model.backbone.get_classifier().register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    try:
        model(images)
    finally:
        handle.remove()
    return given[0]
