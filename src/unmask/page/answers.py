"""What the page says first: which explainer to use where, and whether the mask ratio matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.config import Config

if TYPE_CHECKING:
    import pandas as pd


def leaders(config: Config, tables: dict[str, pd.DataFrame]) -> dict[str, Any] | None:
    """Per domain (None = all of them) and category, who leads the ranking and who ties with the leader.

    None without tie groups: nothing is said of a leader whose ties are unknown.
    """
    table = tables["ranking"]
    if "tie_group" not in table or table["tie_group"].isna().all():
        return None
    table = table[~table["is_control"].astype(bool)]
    same = _same_maps(tables["explainers"])
    categories = ["all", *(c for c in dict.fromkeys(table["category"]) if c != "all")]
    scopes = [("all", None), *(("domain", domain) for domain in config["domains"])]
    if len(scopes) == 2:
        del scopes[0]  # of one domain
    rows = []
    for scope, domain in scopes:
        here = table[table["scope"] == scope]
        here = here if domain is None else here[here["domain"] == domain]
        board = tables["overall"] if domain is None else _of(tables["by_domain"], domain)
        cells = [_leader(here[here["category"] == category], same) for category in categories]
        rows.append({"domain": domain, "cells": cells, "random": _against_random(board, cells[0])})
    return {"categories": categories, "rows": rows}


def _of(table: pd.DataFrame, domain: str) -> pd.DataFrame:
    return table[table["domain"] == domain]


def _same_maps(explainers: pd.DataFrame) -> dict[str, list[str]]:
    """The aliases of each explainer that has some."""
    known = explainers.dropna(subset="alias_of") if "alias_of" in explainers else explainers.iloc[:0]
    return {name: part["explainer"].tolist() for name, part in known.groupby("alias_of")} if len(known) else {}


def _leader(rows: pd.DataFrame, same: dict[str, list[str]]) -> dict[str, Any] | None:
    if rows.empty:
        return None
    ordered = rows.sort_values("rank", kind="stable")
    best = ordered.iloc[0]
    tied = ordered.loc[ordered["tie_group"] == best["tie_group"], "explainer"].tolist()[1:]
    share = best["p_best"] if "p_best" in rows else None
    return {"name": best["explainer"], "same": same.get(best["explainer"], []), "tied": tied, "p_best": share}


def _against_random(board: pd.DataFrame, leader: dict[str, Any] | None) -> dict[str, int] | None:
    """Under how many metrics the leader was shown better or worse than the random control."""
    if leader is None:
        return None
    words = board.loc[(board["explainer"] == leader["name"]) & board["variant"].isna(), "versus_random"].dropna()
    return (
        {"of": len(words), **{word: int((words == word).sum()) for word in ("better", "worse")}} if len(words) else None
    )


def ratios(effects: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Per contrast of `ratio_effects`, over all domains and images: the metrics by verdict; slopes first."""
    if effects is None:
        return []
    rows = effects[(effects["scope"] == "all") & (effects["images"] == "all")]
    label = rows["metric"] + rows["removal"].map(lambda removal: f"@{removal}" if isinstance(removal, str) else "")
    words = [
        f"a higher mask ratio of {row.encoder}" if row.contrast == "slope" else f"{row.encoder} against {row.reference}"
        for row in rows.itertuples()
    ]
    rows = rows.assign(label=label, words=words).sort_values("contrast", ascending=False, kind="stable")
    return [
        {
            "contrast": words,
            **{word: part.loc[part["verdict"] == word, "label"].tolist() for word in ("better", "worse", "undecided")},
        }
        for words, part in rows.groupby("words", sort=False)
    ]
