"""The table of a submission, and how its scores enter a run's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.registry import suggest
from unmask.submissions.card import Card
from unmask.submissions.task import KEYS, Task
from unmask.tables.columns import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = [
    "domain",
    "encoder",
    "pretrain_seed",
    "finetune_seed",
    "explainer",
    "metric",
    "category",
    "direction",
    "removal",
    "image_id",
    "prediction",
    "score",
    "status",
    "reason",
]
OPTIONAL = [
    "mask_ratio",
    "variant",
    "label",
    "correct",
    "passes",
    "seconds",
]  # the run's own are used where it has them
WHOLE, NUMBERS = ("pretrain_seed", "finetune_seed", "prediction"), ("score", "passes", "seconds")
TEXTS = [name for name in REQUIRED if name not in (*WHOLE, *NUMBERS)]
ABSENT = "not in the submission"


def load(path: str | Path) -> tuple[pd.DataFrame | None, list[str]]:
    """The table with the columns REQUIRED, `variant`, `passes` and `seconds`, or None and what is wrong with it."""
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        return None, [f"{path} is not a readable parquet file ({' '.join(str(error).split())})"]
    table.attrs = {}
    found = [f"{path} {problem}" for problem in _columns(table)]
    if found:
        return None, found
    table = table.assign(**{name: table.get(name) for name in ("variant", "passes", "seconds")}).astype(
        dict.fromkeys(WHOLE, "int64") | dict.fromkeys(NUMBERS, "float64")
    )
    table = table.assign(
        **{
            name: table[name].astype(object).fillna("").astype("str")
            for name in (*TEXTS, "variant")
            if name != "reason"
        },
        reason=table["reason"].astype(object).where(table["reason"].notna(), None),
    )
    return table[[*REQUIRED, "variant", "passes", "seconds"]].reset_index(drop=True), []


def _columns(table: pd.DataFrame) -> list[str]:
    from pandas.api import types

    found = [f"lacks the column '{name}'" for name in REQUIRED if name not in table]
    known = [*REQUIRED, *OPTIONAL]
    found += [
        f"has the column '{name}', which no submission has; {suggest(name, known)}"
        for name in table
        if name not in known
    ]
    if table.columns.duplicated().any():
        found.append("has a column twice")
    if found:
        return found
    if table.empty:
        return ["holds no scores"]
    found += [
        f"holds other than whole numbers in the column '{name}'"
        for name in WHOLE
        if not types.is_integer_dtype(table[name]) or table[name].isna().any()
    ]
    found += [
        f"holds other than numbers in the column '{name}'"
        for name in NUMBERS
        if name in table and not (types.is_numeric_dtype(table[name]) or table[name].isna().all())
    ]
    texts = [name for name in (*TEXTS, "variant") if name in table]
    found += [
        f"holds other than text in the column '{name}'"
        for name in texts
        if not table[name].astype(object).map(lambda value: isinstance(value, str) or _none(value)).all()
    ]
    return found


def _none(value: Any) -> bool:
    """Whether a cell of a column of text is empty."""
    import pandas as pd

    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def entered(table: pd.DataFrame, card: Card, task: Task) -> pd.DataFrame:
    """The rows of a sound submission as those of the run's own explainers, in their order: COLUMNS.

    What the run asks for and the submission lacks is failed, or skipped where everybody is.
    """
    values = ["score", "status", "reason", "passes", "seconds"]
    joined = task.rows.merge(table[[*KEYS, *values]], on=KEYS, how="left", validate="one_to_one")
    absent = joined["status"].isna()
    skip = joined["skip"].notna()
    made = joined.assign(
        explainer=card.name,
        family=card.data["family"],
        is_control=False,
        removal=joined["removal"].astype(object).where(joined["removal"] != "", None),
        status=joined["status"].astype(object).mask(absent, "failed").mask(absent & skip, "skipped").astype("str"),
        reason=joined["reason"].astype(object).mask(absent, ABSENT).mask(absent & skip, joined["skip"]),
        config_hash="",
    )
    made["reason"] = made["reason"].where(made["reason"].notna(), None)
    return made[COLUMNS]
