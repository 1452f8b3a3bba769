"""How the encoders learned: the losses of pretraining and of fine-tuning, epoch by epoch, of all encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.figures import style
from unmask.figures.inside import looks
from unmask.figures.source import Picture, Source
from unmask.files import read_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDS = ("accuracy",)
ACROSS = 4  # panels beside one another
# What a method minimises, by what it is to predict: losses of one unit share a panel.
LOSSES = {
    ("simmim", "pixels"): "SimMIM\nL1 of masked pixels",
    ("simmim", "normalised"): "SimMIM\nL1 of normalised pixels",
    ("simmim_siamese", "pixels"): "SimMIM with a contrast\nL1 + weighted InfoNCE",
    ("simmim_siamese", "normalised"): "SimMIM with a contrast\nnormalised L1 + weighted InfoNCE",
    ("mae", "pixels"): "MAE\nMSE of masked pixels",
    ("mae", "normalised"): "MAE\nMSE of normalised patches",
    ("supervised", None): "pretraining on labels\ncross-entropy",
}
UNSEEN = ("held_out_loss", "val_loss")  # in pretraining, in fine-tuning


@dataclass(frozen=True)
class Panel:
    """Losses of one unit: the encoders' histories, one per model (pretraining seed, fine-tuning seed)."""

    title: str
    histories: dict[str, list[pd.DataFrame]]


def pictures(source: Source) -> Iterator[Picture]:
    """One figure, where the run's histories are there."""
    found = [panel for panel in (*_pretraining(source), *_finetuning(source)) if panel.histories]
    if found:
        yield Picture(
            "losses",
            "The losses of pretraining and of fine-tuning by epoch, on what is trained on and on held-out images",
            partial(draw, found, looks(source)),
        )


def _pretraining(source: Source) -> Iterator[Panel]:
    """A panel per loss."""
    config, units = source.config, {}
    for name in config.pretrained:
        spec = config["encoders"][name]
        loss = spec["method"], spec.get("target")
        if loss in LOSSES:
            units.setdefault(LOSSES[loss], []).append(name)
    for title, names in units.items():
        folders = {name: [source.layout.encoder(name, seed) for seed in config["seeds"]["pretrain"]] for name in names}
        yield Panel(title, _read(folders))


def _finetuning(source: Source) -> Iterator[Panel]:
    """A panel per domain."""
    for domain in source.config["domains"]:
        folders: dict[str, list[Path]] = {}
        for model in source.config.models:
            if model.domain == domain:
                folders.setdefault(model.encoder, []).append(source.layout.model(model))
        yield Panel(f"fine-tuning, {style.readable(domain)}\ncross-entropy", _read(folders))


def _read(folders: dict[str, list[Path]]) -> dict[str, list[pd.DataFrame]]:
    found = {}
    for encoder, places in folders.items():
        paths = [place / "history.csv" for place in places]
        tables = [read_table(path) for path in paths if path.exists()]
        if tables:
            found[encoder] = tables
    return found


def draw(panels: list[Panel], looks: dict[str, dict[str, Any]]) -> Figure:
    """A panel per loss; of several seeds the mean, in the band of their range."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(min(style.PAGE, max(style.COLUMN, 1.8 * across)), 0.8 + 1.7 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for encoder, tables in panel.histories.items():
            _curves(axes, tables, looks[encoder])
        axes.set_title(panel.title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        style.small_panel(axes, False)
    shown = {name for panel in panels for name in panel.histories}
    handles = [
        Line2D([], [], label=style.readable(name), **{**look, "linestyle": "-"})
        for name, look in looks.items()
        if name in shown
    ]
    handles += [
        Line2D([], [], color="#000000", linewidth=1, linestyle=line, label=label)
        for label, line in (("trained on", "-"), ("held out", (0, (3, 1.5))))
    ]
    style.legend(figure, handles)
    several = any(len(tables) > 1 for panel in panels for tables in panel.histories.values())
    bands = "; of several seeds the mean, in the band of their range" if several else ""
    style.headline(figure, f"Losses by epoch{bands}. Losses of different units have panels of their own.")
    return figure


def _curves(axes: Axes, tables: Iterable[pd.DataFrame], look: dict[str, Any]) -> None:
    """An encoder's loss in training and on what it was not trained on."""
    import pandas as pd

    rows = pd.concat(tables).groupby("epoch")
    for column in ("loss", *UNSEEN):
        if column not in rows.obj:
            continue
        curve = rows[column].agg(["mean", "min", "max"])
        line = "-" if column == "loss" else (0, (3, 1.5))
        every = max(1, len(curve) // 5)
        axes.plot(curve.index, curve["mean"], **{**look, "linestyle": line}, markevery=every, linewidth=1)
        axes.fill_between(curve.index, curve["min"], curve["max"], color=look["color"], alpha=0.12, linewidth=0)
