"""What of a submission will enter where, in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.submissions.card import Card
from unmask.submissions.task import CELL, MODEL, Task

if TYPE_CHECKING:
    import pandas as pd


def summary(card: Card, table: pd.DataFrame, task: Task) -> list[str]:
    """Who and what; the models and scores of each domain; the metrics; what is lacking."""
    kind = "class-specific" if card.data["class_specific"] else "not class-specific"
    removal = f", removal {card.data['removal']}" if card.data["removal"] else ""
    lines = [
        f"'{card.name}': {card.data['family']}, {kind}{removal}; by {card.data['authors']} ({card.data['contact']}), "
        f"licence {card.data['licence']}"
    ]
    domains = list(table.groupby("domain", sort=False))
    width = max(len(str(domain)) for domain, _ in domains)
    for domain, part in domains:
        counts = part["status"].value_counts()
        states = ", ".join(f"{counts[status]} {status}" for status in ("ok", "skipped", "failed") if status in counts)
        models = len(part[MODEL].drop_duplicates())
        lines.append(f"  {domain:<{width}}  models: {models}, scores: {len(part)} ({states})")
    removals = table[table["removal"] != ""].groupby("metric")["removal"].unique()
    names = (f"{name} ({', '.join(removals[name])})" if name in removals else name for name in table["metric"].unique())
    lines.append(f"metrics: {', '.join(names)}")
    lacking = _lacking(table, task)
    if lacking:
        lines.append(f"not in it, and failed in the tables: {', '.join(lacking)}")
    return lines


def _lacking(table: pd.DataFrame, task: Task) -> list[str]:
    """Domains, encoders and metrics that a run asks for without any score here, then how many cells besides."""
    if task.rows is None:
        return []
    asked = task.rows.loc[task.rows["skip"].isna(), CELL].drop_duplicates()
    asked = asked.merge(table[CELL].drop_duplicates(), on=CELL, how="left", indicator="where")
    asked["has"] = asked["where"] == "both"
    found = []
    for key in ("domain", "encoder", "metric"):
        some = asked.groupby(key, sort=False)["has"].any()
        gone = some.index[~some].tolist()
        asked = asked[~asked[key].isin(gone)]
        found += gone
    rest = int((~asked["has"]).sum())
    return found + ([f"{rest} cells of a model under a metric"] if rest else [])
