"""Judging the metrics: a few explainers scored again on perturbed images and by perturbed models.

MetaQuantus (Hedstroem et al. 2023, TMLR): a metric should say the same after noise that changes no prediction, and
something worse after a disruption that changes it. Here are the scores; `unmask.statistics.consistency` has the
verdict. The explainers `score.judge.explainers` and the first few images are scored under every metric, with the first
removal: as they are, and under each `Condition`. What is perturbed is explained anew, for the class that was predicted
before. Explainers that draw use the same draws throughout, and so do the metrics. Gates, which never rank, are left
out. Cells are kept as those of the scores are, in `cells/<explainer>.judged.parquet`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest, seeds
from unmask.config import Config, MetricSpec
from unmask.errors import Skip
from unmask.files import write_table
from unmask.scoring import Cell, Work, explainer_settings, kept_cells, typed
from unmask.tables.judged import JUDGED
from unmask.time_limit import time_limit

if TYPE_CHECKING:
    import pandas as pd
    import torch

# Images are in [0, 1] and cut to it: half a grey level of 8 bits, and noise that leaves next to nothing. Weights are
# multiplied by normal draws around 1 with this standard deviation, as in MetaQuantus.
STRENGTHS = {
    "input": {"minor": 1 / 510, "disruptive": 1.0},
    "model": {"minor": 0.001, "disruptive": 2.0},
}


@dataclass(frozen=True)
class Condition:
    """What is perturbed (`test`: input, model or none), how far (`strength`), and which of the draws (`repeat`)."""

    test: str = "none"
    strength: str = "none"
    repeat: int = 0

    @property
    def size(self) -> float:
        """The noise's half width or standard deviation."""
        return STRENGTHS[self.test][self.strength] if self.test != "none" else 0.0


def conditions(repeats: int) -> list[Condition]:
    """The undisturbed one first."""
    return [
        Condition(),
        *(
            Condition(test, strength, repeat)
            for test, sizes in STRENGTHS.items()
            for strength in sizes
            for repeat in range(repeats)
        ),
    ]


def judged(config: Config, entries: list[str]) -> list[str]:
    """Those of a group's explainers that the metrics are judged with."""
    return [entry for entry in entries if entry in config["score"]["judge"]["explainers"]]


def settings(config: Config, entries: list[str]) -> dict[str, Any]:
    """What a group's judged scores depend on beside what its scores do."""
    given = config["score"]["judge"]
    return {"explainers": judged(config, entries), "images": given["images"], "repeats": given["repeats"]}


def run(config: Config, work: Work, entries: list[str], path: Path) -> None:
    """Write the judged scores of a group's explainers to `path`; the table is empty where none is judged with."""
    import pandas as pd

    tables = list(_tables(config, work, judged(config, entries), path.parent / "cells"))
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(JUDGED))
    write_table(path, typed(whole, JUDGED))


def _tables(config: Config, work: Work, entries: list[str], folder: Path) -> Iterator[pd.DataFrame]:
    """The rows of each explainer, condition after condition."""
    import pandas as pd

    files = {entry: folder / f"{entry}.judged.parquet" for entry in entries}
    known = {entry: kept_cells(path) for entry, path in files.items()}
    found: dict[str, dict[str, pd.DataFrame]] = {entry: {} for entry in entries}
    described = {entry: _described(config, entry) for entry in entries}
    cells = {entry: _cells(config, work, entry) for entry in entries}
    for condition in conditions(config["score"]["judge"]["repeats"]):
        under = _Under(config, work, condition)
        for entry in entries:
            keys = {_key(described[entry], cell, condition): cell for cell in cells[entry]}
            missing = [key for key in keys if key not in known[entry]]
            made = dict(zip(missing, under.score(entry, [keys[key] for key in missing]), strict=True))
            found[entry].update((key, made[key] if key in made else known[entry][key]) for key in keys)
            if made:
                rows = [table.assign(key=key) for key, table in found[entry].items()]
                # What a kill must not lose: what this run has not come to yet stays beside it.
                rows += [table.assign(key=key) for key, table in known[entry].items() if key not in found[entry]]
                write_table(files[entry], pd.concat(rows, ignore_index=True))
    for tables in found.values():
        yield from tables.values()


def removals(config: Config, metric: MetricSpec) -> list[str | None]:
    """Those that a metric is judged under: the first, or None where it removes nothing; gates are not judged."""
    if metric.plugin.meta.get("gate"):
        return []
    return config["score"]["removals"][:1] if "removal" in metric.plugin.meta["needs"] else [None]


def _cells(config: Config, work: Work, entry: str) -> list[Cell]:
    """The cells of an explainer that metrics are judged by."""
    return [cell for cell in work.cells(config.explainer(entry)) if cell.removal in removals(config, cell.metric)]


def _described(config: Config, entry: str) -> list[Any]:
    """What the judged scores of an explainer depend on beside the cells."""
    explainer = explainer_settings(config, config.explainer(entry))
    return [explainer, config["score"]["judge"]["images"], digest.code("unmask.judging")]


def _key(described: list[Any], cell: Cell, condition: Condition) -> str:
    return digest.of([cell.key, described, condition.test, condition.strength, condition.repeat, condition.size])


class _Under:
    """The first images and the model under a condition, perturbed when the first cell asks."""

    def __init__(self, config: Config, work: Work, condition: Condition):
        self._config, self._work, self._condition = config, work, condition
        self._twin: Work | None = None
        self._changed: list[bool] = []

    def score(self, entry: str, cells: list[Cell]) -> list[pd.DataFrame]:
        """The rows of each cell of an explainer."""
        if not cells:
            return []
        twin = self._perturbed()
        try:
            with time_limit(self._config["score"]["time_limit"], "score.time_limit"):
                twin.replace_maps(entry, self._maps(entry, twin))
        except Skip as skip:
            twin.replace_maps(entry, None, "skipped", str(skip))
        except (Exception, SystemExit) as error:  # whatever an explainer raises on what was perturbed
            twin.replace_maps(entry, None, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        tables = [twin.score(cell)[0] for cell in cells]
        twin.finish(entry)
        named = vars(self._condition)
        return [rows.assign(**named, changed=self._changed[: len(rows)])[list(JUDGED)] for rows in tables]

    def _perturbed(self) -> Work:
        import torch

        if self._twin is None:
            print(f"judging the metrics: {' '.join(map(str, vars(self._condition).values()))}", flush=True)
            model, images = self._work.loaded.model, self._work.loaded.images
            images = images[: self._config["score"]["judge"]["images"]]
            name = "score", "judge", self._work.model_id.domain, *vars(self._condition).values()
            if self._condition.test == "input":
                images = noisy_images(images, self._condition.size, seeds.derive(self._config["seed"], *name))
            elif self._condition.test == "model":
                model = noisy_model(model, self._condition.size, seeds.derive(self._config["seed"], *name))
            self._twin = self._work.twin(model, images)
            with torch.no_grad():
                now = model(images).argmax(1)
            self._changed = (now != self._twin.loaded.targets).tolist()
        return self._twin

    def _maps(self, entry: str, twin: Work) -> Any:
        rows = list(range(len(twin.loaded.images)))
        explain = self._work.explainer(self._config.explainer(entry), rows)
        model = twin.loaded.model if self._condition.test == "model" else None
        return explain(twin.loaded.images, twin.loaded.targets, model, paired=True).detach().cpu().numpy()


def noisy_images(images: torch.Tensor, size: float, seed: int) -> torch.Tensor:
    """`images` float32 [N, 3, H, W] with uniform noise in [-`size`, `size`], cut to [0, 1].

    The noise of an image is the same however many there are.
    """
    import numpy as np
    import torch

    noise = np.random.default_rng(seed).uniform(-size, size, images.shape).astype(np.float32)
    return (images + torch.from_numpy(noise).to(images.device)).clamp(0, 1)


def noisy_model(model: torch.nn.Module, size: float, seed: int) -> torch.nn.Module:
    """A copy whose every parameter is multiplied by a draw from N(1, `size`^2); the pretraining network is the same."""
    import torch

    beside = model.pretraining
    noisy = copy.deepcopy(model, {} if beside is None else {id(beside): beside})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in noisy.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.mul_((1 + size * draw).to(parameter))
    return noisy
