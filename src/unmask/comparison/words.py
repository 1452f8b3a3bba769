"""A comparison in plain words: what counts against a run by kind, the largest first, and what the runs conclude."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unmask.comparison.differences import COUNT, DIRECTION, FAILED, MISSING, RANK, UNSCORED, VALUE, VERDICT

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
_HEADS = {
    MISSING: "Missing",
    DIRECTION: "Metrics of another direction",
    UNSCORED: "Cells without a score in one of the two",
    FAILED: "Other numbers of failed images",
    VERDICT: "Verdicts against the null control that turned round",
    VALUE: "Changed beyond the intervals, the largest first",
    RANK: "Ranks outside each other's intervals, the largest first",
}
_EXACT = {
    VERDICT: "Other verdicts against the null control",
    VALUE: "Changed, the largest against its interval first",
    RANK: "Other ranks, the largest change first",
    COUNT: "Other numbers of images",
}
_COUNTED = {
    MISSING: "missing",
    DIRECTION: "of another direction",
    UNSCORED: "without a score",
    FAILED: "with other failures",
    VERDICT: "with an opposite verdict",
    VALUE: "changed beyond their intervals",
    RANK: "rank changes beyond theirs",
}
_EXACTLY = {
    VERDICT: "with another verdict",
    VALUE: "numbers changed",
    RANK: "rank changes",
    COUNT: "numbers of images changed",
}
_WITHIN = {
    VALUE: "numbers moved within their intervals",
    RANK: "ranks within theirs",
    VERDICT: "verdicts became or ceased to be undecided",
    COUNT: "numbers of images differ",
}
_CAUSES = ("domain", "encoder", "metric", "removal", "explainer", "category")


def counted(rows: pd.DataFrame, exact: bool) -> str:
    """`2 missing, 3 changed beyond their intervals`."""
    return _counts(rows, _COUNTED | _EXACTLY if exact else _COUNTED)


def within(rows: pd.DataFrame) -> str:
    """What differs without counting against a run."""
    return _counts(rows, _WITHIN)


def _counts(rows: pd.DataFrame, texts: dict[str, str]) -> str:
    counts = rows["kind"].value_counts()
    return ", ".join(f"{counts[kind]} {text}" for kind, text in texts.items() if kind in counts)


def blocks(rows: pd.DataFrame, present: dict[str, dict[str, set[str]]], exact: bool) -> Iterator[str]:
    """Lines of the differences that count, by kind.

    `present` has, by table and key, the values that both tables know.
    """
    for kind, head in (_HEADS | _EXACT if exact else _HEADS).items():
        found = rows[rows["kind"] == kind]
        if not len(found):
            continue
        lines = _missing(found, present) if kind == MISSING else [_line(row) for row in _largest(found, kind)]
        yield f"\n{head}"
        if kind == VALUE and len(found) > SHOWN:
            yield f"  most by {_most(found)}"
        yield from (f"  {line}" for line in lines[:SHOWN])
        if len(lines) > SHOWN:
            yield f"  ... and {len(lines) - SHOWN} more; --csv writes all"


def _largest(rows: pd.DataFrame, kind: str) -> list[dict]:
    by = {VALUE: "excess", RANK: "difference", FAILED: "difference"}.get(kind)
    if by is not None:
        rows = rows.loc[rows[by].astype(float).abs().sort_values(ascending=False, kind="stable").index]
    return rows.to_dict("records")


def _most(rows: pd.DataFrame) -> str:
    """`metric pointing_game (60), encoder m25 (33), explainer saliency (4)`: where changes gather, if anywhere."""
    found = []
    for key in ("metric", "domain", "encoder", "explainer"):
        counts = rows.loc[rows[key] != "", key].value_counts()
        if len(counts):
            found.append(f"{key} {counts.index[0]} ({counts.iloc[0]} of {counts.sum()})")
    return ", ".join(found)


def _missing(rows: pd.DataFrame, present: dict[str, dict[str, set[str]]]) -> list[str]:
    """By what is missing as a whole (an explainer, a metric), so that one cause is one line."""
    causes: dict[tuple[str, str], dict[str, int]] = {}
    for (detail, table), part in rows.groupby(["detail", "table"], sort=False):
        for what, count in _causes(part, present[table]):
            causes.setdefault((what, detail), {})[table] = count
    return [
        f"{what} is {detail}: {sum(tables.values())} rows of {', '.join(tables)}"
        for (what, detail), tables in causes.items()
    ]


def _causes(rows: pd.DataFrame, present: dict[str, set[str]]) -> Iterator[tuple[str, int]]:
    for key in (key for key in _CAUSES if key in present):
        gone = rows[~rows[key].isin(present[key])]
        yield from ((f"the {key} {value}", len(part)) for value, part in gone.groupby(key, sort=False))
        rows = rows.drop(gone.index)
    yield from ((place(row), 1) for row in rows.to_dict("records"))


def place(row: dict) -> str:
    """`medical / simmim_30 / pixel_flipping@mean / saliency`."""
    metric = row["metric"] and row["metric"] + (f"@{row['removal']}" if row["removal"] else "")
    metric += f" ({row['variant']})" if row["variant"] else ""
    everywhere = "all domains" if row["table"] == "overall" or row["scope"] == "all" else ""
    where = [everywhere, row["domain"], row["encoder"], metric, row["category"], row["explainer"]]
    return " / ".join(part for part in where if part)


def _line(row: dict) -> str:
    where = f"{row['table']}: {place(row)}"
    if row["kind"] in (DIRECTION, UNSCORED, VERDICT):
        return f"{where}: {row['detail']}"
    if row["kind"] in (FAILED, COUNT):
        return f"{where}: {row['quantity']} {row['first']:.0f} -> {row['second']:.0f}"
    quantity = "" if row["quantity"] == "mean" else f"{row['quantity']} "
    return f"{where}: {quantity}" + " -> ".join(_with_interval(row, side) for side in ("first", "second"))


def _with_interval(row: dict, side: str) -> str:
    low, high = row[f"{side}_low"], row[f"{side}_high"]
    return f"{row[side]:.4g} [{low:.4g}, {high:.4g}]" if low == low else f"{row[side]:.4g} (no interval)"


def leaders(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[str]:
    """Who leads over all categories, per domain and over all, in two tables `ranking`."""
    for scope, domain in first[["scope", "domain"]].drop_duplicates().itertuples(index=False, name=None):
        if scope == "model":
            continue
        names, groups = zip(*(_leader(table, scope, domain) for table in (first, second)), strict=True)
        if None in names:
            continue
        where = domain or "all domains"
        if names[0] == names[1]:
            yield f"{where}: {names[0]} in both"
        else:
            tied = all(set(names) <= group for group in groups)
            yield f"{where}: {names[0]} -> {names[1]}" + (" (tied in both)" if tied else "")


def _leader(ranking: pd.DataFrame, scope: str, domain: str) -> tuple[str | None, set[str]]:
    """The best explainer that is no control, and who is tied with it for the first place."""
    rows = ranking[(ranking["scope"] == scope) & (ranking["domain"] == domain) & (ranking["category"] == "all")]
    rows = rows[rows["rank"].notna()]
    if "is_control" in rows:
        rows = rows[rows["is_control"].astype(str) != "True"]
    if not len(rows):
        return None, set()
    group = set(rows.loc[rows["tie_group"] == 1, "explainer"]) if "tie_group" in rows else set()
    return rows.loc[rows["rank"].idxmin(), "explainer"], group


def hypotheses(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """Which hypotheses have another verdict, from two tables `hypotheses`."""
    pairs = [dict(zip(table["hypothesis"], table["verdict"], strict=True)) for table in (first, second)]
    shared = [name for name in pairs[0] if name in pairs[1]]
    turned = [f"{name} {pairs[0][name]} -> {pairs[1][name]}" for name in shared if pairs[0][name] != pairs[1][name]]
    return ", ".join(turned) if turned else f"all {len(shared)} verdicts the same"
