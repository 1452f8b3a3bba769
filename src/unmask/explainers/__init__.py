"""What the explainers share: binding to a model, and passes of the size that the device likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unmask.errors import Skip

if TYPE_CHECKING:
    import torch

    from unmask.config import ExplainerSpec
    from unmask.models.classifier import Classifier, ConvClassifier
    from unmask.models.vit import DroppedImages, MaskedImages
    from unmask.removals import Removal


NEEDS = ("masks", "references", "pretraining")


def bind(
    spec: ExplainerSpec,
    model: Classifier | ConvClassifier,
    removal: Removal | None = None,
    references: torch.Tensor | None = None,
) -> Callable[..., torch.Tensor]:
    """An entry of the config as `explain(images, targets, generator, masks)`, for a model.

    `images` float32 [N, 3, H, W] in [0, 1], `targets` int64 [N], `masks` bool [N, H, W]; gives float32 maps [N, H, W]
    or [N, gh, gw]. `references` float32 [R, 3, H, W] are training images, for the plug-ins whose META needs them.
    Raises `Skip` with the reason where the explainer does not apply to the model.
    """
    meta, name = spec.plugin.meta, spec.plugin.id
    needs = meta.get("needs", [])
    if model.arch not in meta["architectures"]:
        raise Skip(f"the explainer {name} does not apply to the architecture {model.arch}")
    if model.pooling not in meta.get("poolings", [model.pooling]):
        raise Skip(f"the explainer {name} does not apply to the pooling '{model.pooling}'")
    if "pretraining" in needs and model.pretraining is None:
        raise Skip(f"the explainer {name} needs the encoder's pretraining network, and this encoder has none")
    if "references" in needs and references is None:
        raise Skip(f"the explainer {name} needs reference images of the training split, and there are none")
    function = spec.plugin.load().explain
    fixed = {"references": references} if "references" in needs else {}

    def explain(images, targets, generator, masks=None):
        extra = {**fixed, "masks": masks} if "masks" in needs else fixed
        return function(model, images, targets, generator=generator, removal=removal, **extra, **spec.options)

    return explain


def split(images: torch.Tensor, each: int = 1) -> list[slice]:
    """Slices over the images, such that a slice with `each` inputs per image fills a pass; at least one image each."""
    from unmask.device import batch_size

    step = max(1, batch_size(images.device) // each)
    return [slice(start, start + step) for start in range(0, len(images), step)]


def select(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Each row's target logit: [N, classes] and int64 [N] to [N]."""
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1)


def gradient(model: Classifier, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Gradient of the target logits [N] to the inputs [N, 3, H, W], one pass."""
    import torch

    with torch.enable_grad():
        leaf = inputs.detach().clone().requires_grad_()
        return torch.autograd.grad(select(model(leaf), targets).sum(), leaf)[0]


def masked_logits(
    model: Classifier, removal: Removal, images: torch.Tensor, targets: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """Target logits [N, K] of K subsets of each image, `keep` bool [N, K, gh, gw], in full passes without a graph."""
    import torch

    from unmask.device import batch_size

    subsets, limit = keep.shape[1], batch_size(images.device)
    # Equal parts of one image's subsets where they overflow a pass; several images to a pass where they do not fill it.
    parts = keep.split(-(-subsets // -(-subsets // limit)), 1)
    rows = []
    with torch.no_grad():
        for chosen in split(images, subsets):
            some, goal = images[chosen], targets[chosen]
            rows.append(torch.cat([_logits(model, removal.remove(some, part[chosen]), goal) for part in parts], 1))
    return torch.cat(rows)


def _logits(
    model: Classifier, inputs: torch.Tensor | MaskedImages | DroppedImages, targets: torch.Tensor
) -> torch.Tensor:
    repeats = len(inputs) // len(targets)
    return select(model(inputs), targets.repeat_interleave(repeats)).reshape(len(targets), repeats)
