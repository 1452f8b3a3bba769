"""One look for all figures: legible at column width, safe for colour-blind readers, the same bytes every time."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

COLUMN, PAGE = 3.5, 7.16  # inches: the widths of one and of two columns in a conference paper
# Okabe and Ito (2008), Color Universal Design; black is kept for text, the yellow is too light for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FAMILIES = {
    "gradient": PALETTE[0],
    "cam": PALETTE[4],
    "attention": PALETTE[2],
    "relevance": PALETTE[3],
    "perturbation": PALETTE[1],
    "mim": PALETTE[5],
    "control": "#777777",
}
MARKERS = ("o", "s", "^", "D", "v", "P")
FAMILY_MARKERS = dict(zip(FAMILIES, ("o", "^", "D", "v", "s", "P", "s"), strict=True))
CONTROL = FAMILIES["control"]
LONGEST = 30  # characters of a name: a longer one would leave no room for the picture
SIGNED, SEQUENTIAL = "RdBu_r", "inferno"
_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "svg.hashsalt": "unmask",
    "text.usetex": False,
    "text.parse_math": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw with this look inside the block, whatever the user's matplotlibrc says; never opens a window."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.use("agg")
        matplotlib.rcParams.update(_RC)
        yield


def family_colour(family: str) -> str:
    """The colour of an explainer family; black for one we do not know."""
    return FAMILIES.get(family, "#000000")


def family_look(family: str) -> dict[str, object]:
    """Colour and marker of a family, for `plot`: a family is told by its shape too, a control by being hollow."""
    colour = family_colour(family)
    return {
        "color": colour,
        "marker": FAMILY_MARKERS.get(family, "X"),
        "markersize": 3.5,
        "markerfacecolor": "#FFFFFF" if family == "control" else colour,
        "markeredgewidth": 0.9,
    }


def family_handles(families: Iterable[str]) -> list[Line2D]:
    """A legend's entries, in the order of `FAMILIES`, unknown families last."""
    from matplotlib.lines import Line2D

    known = list(FAMILIES)
    ordered = sorted(set(families), key=lambda f: (known.index(f) if f in known else len(known), f))
    return [Line2D([], [], linewidth=1, label=family, **family_look(family)) for family in ordered]


def legend(figure: Figure, handles: list[Line2D], place: str = "outside lower center") -> None:
    """A legend below the drawing: in one line where it fits, else in as many columns as have room."""
    room = figure.get_size_inches()[0] - 0.1
    widths = [inches([handle.get_label()], 6.5) + 0.45 for handle in handles]  # with the sample and the gap
    columns = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(handles=handles, loc=place, ncols=columns, frameon=False, handlelength=1.6, columnspacing=1.4)


def mark_controls(labels: Iterable[Text], names: Iterable[str], controls: set[str]) -> None:
    """Set the controls among tick labels in grey italics."""
    for label, name in zip(labels, names, strict=True):
        if name in controls:
            label.set(color="#666666", style="italic")


def headline(figure: Figure, text: str) -> None:
    """A figure's title, flush left, in as many lines as it needs."""
    width, _ = figure.get_size_inches()
    figure.suptitle("\n".join(lines(text, width)), x=0.005, ha="left", fontsize=7.5)


def lines(text: str, width: float) -> list[str]:
    """The lines of a title in a figure of that width in inches; a line takes .13 inches."""
    return textwrap.wrap(text, int(width / 0.062))


def inches(texts: Iterable[str], size: float) -> float:
    """How wide the widest of some texts is at a font size in points, with room for the hinting of a PNG's letters."""
    return max((_width(text) for text in texts if text), default=0.0) * 1.04 * size / 72


@cache
def _width(text: str) -> float:
    """A text's width in units of its font size."""
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=1).get_extents().x1


def name_lines(name: str, width: int = 12) -> str:
    """A plug-in's name for a narrow column: broken at `_` and `@`, underscores as spaces."""
    lines = [""]
    for word in name.replace("@", " @").replace("_", " ").split():
        fits = len(lines[-1]) + len(word) < width
        lines[-1:] = [f"{lines[-1]} {word}".strip()] if fits else [lines[-1], word]
    return "\n".join(line for line in lines if line)


def readable(name: str, longest: int = LONGEST) -> str:
    """A plug-in's name as words; beyond `longest` characters the middle goes."""
    words = name.replace("_", " ").replace("@", " @ ")
    if len(words) <= longest:
        return words
    head = (longest - 1) * 2 // 3
    return f"{words[:head]}\N{HORIZONTAL ELLIPSIS}{words[head + 1 - longest :]}"


def small_panel(axes: Axes, empty: bool) -> None:
    """A few horizontal lines behind what is drawn; where nothing is, words that say so."""
    if empty:
        axes.text(0.5, 0.5, "not defined", ha="center", va="center", color="#777777", transform=axes.transAxes)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=4)


def better(direction: str) -> str:
    """Which way is good, for an axis label."""
    return "higher is better \N{RIGHTWARDS ARROW}" if direction == "higher" else "\N{LEFTWARDS ARROW} lower is better"


def save(figure: Figure, stem: Path, dpi: int = 200) -> list[Path]:
    """Write `stem`.pdf and `stem`.png without dates or versions in them; returns both paths."""
    metadata: Sequence[tuple[str, dict[str, None]]] = (
        (".pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        (".png", {"Software": None}),
    )
    paths = []
    if figure.get_layout_engine() is not None:
        # Once for both files: it takes as long as drawing.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for suffix, tags in metadata:
        path = stem.with_name(stem.name + suffix)
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=dpi, metadata=tags)
        paths.append(path)
    return paths
