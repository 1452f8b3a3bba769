"""Every quantity of the counterfactual sets, as a number per image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def values(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[tuple[str, int | None, str | None], np.ndarray]]:
    """Every quantity of a model under a removal, an image's value each, NaN where it has none."""
    import numpy as np

    if rows.empty:
        return
    flipped = rows["outcome"].to_numpy() == "flipped"
    size, greedy, largest = (
        rows[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("size", "greedy_size", "largest")
    )
    for patches in range(1, int(largest.max()) + 1):
        yield ("flipped", patches, None), (np.where(flipped, size, np.inf) <= patches).astype(float)
    # Images that no set was found for count as the largest: without them the hardest would be left out of the mean.
    yield ("counterfactual_size", None, None), np.where(flipped, size, largest)
    yield ("greedy_size", None, None), np.where(np.isfinite(greedy), greedy, largest)
    yield ("never_flipped", None, None), (rows["outcome"].to_numpy() == "never").astype(float)
    proven = rows["proven"].to_numpy(dtype=np.float64, na_value=np.nan)
    yield ("proven_smallest", None, None), np.where(flipped, proven, np.nan)
    yield ("counterfactual_evidence", None, None), rows["evidence"].to_numpy(np.float64)
    yield ("evidence_by_chance", None, None), rows["evidence_everywhere"].to_numpy(np.float64)
    new = rows["new_class"].to_numpy(dtype=np.float64, na_value=np.nan)
    for place, name in enumerate(names):
        yield ("new_class", None, name), np.where(flipped, new == place, np.nan)
