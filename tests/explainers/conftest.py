"""Models small enough to compute by hand or to train in a second."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from unmask import contract, explainers, registry, removals
from unmask.config import ExplainerSpec
from unmask.models.vit import Classifier, Normalise

SIZE, PATCH, GRID = 32, 8, 4
torch.set_num_threads(1)  # as the stages run on a CPU


class Linear(nn.Module):
    """Logits that are linear in the pixels: `weight` [classes, 3, H, W]."""

    arch, pooling, prefix, grid, patch, mask_token = "vit", "avg", 0, (GRID, GRID), PATCH, None
    pretraining = None

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.normalise = Normalise()
        self.register_buffer("weight", weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weight)


def _vit(pooling: str, classes: int = 3, **given) -> Classifier:
    torch.manual_seed(0)
    shape = {"width": 32, "depth": 2, "heads": 2, **given}
    return Classifier(size=SIZE, patch=PATCH, classes=classes, pooling=pooling, **shape)


def _planted(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Grey noise with a red (class 0), green (class 1) or no (class 2) patch that decides, and a blue distractor.

    Without class 2, "no red" would do for green, and the green patch would be no evidence.
    """
    images = 0.5 + 0.1 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    places = torch.rand(count, GRID * GRID, generator=generator).topk(2).indices
    for image, label, (planted, distractor) in zip(images, labels.tolist(), places.tolist(), strict=True):
        for channel, place in ((label, planted), (2, distractor))[label == 2 :]:
            row, column = place // GRID * PATCH, place % GRID * PATCH
            image[channel, row : row + PATCH, column : column + PATCH] += 0.4
    return images.clamp(0, 1), labels, places[:, 0]


@cache
def _trained(pooling: str) -> Classifier:
    model, generator = _vit(pooling).train(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(150):
        images, labels, _ = _planted(64, generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def linear():
    """`linear(weight)` makes a linear model."""
    return Linear


@pytest.fixture(scope="session")
def vit():
    """`vit(pooling)` makes a tiny transformer with fixed random weights, as loaded from a checkpoint."""
    return lambda pooling, **given: _vit(pooling, **given).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def network():
    """`network(kind)`, kind avg, token or resnet: a tiny model with all that may stand beside."""
    return contract.network


@pytest.fixture(scope="session")
def trained():
    """`trained(pooling)` gives a transformer that reads the planted patch; not to be changed."""
    return _trained


@pytest.fixture(scope="session")
def planted():
    """`planted(count, generator)` gives images, labels, and the patch that decides."""
    return _planted


@pytest.fixture(scope="session")
def explain():
    """`explain(name, model, images, targets, seed=0, evidence=None, references=None, **options)` runs an embedded one.

    Six random images stand in for `references` where none are given.
    """

    def run(name, model, images, targets, seed=0, evidence=None, removal=None, references=None, **options):
        plugin = registry.find("explainers", name)
        removal = removal or plugin.meta.get("removal")
        bound = removals.bind(registry.find("removals", removal), model) if removal else None
        if references is None:
            references = torch.rand(6, *images.shape[1:], generator=torch.Generator().manual_seed(3))
        spec = ExplainerSpec(name, plugin, removal, {**plugin.options, **options})
        call = explainers.bind(spec, model, bound, references)
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        return call(images, targets, generator, evidence)

    return run
