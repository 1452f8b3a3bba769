"""Road scenes with a stop, a yield or a mandatory sign, or none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unmask.domains._proxy import Painter
from unmask.domains._proxy import build as build_proxy
from unmask.domains._scene import Canvas
from unmask.domains._textures import sample

if TYPE_CHECKING:
    from unmask.domains import Splits

META = {
    "summary": "road scenes: stop, yield, mandatory sign or none (rendered on CC0 photographs)",
    "options": {"train": 800, "val": 200, "test": 400, "unlabelled": 800, "difficulty": 0.25, "shortcut": 0.0},
    "ranges": {
        "train": [4, None],
        "val": [4, None],
        "test": [4, None],
        "unlabelled": [0, None],
        "difficulty": [0, 1],
        "shortcut": [0, 1],
    },
    "factors": 4,  # that can be changed: evidence, each kind of distractor, background
    "citation": "brick, gravel: CC0Textures, grass: DeviantArt, CC0 1.0, through scikit-image",
}
CLASSES = ("none", "stop", "yield", "mandatory")
CONCEPTS = ("house", "box")  # a box with its post
RED, WHITE, BLUE = (0.78, 0.12, 0.13), (0.93, 0.93, 0.92), (0.1, 0.28, 0.72)
SIGN_PAINTS, OTHER_PAINTS = (RED, WHITE, BLUE), ((0.85, 0.65, 0.15), (0.3, 0.3, 0.33), (0.5, 0.36, 0.24))


def background(canvas: Canvas, rng: np.random.Generator, difficulty: float) -> None:
    """Sky, verge, road and houses; boxes on posts stand about and decide nothing.

    The harder, the more boxes there are, and the more of them in the signs' colours: then only the shape decides.
    """
    horizon = rng.uniform(0.38, 0.52)
    _sky(canvas, rng, horizon, difficulty)
    _houses(canvas, rng, horizon)
    _ground(canvas, rng, horizon)
    for _ in range(rng.integers(1, 4 + round(3 * difficulty))):
        half = rng.uniform(0.025, 0.085, 2)
        at = (float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.05, 0.95)))
        if rng.random() < 0.5:
            _post(canvas, at, half[0], rng)
        paint = _paint(rng, difficulty) * rng.uniform(0.75, 1.05)
        tilt = rng.uniform(-0.25, 0.25)
        outer = canvas.coverage(canvas.box(at, tuple(half), tilt))
        with canvas.object("box"):
            canvas.paint(outer, paint, 0.95)
        canvas.hide(outer)
        canvas.mark("box", outer)
        if rng.random() < 0.5:  # a panel or window within, in another colour
            inner = canvas.coverage(canvas.box(at, tuple(half * rng.uniform(0.3, 0.75, 2)), tilt))
            with canvas.object("box"):
                canvas.paint(inner, _paint(rng, difficulty), 0.9)


def _paint(rng: np.random.Generator, difficulty: float) -> np.ndarray:
    """A box's colour: a sign's with a probability of the difficulty."""
    paints = SIGN_PAINTS if rng.random() < difficulty else OTHER_PAINTS
    return np.array(paints[rng.integers(len(paints))])


def evidence(canvas: Canvas, kind: int, rng: np.random.Generator, difficulty: float) -> np.ndarray:
    """The sign of class `kind` (its face, without the post); returns its coverage."""
    radius = (1.6 - 0.7 * difficulty) * rng.uniform(0.085, 0.14)
    at = (float(rng.uniform(0.2, 0.62)), float(rng.uniform(0.16, 0.84)))
    fade = 0.1 + 0.3 * difficulty * rng.random()  # old paint: less saturated
    grey = canvas.pixels.mean((0, 1)).mean()
    red, white, blue = (np.array(c) * (1 - fade) + fade * grey for c in (RED, WHITE, BLUE))
    tilt = rng.uniform(-0.15, 0.15)
    name = CLASSES[kind]
    if name == "stop":
        shape = canvas.polygon(at, radius, 8, tilt)
        canvas.paint(canvas.coverage(shape), white)
        canvas.paint(canvas.coverage(shape + 0.14 * radius), red)
        canvas.paint(canvas.coverage(canvas.box(at, (0.2 * radius, 0.62 * radius), -tilt)), white)
    elif name == "yield":
        shape = canvas.polygon(at, 0.68 * radius, 3, tilt - np.pi / 2)
        canvas.paint(canvas.coverage(shape), red)
        canvas.paint(canvas.coverage(shape + 0.3 * radius), white)
    else:
        shape = canvas.disc(at, radius)
        canvas.paint(canvas.coverage(shape), white)
        canvas.paint(canvas.coverage(shape + 0.16 * radius), blue)
        _arrow(canvas, at, radius, white, float(rng.choice([0, np.pi / 2, -np.pi / 2])) + tilt)
    return canvas.coverage(shape)


def _sky(canvas: Canvas, rng: np.random.Generator, horizon: float, difficulty: float) -> None:
    """Overcast, or the harder the bluer: a blue sky hides that a sign is blue."""
    top = (1 - difficulty) * np.array([0.66, 0.68, 0.7]) + difficulty * np.array([0.45, 0.6, 0.82])
    top *= rng.uniform(0.75, 1.1)
    low = np.array([0.78, 0.82, 0.86]) * rng.uniform(0.8, 1.1)
    share = np.clip(canvas.y / horizon, 0, 1)[..., None]
    canvas.pixels[:] = top * (1 - share) + low * share
    clouds = sample("gravel", canvas.y * 0.5 + rng.random(), canvas.x * 0.25 + rng.random(), 0.06)
    canvas.pixels *= 0.75 + 0.5 * clouds


def _houses(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    for _ in range(rng.integers(0, 4)):
        half = (float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.06, 0.16)))
        at = (horizon - half[0] + 0.02, float(rng.uniform(0, 1)))
        bricks = sample("brick", canvas.y * 1.5 + rng.random(), canvas.x * 1.5 + rng.random(), 1.5 / canvas.size)
        tint = np.array([0.95, 0.72, 0.6]) * rng.uniform(0.7, 1.25) * rng.uniform(0.85, 1.15, 3)
        house = canvas.coverage(canvas.box(at, half))
        with canvas.object("house"):
            canvas.paint(house, bricks * 1.3 * tint)
        canvas.hide(house)
        canvas.mark("house", house)


def _ground(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    depth = 0.18 / np.maximum(canvas.y - horizon + 0.06, 0.03)  # distance along the road, larger towards the horizon
    vanish = rng.uniform(0.3, 0.7)
    across = (canvas.x - vanish) * depth
    shift = rng.random(2)
    verge = sample("grass", depth * 0.6 + shift[0], across * 0.6 + shift[1], 1 / canvas.size)
    asphalt = sample("gravel", depth * 0.4 + shift[1], across * 0.4 + shift[0], 1 / canvas.size)
    below = canvas.coverage(horizon - canvas.y)
    canvas.hide(below)
    canvas.paint(below, (0.25 + verge) * np.array([0.55, 0.68, 0.3]) * rng.uniform(0.8, 1.3))
    bend, width = rng.uniform(-0.15, 0.15), rng.uniform(0.28, 0.42)
    off = across - bend / np.maximum(depth, 0.2)
    road = np.clip(0.5 - (np.abs(off) - width) / (depth / canvas.size), 0, 1) * below
    canvas.paint(road, (0.3 + 0.5 * asphalt) * np.array([0.74, 0.74, 0.77]) * rng.uniform(0.8, 1.2))
    dashes = np.mod(depth * 3 + shift[0], 1) < 0.5
    line = np.clip(0.5 - (np.abs(off) - 0.018) / (depth / canvas.size), 0, 1) * below * dashes
    canvas.paint(line, WHITE, 0.8)


def _post(canvas: Canvas, at: tuple[float, float], half: float, rng: np.random.Generator) -> None:
    """A post from the object down to the ground."""
    foot = rng.uniform(0.7, 0.95)
    middle, reach = (at[0] + half + foot) / 2, max(foot - at[0] - half, 0.01) / 2
    pole = canvas.coverage(canvas.box((middle, at[1]), (reach, 0.009)))
    with canvas.object("box"):
        canvas.paint(pole, (0.45, 0.45, 0.47), 0.9)
    canvas.hide(pole)
    canvas.mark("box", pole)


def _arrow(canvas: Canvas, at: tuple[float, float], radius: float, colour: np.ndarray, turn: float) -> None:
    """An arrow inside a disc; at turn 0 it points up."""
    up = np.array([-np.cos(turn), np.sin(turn)])
    tail, tip = np.asarray(at) - 0.6 * radius * up, np.asarray(at) + 0.55 * radius * up
    canvas.paint(canvas.coverage(canvas.curve(np.array([tail, tip]), 0.14 * radius)), colour)
    head = np.asarray(at) + 0.3 * radius * up
    canvas.paint(canvas.coverage(canvas.polygon(tuple(head), 0.24 * radius, 3, np.arctan2(-up[0], -up[1]))), colour)


PAINTER = Painter(CLASSES, ("brick", "grass", "gravel"), CONCEPTS, background, evidence)


def build(options: dict[str, Any], *, size: int, seed: int) -> Splits:
    """Render the domain; see `_proxy.build`."""
    return build_proxy(PAINTER, options, size=size, seed=seed)
