"""What the table of scores says of its run beside the scores, so that leaderboards can be made from it alone.

It goes with the table as `attrs` of the frame, which its parquet file keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.submissions import task
from unmask.tables.entries import explainers

if TYPE_CHECKING:
    from unmask.tables.read import Maps

KEY = "unmask"


def about(config: Config, maps: Maps) -> dict[str, Any]:
    """Seed and settings of the intervals, metrics that never rank, oracles; explainers that are the same as another, by
    their options (`same`) or as measured model by model (`aliases`, None where not); what was asked of all (`task`)."""
    entries, asked = explainers(config, {}), task.of_run(config, None)
    records = [(model.folder, one) for model, _, found in maps for one in found if one["status"] == "ok"]
    some = {one["name"] for _, one in records if one.get("alias_of")}
    aliases: dict[str, dict[str, str | None]] = {}
    for folder, one in records:
        if one["name"] in some:
            aliases.setdefault(one["name"], {})[folder] = one.get("alias_of")
    return {
        "seed": config["seed"],
        **{key: config["aggregate"][key] for key in ("bootstrap", "confidence", "redundancy")},
        "gates": config.gates,
        "oracles": [e.name for e in entries if e.is_oracle],
        "same": {e.name: e.alias_of for e in entries if e.alias_of},
        "aliases": aliases,
        "task": {"models": asked.models, "data": asked.data, "metrics": asked.metrics},
    }
