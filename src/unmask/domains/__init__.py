"""Domains: labelled image tasks whose evidence pixels are known. One plug-in per file; they return `Splits`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CONCEPT = "concepts/"  # before a concept's name in a split's file
EVIDENCE, TAG = "evidence", "tag"  # the factors that speak for a class, rightly and as a shortcut
BACKGROUND = "background"  # the factor that is everything but the objects
NO_FACTORS = "the domain's images cannot be made again with a factor changed"


@dataclass(frozen=True)
class Intervention:
    """What the images of a split would be with one factor changed and all else the same.

    images   uint8 [N, H, W, 3]; equal to the image itself where that has nothing of the factor
    classes  int64 [N]: the class that the factor speaks for in an image, -1 for none; None for one that never does
    """

    images: np.ndarray
    classes: np.ndarray | None = None


@dataclass(frozen=True)
class Split:
    """The labelled images of one split; images of one group are never in two splits."""

    images: np.ndarray  # uint8 [N, H, W, 3], RGB
    labels: np.ndarray  # int64 [N]
    masks: np.ndarray  # bool [N, H, W], evidence; all False where an image has none
    shortcut: np.ndarray  # bool [N, H, W], pixels of the planted tag; all False without one
    ids: list[str]
    groups: list[str]
    # Kinds of objects that decide nothing, by name: bool [N, H, W], where they are seen; not on evidence or tag.
    concepts: dict[str, np.ndarray] = field(default_factory=dict)
    # By factor, where the images can be made again with one changed; the stages read those of the test split.
    interventions: dict[str, Intervention] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """What a domain's `build` returns. `origin` goes into the card: where the pixels come from, under which licence."""

    classes: list[str]  # index = label
    train: Split
    val: Split
    test: Split
    unlabelled: np.ndarray  # uint8 [M, H, W, 3], further images for pretraining; M may be 0
    origin: dict[str, Any]
