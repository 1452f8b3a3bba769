"""Maps of the kinds that explainers make, and the classes that a model predicts for the cases' images."""

import copy

import numpy as np
import torch
from planted_cases import SIZE, images, make_case

GRID = (4, 4)
COUNT = 5
REMOVALS = ["zero", "mean", "blur", "mask_token", "noisy_linear"]


def maps_of(kind, seed):
    """float64 [COUNT, h, w]: random in [0, 1], signed, one-hot, with ties (three values), or signed on pixels."""
    rng = np.random.default_rng(seed)
    if kind == "one-hot":
        maps = np.zeros((COUNT, 16))
        maps[np.arange(COUNT), rng.permutation(16)[:COUNT]] = 1
        return maps.reshape(COUNT, *GRID)
    if kind == "ties":
        return rng.integers(0, 3, (COUNT, *GRID)).astype(float)
    if kind == "random":
        return rng.random((COUNT, *GRID))
    return rng.normal(size=(COUNT, *GRID) if kind == "signed" else (COUNT, SIZE, SIZE))


KINDS = ["random", "signed", "one-hot", "ties", "pixels"]


def predicted(model):
    with torch.no_grad():
        return model(images(COUNT)).argmax(1)


def case_of(model, kind, seed, removal, **changes):
    """A case whose targets are the model's predictions."""
    given = {"maps": maps_of(kind, seed), "targets": predicted(model), "seed": 100 + seed, **changes}
    return make_case(model, removal=removal, **given)


def fickle(model):
    """A copy of a classifier whose prediction changes as patches go: no class is ahead by itself."""
    model = copy.deepcopy(model)
    present = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    halves = images(64, 1) * present.repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.no_grad():
        model.backbone.head.bias -= model(halves).mean(0)
    return model
