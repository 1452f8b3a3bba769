"""Focus: in a mosaic of two images of the class and two of others, which share of the relevance is on the class's?"""

from __future__ import annotations

import numpy as np
import torch
from quantus import Focus

from unmask.case import Case, fingerprint
from unmask.errors import Skip
from unmask.quantus_bridge import COMMON, of_mosaics

META = {
    "category": "localisation",
    "direction": "higher",
    "bounds": [0.0, 1.0],
    "needs": ["masks", "explainer", "gallery"],
    "passes": {"forward": "0", "explanations": "mosaics"},
    "options": {"mosaics": 1},
    "ranges": {"mosaics": [1, None]},
    "quantus": "Focus",
    "undefined": "nothing is positive on a mosaic",
    "chance": "1/2",
    "citation": "Arias-Duart et al., Focus! Rating XAI Methods and Finding Biases, FUZZ-IEEE 2022",
}


def score(case: Case, mosaics: int) -> np.ndarray:
    """Positive attribution on the class's tiles over all positive attribution, mean over `mosaics`: float64 [N].

    In [0, 1]. A mosaic is a 2 x 2 grid in random order: the image, another of its class and two of other classes, each
    halved in size by averaging. The paper's mosaics are as large as four images; a vision transformer has one input
    size. Tiles are explained images with evidence that the model classifies right: a class that is the absence of
    something has nothing to focus on. A map that does not depend on the class scores 1/2, however well it finds
    evidence. NaN where nothing is positive on a mosaic. Raises `Skip` where no explained image is of another class.
    """
    metric = Focus(abs=False, normalise=True, **COMMON)
    draws = [case.rng("focus", fingerprint(image)) for image in case.images]
    return np.mean([_focus(metric, case, draws) for _ in range(mosaics)], axis=0)


def _focus(metric: Focus, case: Case, draws: list[np.random.Generator]) -> np.ndarray:
    """Of one mosaic for each image."""
    made = [_mosaic(case, row, rng) for row, rng in enumerate(draws)]
    images, masks, own = (np.stack(parts) for parts in zip(*made, strict=True))
    maps = case.explain(torch.from_numpy(images).to(case.images.device), case.targets, masks=masks)
    positive = np.maximum(maps, 0).astype(np.float64)
    return of_mosaics(metric, case, positive, own)


def _mosaic(case: Case, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mosaic of an image [3, H, W], its evidence [H, W], and which of its four tiles are of the image's class."""
    gallery, image, alike = case.gallery, case.images[row], case.gallery.targets == case.targets[row]
    others = torch.nonzero(~alike).flatten().tolist()
    if not others:
        raise Skip("a mosaic needs explained images of two classes, with evidence and classified right")
    partners = torch.nonzero(alike & (gallery.images != image).any((1, 2, 3))).flatten().tolist()
    rows = [*rng.choice(partners, min(1, len(partners))), *rng.choice(others, 2, replace=len(others) == 1)]
    tiles = [(image, case.masks[row], True)] * (4 - len(rows))  # twice, where it has no partner
    tiles += [(gallery.images[i], gallery.masks[i], bool(alike[i])) for i in rows]
    pixels, masks, own = zip(*(tiles[i] for i in rng.permutation(4)), strict=True)
    halves = [_halved(tile.cpu().numpy()).mean((-3, -1)) for tile in pixels]
    evidence = [_halved(mask & ours).any((-3, -1)) for mask, ours in zip(masks, own, strict=True)]
    return _grid(halves), _grid(evidence), np.array(own)


def _halved(tile: np.ndarray) -> np.ndarray:
    """[..., H, W] as [..., H / 2, 2, W / 2, 2]."""
    *front, height, width = tile.shape
    return tile.reshape(*front, height // 2, 2, width // 2, 2)


def _grid(tiles: list[np.ndarray]) -> np.ndarray:
    """Four tiles [..., h, w], row by row, as one picture [..., 2 h, 2 w]."""
    return np.concatenate([np.concatenate(tiles[:2], -1), np.concatenate(tiles[2:], -1)], -2)
