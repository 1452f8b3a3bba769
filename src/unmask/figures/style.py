"""One look for all figures: legible at column width, safe for colour-blind readers, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def name_lines(name: str, width: int = 12) -> str:
    """A plug-in's name for a narrow column: broken at `_` and `@`, underscores as spaces."""
    lines = [""]
    for word in name.replace("@", " @").replace("_", " ").split():
        fits = len(lines[-1]) + len(word) < width
        lines[-1:] = [f"{lines[-1]} {word}".strip()] if fits else [lines[-1], word]
    return "\n".join(line for line in lines if line)


def readable(name: str) -> str:
    """A plug-in's name as words."""
    return name.replace("_", " ").replace("@", " @ ")


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
    for suffix, tags in metadata:
        path = stem.with_name(stem.name + suffix)
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=dpi, metadata=tags)
        paths.append(path)
    return paths
