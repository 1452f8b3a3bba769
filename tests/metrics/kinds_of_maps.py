"""Maps of the kinds that explainers make, and the classes that a model predicts for the cases' images."""

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
    return make_case(
        model, maps_of(kind, seed), removal=removal, seed=100 + seed, **{"targets": predicted(model), **changes}
    )
