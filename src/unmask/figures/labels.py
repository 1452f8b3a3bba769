"""Names beside points without overlaps: each label takes the free place nearest to its point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

REACH = (6, 9, 13, 18, 25, 34, 45, 58, 74, 92)  # points of distance from the point to the label's nearest edge
ANGLES = 24
LINE = 8  # points: a label farther away gets a line to its point
MARKER, GAP = 3, 1  # points: half a marker's side, and what is left free around a label
ROUNDS = 4

Segment = tuple[float, float, float, float]  # x, y of one end and of the other


def place(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colours: Sequence[str],
    lines: Sequence[Segment] = (),
    faint: Sequence[Segment] = (),
) -> None:
    """Write `texts` beside `points`, off horizontal or vertical `lines` and, where it can be, off `faint` ones.

    All in data coordinates; limits and size of `axes` must be final. Greedy in the order of crowding, then every label
    is placed again given the others, so the same points give the same places.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.figure
    renderer, scale = FigureCanvasAgg(figure).get_renderer(), figure.dpi / 72
    anchors = axes.transData.transform(np.asarray(points, float))
    markers = np.hstack([anchors - MARKER * scale, anchors + MARKER * scale])
    hard, soft = (_boxes(axes, segments, 0.5 * scale) for segments in (lines, faint))
    extent = axes.get_window_extent(renderer)
    frame = np.array([extent.x0, extent.y0, extent.x1, extent.y1]) + np.array([1, 1, -1, -1]) * MARKER * scale
    made = [
        axes.text(0, 0, text, fontsize=6, color=colour, ha="center", va="center_baseline", zorder=4)
        for text, colour in zip(texts, colours, strict=True)
    ]
    sizes = np.array([(box.width, box.height) for box in (text.get_window_extent(renderer) for text in made)])
    sizes += 2 * GAP * scale
    boxes = np.full((len(anchors), 4), np.nan)
    crowding = [-np.exp(-np.hypot(*(anchors - anchor).T) / (30 * scale)).sum() for anchor in anchors]
    for _ in range(ROUNDS):
        for i in np.argsort(crowding, kind="stable"):
            boxes[i] = np.nan
            others = np.delete(markers, i, axis=0)
            taken = np.vstack([boxes, markers, hard])
            boxes[i] = _best(anchors[i], sizes[i], taken, soft, np.vstack([boxes, others]), others, frame, scale)
    inverse = axes.transData.inverted()
    for text, box, anchor in zip(made, boxes, anchors, strict=True):
        text.set_position(inverse.transform((box[:2] + box[2:]) / 2))
        near = np.clip(anchor, box[:2] + GAP * scale, box[2:] - GAP * scale)
        if np.hypot(*(near - anchor)) > LINE * scale:
            x, y = inverse.transform([anchor, near]).T
            axes.plot(x, y, color="#999999", linewidth=0.4, zorder=2)


def _boxes(axes: Axes, segments: Sequence[Segment], half: float) -> np.ndarray:
    """Segments as boxes [K, 4] in pixels, `half` thick to each side."""
    import numpy as np

    ends = axes.transData.transform(np.asarray(segments, float).reshape(-1, 2)).reshape(-1, 2, 2)
    return np.hstack([ends.min(1) - half, ends.max(1) + half])


def _best(
    anchor: np.ndarray,
    size: np.ndarray,
    taken: np.ndarray,
    faint: np.ndarray,
    between: np.ndarray,
    others: np.ndarray,
    frame: np.ndarray,
    scale: float,
) -> np.ndarray:
    """The place (left, bottom, right, top) of a label of `size` in pixels: what overlaps least, then what is nearest.

    Boxes [K, 4] (NaN = none): `taken` must not be written on and `faint` had better not; what is `between` label and
    point should not be there; the markers of `others` should not be nearer; `frame` is not to be left.
    """
    import numpy as np

    angles = np.arange(ANGLES) * 2 * np.pi / ANGLES
    directions = np.stack([np.cos(angles), np.sin(angles)], 1).round(9)
    # From the point a direction's ray leaves; the label's own edge or corner that faces the point lies on it.
    facing = np.clip(directions * 2, -1, 1) * size / 2
    reach = np.array(REACH) * scale
    centres = (anchor + reach[:, None, None] * directions + facing).reshape(-1, 2)
    options = np.hstack([centres - size / 2, centres + size / 2])
    overlap = _overlap(options, taken)
    beyond = np.maximum(frame[:2] - options[:, :2], options[:, 2:] - frame[2:]).clip(min=0).sum(1)
    near = np.clip(anchor, options[:, :2], options[:, 2:])
    along = anchor + np.linspace(0.2, 1, 9)[:, None, None] * (near - anchor)
    crossed = ((along[:, :, None] > between[:, :2]) & (along[:, :, None] < between[:, 2:])).all(3).any(0).sum(1)
    centre = (others[:, :2] + others[:, 2:]) / 2
    apart = np.hypot(*np.moveaxis(np.clip(centre, options[:, None, :2], options[:, None, 2:]) - centre, 2, 0))
    rivals = (apart < np.hypot(*(near - anchor).T)[:, None]).sum(1)
    tilt = np.tile(np.abs(directions[:, 1]), len(reach))  # beside is easier to read than above or below
    cost = np.repeat(reach, ANGLES) * (1 + 0.3 * tilt) + 100 * beyond
    cost += (overlap > 0) * 400 * scale + overlap / scale
    cost += scale * (25 * crossed + 20 * (_overlap(options, faint) > 0) + 15 * rivals)
    return options[np.argmin(cost.round(6))]


def _overlap(options: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The area [O] that each of some boxes [O, 4] shares with others [K, 4] (NaN = none)."""
    import numpy as np

    common = np.minimum(options[:, None, 2:], taken[:, 2:]) - np.maximum(options[:, None, :2], taken[:, :2])
    area = np.nansum(np.prod(common.clip(min=0), axis=2), axis=1)
    return np.where(area > 1e-6, area, 0.0)
