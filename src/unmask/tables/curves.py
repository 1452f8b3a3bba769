"""Removal curves, read from stage 5 and averaged over images: the probability of the target as patches go."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_table
from unmask.layout import Layout
from unmask.statistics.bootstrap import Draws, sums
from unmask.statistics.cells import Table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DRAWS = 500  # resamples that a band is made of, at most: it is a picture
MODEL = ["domain", "encoder", "pretrain_seed", "finetune_seed"]
COLUMNS = ["domain", "encoder", "explainer", "metric", "removal", "step", "removed", "mean", "low", "high", "n"]


def read_curves(config: Config, layout: Layout) -> pd.DataFrame:
    """The curves of every model and group, each once: that of random orders comes with every group.

    Without rows where none were traced. Curves of metrics that remove nothing are another thing, and left out.
    """
    import pandas as pd

    paths = [layout.scores(model) / f"{group}.curves.parquet" for model in config.models for group in config.groups]
    parts = [read_table(path) for path in paths if path.exists()]
    parts = [part[part["removal"].notna()] for part in parts]
    if not sum(map(len, parts)):
        return pd.DataFrame(columns=[*MODEL, "explainer", "metric", "removal", "image_id", "curve"])
    whole = pd.concat([part for part in parts if len(part)], ignore_index=True)
    keys = [*MODEL, "explainer", "metric", "removal", "image_id"]
    return whole.drop_duplicates(keys, ignore_index=True)


def mean_curves(config: Config, curves: pd.DataFrame) -> pd.DataFrame:
    """A row per point of each mean curve with its bootstrap band, per model family and with encoders pooled.

    `removed` is the share of patches that are gone, `n` how many curves there are (images x models); `explainer` is
    None for random orders, `encoder` for all pooled. The images are resampled as they are for the leaderboards, where
    these have the same images.
    """
    import pandas as pd

    if not len(curves):
        return pd.DataFrame(columns=COLUMNS)
    entries = [entry for group in config.groups.values() for entry in group]
    place = {**{entry: i for i, entry in enumerate(entries)}, None: len(entries)}
    explainers = curves["explainer"].astype(object)
    curves = curves.assign(explainer=explainers.where(explainers.notna(), None))
    curves = curves[curves["removal"].isin(config["score"]["removals"])].reset_index(drop=True)
    # The leaderboards' coding of units and draws; it asks for scores, of which there are none.
    table = Table(
        curves.assign(explainer="curve", score=0.0, status="ok"),
        ["curve"],
        config["seed"],
        config["aggregate"]["bootstrap"],
    )
    groups = curves.groupby(["domain", "metric", "removal"], sort=False).indices
    orders = list(config["domains"]), list(dict.fromkeys(curves["metric"])), config["score"]["removals"]
    parts = []
    for keys in (keys for keys in product(*orders) if keys in groups):
        rows = groups[keys]
        some = curves.iloc[rows].assign(unit=table.units[rows])
        named = dict(zip(("domain", "metric", "removal"), keys, strict=True))
        parts.extend(part.assign(**named) for part in _of_domain(some, table.draws[keys[0]], config, place))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _of_domain(
    curves: pd.DataFrame, draws: Draws, config: Config, place: dict[str | None, int]
) -> Iterator[pd.DataFrame]:
    """The mean curves of a domain under one metric and removal, encoders pooled first."""
    import numpy as np

    lengths = {len(curve) for curve in curves["curve"]}
    if len(lengths) > 1:
        one = curves.iloc[0]
        raise UserError(
            f"the curves of {one['domain']} under {one['metric']}@{one['removal']} have {min(lengths)} and "
            f"{max(lengths)} points; delete 5_scores/{one['domain']} and run the stage score again"
        )
    explainers = sorted(dict.fromkeys(curves["explainer"]), key=place.__getitem__)
    encoders = [name for name in config["encoders"] if name in set(curves["encoder"])]
    values = np.full((len(encoders), len(draws.image), len(explainers), lengths.pop()), np.nan)
    model, column = (
        [known.index(one) for one in curves[name]] for name, known in (("encoder", encoders), ("explainer", explainers))
    )
    values[model, curves["unit"], column] = np.stack(curves["curve"].to_list())
    few = Draws(draws.weights[:DRAWS], draws.image, draws.signs)
    for encoder, part in [(None, values), *zip(encoders, values, strict=True)]:
        yield _band(part, few, config["aggregate"]["confidence"], explainers).assign(encoder=encoder)


def _band(values: np.ndarray, draws: Draws, confidence: float, explainers: list[str | None]) -> pd.DataFrame:
    """Mean curves of [.., U, E, S] with their bands."""
    import numpy as np
    import pandas as pd

    *_, count, points = values.shape
    made = sums(draws, values.reshape(*values.shape[:-2], count * points))
    low, high = made.interval(confidence)
    step = np.tile(np.arange(points), count)
    table: dict[str, Any] = {
        "explainer": [name for name in explainers for _ in range(points)],
        "step": step,
        "removed": step / (points - 1),
        "mean": made.mean,
        "low": low,
        "high": high,
        "n": made.n,
    }
    return pd.DataFrame(table)[lambda rows: rows["n"] > 0]
