"""Gradients in which a ReLU passes on something else than its slope: captum's, batched and without its warning."""

from __future__ import annotations

import warnings

import torch
from captum.attr import Deconvolution, GuidedBackprop

from unmask.explainers import split


def changed_gradient(
    method: type[GuidedBackprop | Deconvolution], model, images: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """The target logits' gradient [N, 3, H, W] under captum's rule; the plain one where there is no ReLU module."""
    parts = []
    for part in split(images):
        leaf = images[part].detach().clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")  # it removes them, also after an error
            parts.append(method(model).attribute(leaf, target=targets[part]).detach())
    return torch.cat(parts)
