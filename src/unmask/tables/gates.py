"""Which explainers pass the gates: metrics that are no ranks, such as randomising the network's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.config import Config

if TYPE_CHECKING:
    import pandas as pd

GATES = [
    "scope",
    "domain",
    "encoder",
    "metric",
    "removal",
    "explainer",
    "family",
    "is_control",
    "alias_of",
    "mean",
    "low",
    "high",
    "n",
    "failed",
    "rule",
    "verdict",
]
SCOPES = {"overall": "all", "by_domain": "domain", "leaderboard": "model"}


def gates(config: Config, boards: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per gate, explainer and scope; `rule` is META's level, as `below 0.5`.

    `passed` where the whole interval of the mean lies beyond the level, `failed` where all of it lies on the other
    side, else `undecided`; no verdict where nothing was scored, or where META names no level.
    """
    import pandas as pd

    parts = []
    for name, scope in SCOPES.items():
        board = boards[name]
        for gate in config.gates:
            rows = board[board["metric"] == gate].assign(scope=scope)
            ((sense, level),) = config.metric(gate).plugin.meta.get("pass", {"": None}).items()
            rule = f"{sense} {level:g}" if sense else None
            verdicts = [_verdict(sense, level, low, high) for low, high in zip(rows["low"], rows["high"], strict=True)]
            parts.append(rows.assign(rule=rule, verdict=verdicts).reindex(columns=GATES))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=GATES)


def _verdict(sense: str, level: float | None, low: float, high: float) -> str | None:
    if level is None or low != low or high != high:
        return None
    beyond, short = (high < level, low > level) if sense == "below" else (low > level, high < level)
    return "passed" if beyond else "failed" if short else "undecided"
