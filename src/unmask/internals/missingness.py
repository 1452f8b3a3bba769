"""What happens to a model's answers as more and more of an image is removed, whatever it shows: missingness bias.

Random subsets of the patches are removed by one removal operator. An operator that leads off the data the model knows
changes predictions, pulls them to one class and moves the features, faster than the loss of content demands; the
operators are compared on the same subsets. Jain et al., Missingness Bias in Model Debugging, ICLR 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from unmask.device import batch_size

if TYPE_CHECKING:
    import numpy as np

    from unmask.models.classifier import Classifier, ConvClassifier
    from unmask.removals import Removal

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 0.9)


def counts(patches: int) -> list[int]:
    """How many patches each of `FRACTIONS` removes; never all of them."""
    return [min(patches - 1, round(fraction * patches)) for fraction in FRACTIONS]


def subsets(generator: np.random.Generator, images: int, repeats: int, grid: tuple[int, int]) -> torch.Tensor:
    """Random subsets to keep: bool [images, fractions, repeats, gh, gw].

    A larger fraction removes what a smaller one does, and more.
    """
    height, width = grid
    order = generator.random((images, 1, repeats, height * width)).argsort(-1).argsort(-1)
    keep = torch.from_numpy(order) >= torch.tensor(counts(height * width))[:, None, None]
    return keep.unflatten(-1, (height, width))


@torch.no_grad()
def answers(
    model: Classifier | ConvClassifier, removal: Removal | None, images: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities float64 [N, K, C] and penultimate features [N, K, D] of K subsets, `keep` bool [N, K, gh, gw].

    The penultimate features are what the last linear layer reads. Without a removal, of the images themselves: K = 1.
    """
    head = model.backbone.fc if model.arch == "resnet" else model.backbone.head
    subsets = keep.shape[1] if removal else 1
    at_once = max(1, batch_size(images.device) // subsets)
    features: list[torch.Tensor] = []
    logits = []
    handle = head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    try:
        for some, kept in zip(images.split(at_once), keep.split(at_once), strict=True):
            logits.append(model(removal.remove(some, kept.to(some.device)) if removal else some))
    finally:
        handle.remove()
    shape = (len(images), subsets)
    return (
        torch.cat(logits).double().softmax(1).unflatten(0, shape).cpu(),
        torch.cat(features).double().unflatten(0, shape).cpu(),
    )


def prediction_entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """How undecided an answer is, [...] in [0, 1]: `-sum_c p_c log p_c / log C` of probabilities [..., C]."""
    return torch.special.entr(probabilities).sum(-1) / _log(probabilities.shape[-1])


def class_entropy(predictions: torch.Tensor, classes: int) -> torch.Tensor:
    """How evenly predictions spread over the classes: the mean of these values [N, R] is `-sum_c q_c log q_c / log C`.

    q_c is the share of all `predictions` int64 [N, R] that are c. 1 = all classes alike, 0 = everything is taken for
    one class. Jain et al., ICLR 2022. An image's value is its influence, how rare its prediction is:
    `-log q_c / log C`.
    """
    shares = torch.bincount(predictions.flatten(), minlength=classes).double() / predictions.numel()
    return -shares[predictions].log() / _log(classes)


def unchanged(predictions: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Whether the prediction [N, ...] is still that of the whole image [N]: 1 or 0. Jain et al., ICLR 2022."""
    return (predictions == whole.reshape(-1, *[1] * (predictions.dim() - 1))).double()


def feature_distance(features: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """How far the features [N, R, D] moved, relative to their length: `||f(x_S) - f(x)|| / ||f(x)||`, `whole` [N, D].

    Representation shift under masking, as in Crabbe & van der Schaar, Label-Free Explainability for Unsupervised
    Models, ICML 2022.
    """
    whole = whole.unsqueeze(1)
    return (features - whole).norm(dim=-1) / whole.norm(dim=-1).clamp(min=1e-300)


def measures(
    probabilities: torch.Tensor,
    features: torch.Tensor,
    whole_probabilities: torch.Tensor,
    whole_features: torch.Tensor,
    labels: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Every quantity of one operator at one fraction, means over an image's R subsets: float64 [N] each.

    Probabilities [N, R, C] and features [N, R, D] of the subsets, [N, C] and [N, D] of the whole images, labels [N]
    (None = no accuracy).
    """
    predictions = probabilities.argmax(-1)
    values = {
        "prediction_entropy": prediction_entropy(probabilities),
        "class_entropy": class_entropy(predictions, probabilities.shape[-1]),
        "unchanged_prediction": unchanged(predictions, whole_probabilities.argmax(-1)),
        "feature_distance": feature_distance(features, whole_features),
    }
    if labels is not None:
        values["accuracy"] = unchanged(predictions, labels)
    return {name: value.mean(1) for name, value in values.items()}


def _log(count: int) -> float:
    return float(torch.tensor(float(count), dtype=torch.float64).log())
