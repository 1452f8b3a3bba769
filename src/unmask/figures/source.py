"""What figures are drawn from, and which rows of the tables they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.figures import style
from unmask.layout import Layout

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure that can be drawn: its file stem, what it shows in a sentence, and how."""

    name: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Source:
    """A run: its config, its folders, and those of its tables that there are, by name."""

    config: Config
    layout: Layout
    tables: dict[str, pd.DataFrame]

    @property
    def confidence(self) -> float:
        """The intervals' confidence."""
        return float(self.config["aggregate"]["confidence"])

    def controls(self) -> list[str]:
        """The controls in config order."""
        return [entry for entry, meta in self._entries() if meta["family"] == "control"]

    def null(self) -> str | None:
        """The control that stands for knowing nothing, the same as in the leaderboards."""
        random = [entry for entry in self.controls() if entry.startswith("random")]
        return "random_patch" if "random_patch" in random else next(iter(random), None)

    def oracle(self) -> str | None:
        """The control that knows the evidence."""
        return next((entry for entry, meta in self._entries() if "masks" in meta.get("needs", [])), None)

    def _entries(self) -> list[tuple[str, dict[str, Any]]]:
        entries = [entry for group in self.config.groups.values() for entry in group]
        return [(entry, self.config.explainer(entry).plugin.meta) for entry in entries]

    def scopes(self) -> list[tuple[str | None, str]]:
        """All domains pooled (None), then each domain, with what it adds to a file stem."""
        return [(None, ""), *((domain, f"_{domain}") for domain in self.config["domains"])]

    def board(self, domain: str | None) -> pd.DataFrame:
        """The leaderboards with encoders pooled, of a domain or (None) of all together."""
        return self.tables["overall"] if domain is None else of(self.tables["by_domain"], domain)

    def ranked(self, domain: str | None, category: str = "all") -> pd.DataFrame:
        """The rows of `ranking` with encoders pooled, best first."""
        table = self.tables["ranking"]
        scope = "all" if domain is None else "domain"
        rows = table[(table["scope"] == scope) & (table["category"] == category)]
        return rows if domain is None else of(rows, domain)


def of(table: pd.DataFrame, domain: str | None) -> pd.DataFrame:
    """The rows of a domain; of None, those of all domains pooled."""
    return table[table["domain"].isna() if domain is None else table["domain"] == domain]


def title(domain: str | None) -> str:
    """What a domain, or all of them, are called in a title."""
    return domain or "all domains"


def metric_label(metric: str, removal: Any = None, variant: Any = None) -> str:
    """A column's name: metric, its removal and variant where it has them (NaN and None are none)."""
    label = f"{metric}@{removal}" if isinstance(removal, str) else metric
    return f"{label} {variant}" if isinstance(variant, str) else label


def unclear(flags: pd.Series) -> bool:
    """Whether `controls_separated` says no; in a table that was read it is a bool of Python's or numpy's, or NaN."""
    return str(flags.iloc[0]) == "False"


def same_maps(board: pd.DataFrame) -> str:
    """Which explainers are not ranked because their maps are another's, as a sentence; empty where none is."""
    known = board.dropna(subset="alias_of").drop_duplicates("explainer")
    if known.empty:
        return ""
    pairs = zip(known["explainer"], known["alias_of"], strict=True)
    return "Same maps: " + ", ".join(f"{style.readable(one)} = {style.readable(other)}" for one, other in pairs) + "."


def panels(board: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One metric per category, the first that was scored and ranks, with its first removal: (label, rows)."""
    import pandas as pd

    chosen = []
    scored = board[board["mean"].notna() & board["variant"].isna()]
    if "rank" in board:
        scored = scored[scored.groupby("metric")["rank"].transform("count") > 0]
    for _, rows in scored.groupby("category", sort=False):
        first = rows.iloc[0]
        same = rows["removal"].isna() if pd.isna(first["removal"]) else rows["removal"] == first["removal"]
        label = metric_label(first["metric"], first["removal"])
        chosen.append((label, rows[same & (rows["metric"] == first["metric"])]))
    return chosen
