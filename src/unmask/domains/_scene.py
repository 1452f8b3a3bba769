"""Painting with exact masks: shapes are signed distances, a pixel's coverage follows from its distance to the edge.

Lengths and positions are in units of the image side, so a scene is the same at any size. Colours are in [0, 1].
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from unmask.domains import BACKGROUND


class Canvas:
    """A square picture, float32 [size, size, 3], with the pixel centres `x` (across) and `y` (down) in (0, 1).

    `marked` is the coverage [size, size] by what was marked with a name.
    `changed` holds the same picture with one factor changed, where a `backdrop` [size, size, 3] is given: without each
    kind of `object`, and with the objects on that backdrop. What an object hides is there when the object is not.
    With `bare`, objects are not painted at all: what is left is a backdrop.
    """

    def __init__(self, size: int, *, backdrop: np.ndarray | None = None, bare: bool = False):
        self.size = size
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.y, self.x = np.meshgrid(centres, centres, indexing="ij")
        self.pixels = np.zeros((size, size, 3), np.float32)
        self.marked: dict[str, np.ndarray] = {}
        self.changed: dict[str, np.ndarray] = {} if backdrop is None else {BACKGROUND: backdrop.copy()}
        self._bare, self._kind = bare, ""

    @contextmanager
    def object(self, kind: str) -> Iterator[None]:
        """What is painted inside the block belongs to an object of that kind."""
        if self.changed:
            self.changed.setdefault(kind, self.pixels.copy())
        self._kind = kind
        try:
            yield
        finally:
            self._kind = ""

    def _touched(self) -> list[np.ndarray]:
        """The pictures that a stroke of the brush goes onto: the draws are those of the factual one, `pixels`."""
        if self._bare and self._kind:
            return []
        absent = self._kind or BACKGROUND
        return [self.pixels, *(picture for kind, picture in self.changed.items() if kind != absent)]

    def at_least(self, radius: float, pixels: float = 0.8) -> float:
        """`radius`, but large enough that a disc of it covers a pixel centre wherever it lies."""
        return max(float(radius), pixels / self.size)

    def coverage(self, distance: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """The share of each pixel inside a shape (distance < 0); the edge is one pixel or `softness` wide."""
        return np.clip(0.5 - distance / max(1 / self.size, softness), 0, 1)

    def paint(self, coverage: np.ndarray, colour: object, alpha: float = 1.0) -> None:
        """Blend towards a colour (3 numbers, or a picture [size, size, 3])."""
        weight, colour = (coverage * alpha)[..., None], np.asarray(colour, np.float32)
        for picture in self._touched():
            picture += weight * (colour - picture)

    def multiply(self, coverage: np.ndarray, factor: object) -> None:
        """Stain: multiply by a factor per channel, so that the texture below stays."""
        stain = 1 + coverage[..., None] * (np.asarray(factor, np.float32) - 1)
        for picture in self._touched():
            picture *= stain

    def hide(self, coverage: np.ndarray) -> None:
        """Take what something opaque covers from the marks."""
        self.marked = {name: below * (1 - coverage) for name, below in self.marked.items()}

    def mark(self, name: str, coverage: np.ndarray) -> None:
        """Remember where an object is; painting it is another matter."""
        self.marked[name] = np.maximum(self.marked.get(name, 0.0), coverage)

    def disc(self, centre: tuple[float, float], radius: float) -> np.ndarray:
        """Distance to a disc around (y, x)."""
        return np.hypot(self.y - centre[0], self.x - centre[1]) - radius

    def box(self, centre: tuple[float, float], half: tuple[float, float], angle: float = 0.0) -> np.ndarray:
        """Distance (by the larger side) to a rectangle with half extents (down, across), turned by `angle` radians."""
        dy, dx = self.y - centre[0], self.x - centre[1]
        if angle:
            cos, sin = math.cos(angle), math.sin(angle)
            dy, dx = cos * dy - sin * dx, sin * dy + cos * dx
        return np.maximum(np.abs(dy) - half[0], np.abs(dx) - half[1])

    def polygon(self, centre: tuple[float, float], inner: float, sides: int, angle: float) -> np.ndarray:
        """Distance to a regular polygon with inscribed radius `inner`; the first side faces `angle` (0 = right)."""
        dy, dx = self.y - centre[0], self.x - centre[1]
        normals = [angle + 2 * math.pi * side / sides for side in range(sides)]
        return np.max([math.cos(a) * dx + math.sin(a) * dy for a in normals], axis=0) - inner

    def blob(
        self,
        centre: tuple[float, float],
        radius: float,
        rng: np.random.Generator,
        roughness: float = 0.2,
        stretch: float = 1.0,
    ) -> np.ndarray:
        """Distance (along the ray) to an irregular outline of mean radius `radius`, `stretch` times longer one way."""
        turn, longer = cmath.rect(1, -rng.uniform(0, 2 * math.pi)), math.sqrt(stretch)
        turned = ((self.x - centre[1]) + 1j * (self.y - centre[0])) * turn
        ray = turned.real / longer + 1j * turned.imag * longer
        length = np.abs(ray)
        direction = ray / np.maximum(length, 1e-6)
        outline, power = np.ones_like(length), direction
        for harmonic in range(2, 6):
            power = power * direction  # exp(i harmonic angle)
            wave = cmath.rect(rng.normal(0, roughness / harmonic), rng.uniform(0, 2 * math.pi))
            outline += (power * wave).real
        return length - radius * np.clip(outline, 0.5, 1.6)

    def curve(self, points: np.ndarray, half_width: float) -> np.ndarray:
        """Distance to a stroke through `points` [K, 2] (y, x)."""
        nearest = np.full_like(self.x, np.inf)
        for (y0, x0), (y1, x1) in itertools.pairwise(points.tolist()):
            ey, ex = y1 - y0, x1 - x0
            py, px = self.y - y0, self.x - x0
            share = np.clip((py * ey + px * ex) / max(ey * ey + ex * ex, 1e-12), 0, 1)
            nearest = np.minimum(nearest, np.hypot(py - share * ey, px - share * ex))
        return nearest - half_width


def wander(
    rng: np.random.Generator, middle: tuple[float, float], length: float, bend: float, points: int = 7
) -> np.ndarray:
    """Points [points, 2] of a bent line of a given length around its middle."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, points - 1))
    steps = np.stack([np.sin(heading), np.cos(heading)], 1) * length / (points - 1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    return path - path.mean(0) + np.asarray(middle)


def place(rng: np.random.Generator, margin: float) -> tuple[float, float]:
    """A position (y, x) at least `margin` from the border."""
    y, x = rng.uniform(margin, 1 - margin, 2)
    return float(y), float(x)


def finish(canvas: Canvas, painted: np.ndarray, rng: np.random.Generator, difficulty: float) -> np.ndarray:
    """Light, camera and noise over a picture [size, size, 3] of a canvas, pixel by pixel: uint8 [size, size, 3].

    No blur: a pixel depends on itself only, so evidence changes nothing outside its own outline.
    """
    slope = rng.uniform(-1, 1, 2) * (0.15 + 0.3 * difficulty)
    light = 1 + float(slope[0]) * (canvas.y - 0.5) + float(slope[1]) * (canvas.x - 0.5)
    gain = (rng.uniform(0.8, 1.15) * rng.uniform(0.94, 1.06, 3)).astype(np.float32)
    pixels = np.clip(painted * light[..., None] * gain, 0, 1) ** rng.uniform(0.85, 1.2)
    noise = rng.standard_normal(pixels.shape, np.float32) * (rng.uniform(0.3, 1) * (0.01 + 0.05 * difficulty))
    return np.round(np.clip(pixels + noise, 0, 1) * 255).astype(np.uint8)
