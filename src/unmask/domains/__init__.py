"""Domains: labelled image tasks whose evidence pixels are known. One plug-in per file; they return `Splits`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CONCEPT = "concepts/"  # before a concept's name in a split's file


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


@dataclass(frozen=True)
class Splits:
    """What a domain's `build` returns. `origin` goes into the card: where the pixels come from, under which licence."""

    classes: list[str]  # index = label
    train: Split
    val: Split
    test: Split
    unlabelled: np.ndarray  # uint8 [M, H, W, 3], further images for pretraining; M may be 0
    origin: dict[str, Any]
