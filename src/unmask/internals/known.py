"""Concepts whose pixels are known: evidence by class, what decides nothing, and the planted tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from unmask.domains import CONCEPT

if TYPE_CHECKING:
    import numpy as np


class Concept(NamedTuple):
    """What can be seen in images.

    `kind` is evidence (of the class `name`), distractor, tag, texture, colour, or folder (the user's).
    """

    kind: str
    name: str

    @property
    def words(self) -> str:
        """What it is called in figures and sentences."""
        return "shortcut tag" if self.kind == "tag" else self.name


def concepts(arrays: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> dict[Concept, np.ndarray]:
    """Where each concept is in the images of a split's file: bool [N, H, W]; those that no image shows are left out.

    `arrays` are of the images whose `labels` [N] are given.
    """
    found: dict[Concept, np.ndarray] = {}
    if "masks" in arrays:
        for label, name in enumerate(classes):
            found[Concept("evidence", name)] = arrays["masks"] & (labels == label)[:, None, None]
    for name, pixels in sorted(arrays.items()):
        if name.startswith(CONCEPT):
            found[Concept("distractor", name.removeprefix(CONCEPT))] = pixels
    if "shortcut" in arrays:
        found[Concept("tag", "tag")] = arrays["shortcut"]
    return {concept: pixels for concept, pixels in found.items() if pixels.any()}


def without_evidence(masks: Mapping[Concept, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Which images [N] are of a class that has no evidence: what images with evidence are held against."""
    import numpy as np

    shown = np.zeros(len(labels), bool)
    for concept, pixels in masks.items():
        if concept.kind == "evidence":
            shown |= pixels.any((1, 2))
    return ~np.isin(labels, np.unique(labels[shown]))
