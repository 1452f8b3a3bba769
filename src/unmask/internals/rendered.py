"""Concepts that are not objects: the textures of an embedded domain's photographs and the colours of its signs.

They are shown by images made for this: crops of the photographs, equal in mean and contrast, and scenes without a sign
in which a disc is painted. Each is held against the others of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unmask import registry
from unmask.errors import UserError

if TYPE_CHECKING:
    from unmask.domains._proxy import Painter

EACH = 40  # images of each
CONTRAST = 0.1  # standard deviation of a texture's grey values
COLOURED = "driving"  # the domain whose classes have colours


@dataclass(frozen=True)
class Shown:
    """Images uint8 [N, H, W, 3] that show concepts of a kind, int64 [N] which of `names`.

    A single name is held against training images, several against each other.
    """

    kind: str
    names: tuple[str, ...]
    images: np.ndarray
    which: np.ndarray


def rendered(card: dict[str, Any], size: int, rng: Callable[..., np.random.Generator]) -> list[Shown]:
    """Images of the textures and colours of a domain, from its card; none of a domain that is not an embedded one."""
    try:
        plugin = registry.find("domains", str(card.get("plugin")))
    except UserError:  # the user's own
        return []
    painter = getattr(plugin.load(), "PAINTER", None)
    found = []
    if painter is not None and len(painter.textures) > 1:
        found.append(textures(painter.textures, size, rng))
    if painter is not None and plugin.id == COLOURED:
        found.append(colours(painter, card["options"]["difficulty"], size, rng))
    return found


def textures(names: tuple[str, ...], size: int, rng: Callable[..., np.random.Generator]) -> Shown:
    """Turned crops of the photographs in grey, as large as the domains take them."""
    from unmask.domains._textures import sample

    centres = (np.arange(size) + 0.5) / size - 0.5
    dy, dx = np.meshgrid(centres, centres, indexing="ij")
    images = []
    for name in names:
        for i in range(EACH):
            draw = rng("texture", name, i)
            side, turn, (y, x) = draw.uniform(0.3, 0.6), draw.uniform(0, 2 * np.pi), draw.uniform(0, 2, 2)
            down = y + side * (np.cos(turn) * dy + np.sin(turn) * dx)
            across = x + side * (np.cos(turn) * dx - np.sin(turn) * dy)
            grain = sample(name, down, across, side / size).mean(-1)
            grain = 0.5 + (grain - grain.mean()) / (grain.std() + 1e-6) * CONTRAST
            images.append(np.repeat(np.round(np.clip(grain, 0, 1) * 255).astype(np.uint8)[..., None], 3, 2))
    return Shown("texture", names, np.stack(images), np.repeat(np.arange(len(names)), EACH))


def colours(painter: Painter, difficulty: float, size: int, rng: Callable[..., np.random.Generator]) -> Shown:
    """Road scenes without a sign but with a disc in a sign's colour, the same scenes for every colour."""
    from unmask.domains._scene import Canvas, finish
    from unmask.domains.driving import BLUE, RED, WHITE

    paints = {"red": RED, "white": WHITE, "blue": BLUE}
    images = []
    for colour in paints.values():
        for i in range(EACH):
            canvas, draw = Canvas(size), rng("colour", i)
            painter.background(canvas, draw, difficulty)
            at = float(draw.uniform(0.2, 0.62)), float(draw.uniform(0.16, 0.84))
            canvas.paint(canvas.coverage(canvas.disc(at, draw.uniform(0.11, 0.17))), colour)
            images.append(finish(canvas, canvas.pixels, draw, difficulty))
    return Shown("colour", tuple(paints), np.stack(images), np.repeat(np.arange(len(paints)), EACH))
