"""Network Dissection: which single units of a layer mark the pixels of a known concept.

Bau et al., Network Dissection: Quantifying Interpretability of Deep Visual Representations, CVPR 2017. A unit is one
coordinate of a layer's output tokens (a channel of a convolution). Its activation map is binarised at the value that
a share `QUANTILE` of its activations over all positions of all images exceeds; a unit whose map overlaps a concept's
pixels by an IoU above `DETECTOR` is a detector of it.

A patch's activation stands for all of the patch's pixels (nearest neighbour): unlike a convolution's, a token is of its
patch, and nothing lies between two of them. Chance: the same masks laid over other images, so that whoever likes the
places where a concept tends to be is no detector of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from unmask.internals.known import Concept

QUANTILE, DETECTOR = 0.005, 0.04
PERMUTATIONS = 200
LEAST = 5  # images that must show a concept


@dataclass(frozen=True)
class Layer:
    """A layer's U units against C concepts on N images.

    iou         float64 [C, U]
    thresholds  float32 [U]
    best        int64 [C], the unit of the largest IoU
    counts      int64 [C, 2, N], pixels in that unit's and the concept's intersection and union, image by image
    chance      int64 [G, R] detectors of any concept of each group of `groups`, the masks shuffled R times
    chance_iou  float64 [C, R], the largest IoU then
    """

    iou: np.ndarray
    thresholds: np.ndarray
    best: np.ndarray
    counts: np.ndarray
    chance: np.ndarray
    chance_iou: np.ndarray


def groups(concepts: Sequence[Concept]) -> dict[tuple[str, str | None], list[int]]:
    """The concepts' places by (kind, name), and by (kind, None) those of all of a kind."""
    found: dict[tuple[str, str | None], list[int]] = {tuple(one): [i] for i, one in enumerate(concepts)}
    for i, one in enumerate(concepts):
        found.setdefault((one.kind, None), []).append(i)
    return found


def detectors(iou: np.ndarray, concepts: Sequence[Concept]) -> np.ndarray:
    """How many units detect any concept of each group, int64 [G, ...], from IoUs [C, U, ...]."""
    above = iou > DETECTOR
    return np.stack([above[places].any(0).sum(0) for places in groups(concepts).values()])


def cells(masks: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of masks bool [N, H, W] in each cell of a grid, float64 [N, gh * gw]; and how many pixels a cell has."""
    sides = []
    for count, size in zip(grid, masks.shape[1:], strict=True):
        belongs = np.zeros((count, size))
        belongs[np.arange(size) * count // size, np.arange(size)] = 1
        sides.append(belongs)
    rows, columns = sides
    inside = rows @ masks.astype(np.float64) @ columns.T
    return inside.reshape(len(masks), -1), np.outer(rows.sum(1), columns.sum(1)).ravel()


def dissect(
    tokens: torch.Tensor,
    grid: tuple[int, int],
    masks: dict[Concept, np.ndarray],
    generator: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Layer:
    """Hold the units of tokens float32 [N, gh * gw, U] against `masks`, bool [N, H, W] by concept."""
    from scipy.sparse import csr_matrix

    concepts, images = list(masks), len(tokens)
    active, thresholds = _active(tokens)
    parts = [cells(pixels, grid) for pixels in masks.values()]
    pixels, inside = parts[0][1], np.stack([part[0] for part in parts], -1)  # [P], [N, P, C]
    flat = csr_matrix(active.reshape(-1, active.shape[2]).T, dtype=np.float64)  # [U, N * P], one in 200 is not 0
    lit = flat @ np.tile(pixels, images)  # [U] pixels
    areas = inside.sum((0, 1))  # [C]

    def overlaps(order: np.ndarray) -> np.ndarray:
        common = (flat @ inside[order].reshape(-1, len(concepts))).T  # [C, U]
        return common / (lit + areas[:, None] - common)

    iou = overlaps(np.arange(images))
    best = iou.argmax(1)
    shuffled = [overlaps(generator.permutation(images)) for _ in range(permutations)]
    counts = []
    for place, unit in enumerate(best):
        own = active[:, :, unit]
        common = (own * inside[:, :, place]).sum(1)
        counts.append(np.stack([common, own @ pixels + inside[:, :, place].sum(1) - common]))
    return Layer(
        iou,
        thresholds,
        best,
        np.rint(np.stack(counts)).astype(np.int64),
        np.array([detectors(one, concepts) for one in shuffled], np.int64).reshape(-1, len(groups(concepts))).T,
        np.array([one.max(1) for one in shuffled]).reshape(-1, len(concepts)).T,
    )


def _active(tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens reach their unit's threshold, bool [N, P, U], and the thresholds [U].

    Where the threshold is the unit's least value, as of one that is mostly off, the tokens above it are active.
    """
    import torch

    flat = tokens.flatten(0, 1)
    beyond = max(1, int(QUANTILE * len(flat)))
    thresholds = flat.topk(beyond, dim=0).values[-1]
    active = torch.where(thresholds > flat.amin(0), tokens >= thresholds, tokens > thresholds)
    return active.cpu().numpy(), thresholds.float().cpu().numpy()
