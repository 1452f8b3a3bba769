"""Testing with concept activation vectors (TCAV): whether a layer represents a concept, and whether the decision
follows it.

Kim et al., Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation Vectors, ICML
2018. Of a layer we read the mean of its patch tokens, f. A concept activation vector v is the unit normal of the plane
by which logistic regression tells f of images with the concept from f of images without it, pointing to those with it.
The directional derivative of class k's logit for an image x is

    S(x) = d/de h_k(tokens + e v for every patch token) at e = 0 = (sum over the patch tokens of dh_k / dtoken) . v

and the TCAV score is the share of class k's images with S(x) > 0. Captum's TCAV is the same with planes in the space of
all tokens one after another (64 times as many dimensions as here, from a hundred images), and it keeps activations and
vectors in files named after the model, layer and concept, which it reads again whatever the model's weights have
become.
Here nothing is kept between two models: everything is computed in memory from the network that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from unmask.internals import observe

if TYPE_CHECKING:
    from unmask.models.classifier import Classifier, ConvClassifier

SIDE = 60  # images with the concept, and as many without it, that a vector is fitted to at most
PENALTY = 0.1  # inverse strength of the L2 penalty, on standardised features


@dataclass(frozen=True)
class Runs:
    """Vectors of T random halves of the images.

    vectors   float64 [T, D], of length 1
    accuracy  float64 [T], on images held out
    fitted, held   pairs of images in each
    """

    vectors: np.ndarray
    accuracy: np.ndarray
    fitted: int
    held: int


def chosen_layers(depth: int) -> list[int]:
    """The layers that are asked: the middle one and the last."""
    return sorted({max(1, depth // 2), depth})


class Space:
    """A layer's features of the training images, [N, D], standardised by their mean and deviation."""

    def __init__(self, features: np.ndarray):
        whole = np.asarray(features, np.float64)
        self.mean, self.scale = whole.mean(0), whole.std(0)
        self.scale[self.scale <= 1e-9 * max(1e-300, float(self.scale.max()))] = np.inf  # a dead unit says nothing
        self.features = self.standardised(whole)

    def standardised(self, features: np.ndarray) -> np.ndarray:
        """Other images' features on the same scale."""
        return (np.asarray(features, np.float64) - self.mean) / self.scale

    def vector(self, weights: np.ndarray) -> np.ndarray:
        """A plane's unit normal among the features as they are, from its weights among the standardised ones."""
        normal = weights / self.scale
        return normal / max(float(np.linalg.norm(normal)), 1e-300)


def pairs(
    shows: np.ndarray, lacks: np.ndarray, labels: np.ndarray | None, generator: np.random.Generator
) -> np.ndarray:
    """Images that show a concept beside as many that do not, in random order: int64 [n, 2] of the given rows.

    With `labels` both of a pair are of the same class, so that the concept is not mistaken for one.
    """
    if labels is None:
        count = min(len(shows), len(lacks))
        return np.stack([generator.permutation(rows)[:count] for rows in (shows, lacks)], 1)
    parts = [
        pairs(shows[labels[shows] == label], lacks[labels[lacks] == label], None, generator)
        for label in np.unique(labels[shows])
    ]
    return generator.permutation(np.concatenate(parts)) if parts else np.zeros((0, 2), np.int64)


def halves(count: int) -> tuple[int, int]:
    """How many of so many pairs are fitted to, and how many held out."""
    fitted = min(SIDE, count // 2)
    return fitted, min(SIDE, count - fitted)


def fit(space: Space, features: np.ndarray, draws: Sequence[np.ndarray]) -> Runs:
    """A vector for each draw of pairs [n, 2] of rows, with the concept and without it, of standardised features."""
    from sklearn.linear_model import LogisticRegression

    vectors, accuracy = [], []
    fitted, held = halves(min(map(len, draws)))
    for rows in draws:
        own, asked = rows[:fitted].T.ravel(), rows[fitted : fitted + held].T.ravel()
        plane = LogisticRegression(C=PENALTY, solver="newton-cholesky", max_iter=50)
        plane.fit(features[own], np.repeat([1, 0], fitted))
        accuracy.append(float(plane.score(features[asked], np.repeat([1, 0], held))))
        vectors.append(space.vector(plane.coef_[0]))
    return Runs(np.stack(vectors), np.array(accuracy), fitted, held)


def slopes(
    model: Classifier | ConvClassifier, images: torch.Tensor, targets: torch.Tensor, layers: Sequence[int]
) -> dict[int, np.ndarray]:
    """By layer the derivative of the target's logit to adding the same vector to every patch token: float64 [N, D].

    Images float32 [N, 3, H, W], targets int64 [N]. The pass back ends at the first of the layers.
    """
    modules = observe.layers(model)
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    for batch, goals in zip(observe.batches(images), observe.batches(targets), strict=True):
        kept: dict[int, torch.Tensor] = {}

        def keep(layer: int, output: torch.Tensor, kept: dict[int, torch.Tensor] = kept) -> torch.Tensor:
            kept[layer] = output if output.requires_grad else output.detach().requires_grad_()
            return kept[layer]

        handles = [
            modules[layer].register_forward_hook(lambda module, inputs, output, layer=layer: keep(layer, output))
            for layer in layers
        ]
        try:
            with torch.enable_grad():
                logits = model(batch).gather(1, goals.to(batch.device)[:, None]).sum()
                slopes = torch.autograd.grad(logits, [kept[layer] for layer in layers])
        finally:
            for handle in handles:
                handle.remove()
        for layer, slope in zip(layers, slopes, strict=True):
            found[layer].append(observe.patches(model, slope)[0].double().sum(1).cpu())
    return {layer: torch.cat(parts).numpy() for layer, parts in found.items()}


def derivatives(vectors: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Directional derivatives S, float64 [T, N], of slopes [N, D] along unit vectors [T, D]."""
    return vectors @ slopes.T
