"""The scores as dense arrays for the questions asked of them: one per metric and domain, images x seeds x encoders x
explainers.

Aliases are left out, being another's scores again, and so are the variants of metrics, which have no vote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unmask.encoders import condition, series
from unmask.statistics.cells import Table
from unmask.statistics.pools import Explainer, null

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unmask.config import Config
    from unmask.statistics.cells import Cell

READ = [
    "domain",
    "encoder",
    "pretrain_seed",
    "finetune_seed",
    "explainer",
    "metric",
    "category",
    "direction",
    "removal",
    "variant",
    "image_id",
    "correct",
    "score",
    "status",
]


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric under one removal: `keys` name it, `values` holds its scores by domain [I, S, M, E] (NaN = none)."""

    keys: dict[str, str | None]
    values: dict[str, np.ndarray]

    @property
    def sign(self) -> int:
        """1 where a higher score is better, else -1."""
        return 1 if self.keys["direction"] == "higher" else -1


@dataclass(frozen=True)
class Scope:
    """All domains pooled (`domain` None) or one of them."""

    domain: str | None
    domains: list[str]

    @property
    def keys(self) -> dict[str, str | None]:
        """The columns that name the scope."""
        return {"scope": "all" if self.domain is None else "domain", "domain": self.domain}


@dataclass(frozen=True)
class Study:
    """What the questions are asked of; S are pairs of seeds, M encoders, E explainers without aliases, B resamples."""

    explainers: list[Explainer]
    encoders: list[str]
    methods: list[str]  # [M], how each encoder was pretrained, and a condition of its fine-tuning
    ratios: np.ndarray  # [M], the mean where each image draws its own, NaN without mask
    seeds: list[str]  # [S]
    metrics: list[Measured]
    weights: dict[str, np.ndarray]  # by domain [B, I, S]
    correct: dict[str, np.ndarray]  # by domain bool [I, S, M]
    confidence: float
    seed: int
    # [M], the series that an encoder is a dose of; None where it has no fixed mask ratio.
    doses: list[str | None] = field(default_factory=list)

    def of_series(self, series: str) -> list[int]:
        """The places of a series' encoders, which differ in their fixed mask ratio alone."""
        return [m for m, own in enumerate(self.doses) if own == series]

    @property
    def control(self) -> np.ndarray:
        """Which explainers are controls: bool [E]."""
        import numpy as np

        return np.array([e.is_control for e in self.explainers], bool)

    @property
    def null(self) -> int | None:
        """The control that stands for knowing nothing."""
        return null(self.explainers)

    @property
    def scopes(self) -> list[Scope]:
        """All domains pooled, then each."""
        return [Scope(None, list(self.weights)), *(Scope(domain, [domain]) for domain in self.weights)]

    def encoder(self, name: str) -> int:
        """An encoder's place."""
        return self.encoders.index(name)


def study(config: Config, scores: pd.DataFrame, aliases: dict[str, str]) -> Study:
    """Arrange the long table without variants, gates (which never rank) and the entries in `aliases`."""
    import numpy as np
    import pandas as pd

    plain = scores["variant"].isna() | (scores["variant"] == "")
    left_out = scores["explainer"].isin(list(aliases)) | scores["metric"].isin(config.gates)
    scores = scores.loc[plain & ~left_out, READ].reset_index(drop=True)
    held = set(scores["explainer"].unique())
    entries = [entry for entry in config.entries if entry in held]
    table = Table(scores, entries, config["seed"], config["aggregate"]["bootstrap"])
    pair, seeds = pd.factorize(
        "p" + scores["pretrain_seed"].astype(str) + "f" + scores["finetune_seed"].astype(str), sort=True
    )
    encoders = [name for name in config["encoders"] if name in set(scores["encoder"].unique())]
    pairs, weights, correct = {}, {}, {}
    rows_of = scores.groupby("domain", sort=False).indices
    for domain in (name for name in config["domains"] if name in rows_of):
        rows, draws = rows_of[domain], table.draws[domain]
        pairs[domain] = np.zeros(len(draws.image), np.int64)
        pairs[domain][table.units[rows]] = pair[rows]
        shape = (draws.image.max() + 1, len(seeds))
        weights[domain] = np.zeros((len(draws.weights), *shape))
        weights[domain][:, draws.image, pairs[domain]] = draws.weights
        correct[domain] = np.zeros((*shape, len(encoders)), bool)
        place = scores["encoder"].iloc[rows].map({name: i for i, name in enumerate(encoders)}).to_numpy()
        correct[domain][draws.image[table.units[rows]], pair[rows], place] = scores["correct"].to_numpy(bool)[rows]

    def measured() -> Iterator[Measured]:
        for keys, cells in table.metrics():
            yield Measured(keys, dict(cubes(cells)))

    def cubes(cells: list[Cell]) -> Iterator[tuple[str, np.ndarray]]:
        for domain in weights:
            cube = np.full((*weights[domain].shape[1:], len(encoders), len(entries)), np.nan)
            for cell in cells:
                if cell.domain == domain:
                    cube[table.draws[domain].image, pairs[domain], encoders.index(cell.encoder)] = cell.values
            yield domain, cube

    return Study(
        [_explainer(config, entry) for entry in entries],
        encoders,
        [condition(config["encoders"][name]) for name in encoders],
        np.array([config.mask_ratio(name) for name in encoders], np.float64),
        list(seeds),
        list(measured()),
        weights,
        correct,
        config["aggregate"]["confidence"],
        config["seed"],
        [series(config["encoders"][name]) for name in encoders],
    )


def _explainer(config: Config, entry: str) -> Explainer:
    meta = config.meta(entry)
    return Explainer(entry, meta["family"], meta["family"] == "control", "masks" in meta.get("needs", []))
