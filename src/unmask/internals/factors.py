"""Concepts that nobody named: a non-negative factorisation of the patches' activations, as in CRAFT.

Fel et al., CRAFT: Concept Recursive Activation FacTorization for Explainability, CVPR 2023. The patch tokens A of a
layer, [patches of all images, D], are factorised as A ~ U W with U, W >= 0: each row of W is a concept, and U says how
much of it every patch holds. CRAFT reads layers that end in a ReLU. The tokens of a transformer have signs, so what is
factorised is their positive and their negative part side by side, [max(A - m, 0), max(m - A, 0)] with the mean token m:
nothing is lost by this, and a factor is a direction from the mean. A convolution's last layer is non-negative as it is.

The layer is the last whose patch tokens the decision reads: the last of all under mean pooling, the one before it
where a class token decides. U W, put back as tokens, goes through the rest of the network. A factor's importance for
an image is what the logit of its class loses when that factor is taken out: h(U W) - h(U W with column j of U at 0).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from unmask.internals import observe

if TYPE_CHECKING:
    from unmask.models.classifier import Classifier, ConvClassifier

ITERATIONS = 200
FITTED = 2048  # patches that the factors are fitted to; all patches are then described by them


@dataclass(frozen=True)
class Factors:
    """K factors of the patches of N images.

    parts       float32 [N, P, K], how much of each factor a patch holds; a factor's largest is 1
    basis       float32 [K, D or 2 D]
    mean        float32 [D], what was taken off the tokens (0 where they are non-negative)
    error       ||A - U W|| / ||A||, 0 = exact
    """

    parts: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    error: float

    def tokens(self, parts: np.ndarray) -> np.ndarray:
        """What stands for the tokens, float32 [..., P, D], with these parts [..., P, K] of the factors."""
        made = parts @ self.basis
        width = len(self.mean)
        return (made if made.shape[-1] == width else made[..., :width] - made[..., width:]) + self.mean


def read_layer(model: Classifier | ConvClassifier) -> int:
    """The last layer whose patch tokens the decision reads."""
    return observe.depth(model) - (model.pooling == "token")


def factorise(tokens: np.ndarray, count: int, generator: np.random.Generator) -> Factors:
    """Factorise tokens float32 [N, P, D] into `count` factors, at most as many as there are patches."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    signed = flat.min() < 0
    mean = flat.mean(0) if signed else np.zeros(flat.shape[1])
    whole = np.hstack([np.maximum(flat - mean, 0), np.maximum(mean - flat, 0)]) if signed else flat
    some = whole[generator.permutation(len(whole))[:FITTED]]
    count = min(count, *some.shape)
    model = NMF(count, init="nndsvda", tol=1e-4, max_iter=ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the error is reported, whatever stopped it
        model.fit(some)
        parts = model.transform(whole)
    largest = parts.max(0)
    largest[largest == 0] = 1
    parts, basis = parts / largest, model.components_ * largest[:, None]
    norm = np.linalg.norm(whole)
    error = float(np.linalg.norm(whole - parts @ basis) / norm) if norm else 0.0
    shaped = parts.reshape(*tokens.shape[:2], count).astype(np.float32)
    return Factors(shaped, basis.astype(np.float32), mean.astype(np.float32), error)


@torch.no_grad()
def before(model: Classifier | ConvClassifier, layer: int, images: torch.Tensor) -> torch.Tensor:
    """The tokens before the patch tokens as they leave a layer, [N, prefix, D]: the class token, or none."""
    if not model.prefix:
        return images.new_zeros(len(images), 0, 0)
    found: list[torch.Tensor] = []
    hook = observe.layers(model)[layer].register_forward_hook(
        lambda module, inputs, output: found.append(output[:, : model.prefix])
    )
    try:
        for batch in observe.batches(images):
            model(batch)
    finally:
        hook.remove()
    return torch.cat(found)


@torch.no_grad()
def rest(model: Classifier | ConvClassifier, layer: int, tokens: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
    """Logits [n, C] from the patch tokens [n, P, D] of a layer and those `before` them."""
    from unmask.models.vit import in_full_precision

    backbone = model.backbone
    if model.arch == "resnet":
        side = round(tokens.shape[1] ** 0.5)
        features = tokens.transpose(1, 2).unflatten(2, (side, side))
        return in_full_precision(backbone.forward_head, features)
    whole = torch.cat([prefix, tokens], 1) if model.prefix else tokens
    return in_full_precision(backbone.forward_head, backbone.norm(model.through(whole, start=layer)))


def importance(
    model: Classifier | ConvClassifier, layer: int, found: Factors, prefix: torch.Tensor, targets: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """What each image's target logit loses without each factor, float64 [N, K]; and the logits of U W, [N, C]."""
    losses, whole = [], []
    count = found.parts.shape[2]
    device = prefix.device
    for start in range(0, len(found.parts), observe.AT_ONCE):
        parts = found.parts[start : start + observe.AT_ONCE]
        before, goals = prefix[start : start + observe.AT_ONCE], targets[start : start + observe.AT_ONCE]

        def logits(kept: np.ndarray, before: torch.Tensor = before) -> torch.Tensor:
            return rest(model, layer, torch.from_numpy(found.tokens(kept)).to(device), before).double().cpu()

        full = logits(parts)
        whole.append(full)
        own = full.gather(1, goals[:, None])
        without = [
            logits(parts * (np.arange(count) != place).astype(np.float32)).gather(1, goals[:, None])
            for place in range(count)
        ]
        losses.append(own - torch.cat(without, 1))
    return torch.cat(losses).numpy(), torch.cat(whole).numpy()
