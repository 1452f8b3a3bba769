"""Missingness-aware fine-tuning: in each step every image lacks a random set of its patches, of uniform cardinality.

A model that has seen patches absent in training answers, where they are removed, with what the rest of the image says,
so that the removal no longer leads off its data: Frye et al., Shapley Explainability on the Data Manifold, ICLR 2021;
Covert et al., Learning to Estimate Shapley Values with Vision Transformers, ICLR 2023; Jain et al., Missingness Bias in
Model Debugging, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from unmask.errors import UserError
from unmask.removals import mask_token, mean, token_drop

if TYPE_CHECKING:
    from unmask.models.classifier import Classifier, ConvClassifier

REMOVALS = {"mask_token": mask_token, "token_drop": token_drop, "mean": mean}
Lacking = Callable[[torch.Tensor, torch.Tensor], Any]


def chosen(asked: str | None, model: Classifier | ConvClassifier, encoder: str) -> str | None:
    """Which of `REMOVALS` a model is fine-tuned with, None for none of them.

    `native` is the mask token where one went through the encoder in pretraining, else the tokens dropped, and the mean
    colour on a network without tokens. Raises `UserError` where the model lacks what was asked for.
    """
    if asked in (None, "none"):
        return None
    if asked == "native":
        return "mask_token" if model.mask_token is not None else "token_drop" if model.arch == "vit" else "mean"
    about = REMOVALS[asked].META
    if model.arch not in about["architectures"]:
        raise UserError(f"encoders.{encoder}: {asked} needs a transformer's tokens; set its key missing to native")
    if "mask_token" in about.get("needs", ()) and model.mask_token is None:
        raise UserError(
            f"encoders.{encoder}: no mask token went through this encoder; set its key missing to native or token_drop"
        )
    return asked


def subsets(n: int, grid: tuple[int, int], generator: torch.Generator, share: float = 1.0) -> torch.Tensor:
    """Patches to keep, bool [n, gh, gw]: as many absent as is drawn uniformly from none to all, anywhere.

    Of about a `share` of the images; the others are whole.
    """
    patches = grid[0] * grid[1]
    place = torch.rand(n, patches, generator=generator).argsort(1).argsort(1)
    absent = torch.randint(patches + 1, (n, 1), generator=generator)
    absent *= torch.rand(n, 1, generator=generator) < share
    return (place >= absent).unflatten(1, grid)


def lacking(
    removal: str | None, model: Classifier | ConvClassifier, n: int, generator: torch.Generator, share: float = 1.0
) -> Lacking:
    """For one epoch over `n` images: a function of images float32 [B, 3, H, W] in [0, 1] and their indices [B] to what
    the model is called with. Without a removal nothing is drawn, and images stay as they are."""
    if removal is None:
        return lambda images, index: images
    keep, remove = subsets(n, model.grid, generator, share), REMOVALS[removal].remove
    return lambda images, index: remove(model, images, keep[index].to(images.device))
