"""What is known of the images of a split beside their labels: where the evidence is, the distractors and the tag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unmask.domains import CONCEPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(frozen=True)
class Scenes:
    """N images: uint8 [N, H, W, 3], labels int64 [N], the classes' names; evidence and tag bool [N, H, W], and so each
    kind of distractor by name. None where it is not known."""

    images: np.ndarray
    labels: np.ndarray | None
    classes: list[str]
    masks: np.ndarray | None = None
    tag: np.ndarray | None = None
    distractors: dict[str, np.ndarray] = field(default_factory=dict)


def scenes(arrays: dict[str, np.ndarray], rows: Sequence[int], classes: list[str]) -> Scenes:
    """Some rows of a split's arrays, as stage 1 wrote them."""
    chosen = list(rows)
    masks, tag = (arrays[name][chosen] if name in arrays else None for name in ("masks", "shortcut"))
    kinds = {
        name.removeprefix(CONCEPT): array[chosen] for name, array in sorted(arrays.items()) if name.startswith(CONCEPT)
    }
    return Scenes(arrays["images"][chosen], arrays["labels"][chosen], classes, masks, tag, kinds)
