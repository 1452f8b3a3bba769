"""The mark of what was submitted: its scores were not computed here."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def marked(table: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    """A table of explainers with the column `submitted`, whether each is one of `names`; any other as it is."""
    if "explainer" not in table:
        return table
    marks = table["explainer"].isin(list(names))
    if "submitted" in table:
        return table.assign(submitted=marks)
    made = table.copy(deep=False)
    made.insert(table.columns.get_loc("is_control" if "is_control" in table else "explainer") + 1, "submitted", marks)
    return made
