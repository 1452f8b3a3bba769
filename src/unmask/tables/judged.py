"""The scores that the metrics are judged by: their columns, and reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.config import Config
from unmask.files import read_table
from unmask.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

JUDGED = {  # with their types
    "domain": "str",
    "encoder": "str",
    "mask_ratio": "float64",
    "pretrain_seed": "int64",
    "finetune_seed": "int64",
    "explainer": "str",
    "metric": "str",
    "category": "str",
    "direction": "str",
    "removal": "object",
    "test": "str",
    "strength": "str",
    "repeat": "int64",
    "image_id": "str",
    "changed": "bool",
    "score": "float64",
    "status": "str",
    "reason": "object",
    "passes": "float64",
    "seconds": "float64",
}


def read_judged(config: Config, layout: Layout) -> pd.DataFrame:
    """Those of every model and group; without rows where none were made."""
    import pandas as pd

    paths = [layout.scores(model) / f"{group}.judged.parquet" for model in config.models for group in config.groups]
    parts = [read_table(path) for path in paths if path.exists()]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(JUDGED))
