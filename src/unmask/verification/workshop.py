"""Cells of stages 4 and 5 computed again, beside the results and without a trace in them."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unmask import explain
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_arrays
from unmask.layout import Layout
from unmask.scoring import Work

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_GROUP = "again"
_READ = ("1_data", "2_pretrain", "3_finetune")  # what the two stages are computed from


@dataclass(frozen=True, order=True)
class Sampled:
    """A score cell of a model: an explainer, a metric, and the removal that the metric uses (None where none)."""

    model: ModelId
    explainer: str
    metric: str
    removal: str | None

    @property
    def asked(self) -> str:
        """The metric with its removal."""
        return self.metric + (f"@{self.removal}" if self.removal else "")

    @property
    def name(self) -> str:
        return f"{self.model.folder}  {self.explainer}  {self.asked}"


@dataclass(frozen=True)
class Recomputed:
    """A cell's rows as stage 5 makes them, and the explainer's maps (None where it made none)."""

    cell: Sampled
    rows: pd.DataFrame
    maps: np.ndarray | None


def require(config: Config, models: list[ModelId]) -> None:
    """Raises `UserError` where weights or data of the models are missing."""
    layout = Layout(config.results)
    needed = []
    for model in models:
        needed += [layout.model(model) / "model.safetensors", layout.domain(model.domain) / "test.safetensors"]
        if model.encoder in config.pretrained:
            needed.append(layout.encoder(model.encoder, model.pretrain_seed) / "encoder.safetensors")
    missing = list(dict.fromkeys(path for path in needed if not path.is_file()))
    if missing:
        more = f" (nor do {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]} does not exist{more}, and cells are recomputed from a run's weights and data; "
            f"run the benchmark with this config first, or put its 1_data, 2_pretrain and 3_finetune there"
        )


def recompute(config: Config, cells: list[Sampled]) -> Iterator[Recomputed]:
    """Explain and score again, model by model in the given order, with the stages' own code."""
    for model in dict.fromkeys(cell.model for cell in cells):
        with tempfile.TemporaryDirectory(prefix="unmask-verify-") as folder:
            yield from _of_model(config, model, [cell for cell in cells if cell.model == model], Path(folder))


def _of_model(config: Config, model: ModelId, cells: list[Sampled], folder: Path) -> Iterator[Recomputed]:
    for name in _READ:
        (folder / name).symlink_to((config.results / name).resolve(), target_is_directory=True)
    entries = list(dict.fromkeys(cell.explainer for cell in cells))
    # Neither the group nor the folder enters a seed, a map or a score.
    section = {**config["explain"], "groups": {_GROUP: entries}}
    scoring = {**config["score"], "judge": {**config["score"]["judge"], "explainers": []}}  # nothing is judged here
    again = Config({**config.data, "results": str(folder), "explain": section, "score": scoring})
    seeds = {"pretrain_seed": model.pretrain_seed, "finetune_seed": model.finetune_seed}
    with contextlib.redirect_stdout(io.StringIO()):
        explain.run(again, domain=model.domain, encoder=model.encoder, **seeds, group=_GROUP)
        work = Work(again, model, _GROUP)
    for entry in entries:
        file = work.entry(entry)["file"]
        maps = read_arrays(Layout(folder).maps(model) / file)["maps"] if file else None
        known = {(cell.metric.name, cell.removal): cell for cell in work.cells(again.explainer(entry))}
        for cell in (cell for cell in cells if cell.explainer == entry):
            with contextlib.redirect_stdout(io.StringIO()):
                rows, _ = work.score(known[cell.metric, cell.removal])
            yield Recomputed(cell, rows, maps)
        work.finish(entry)
