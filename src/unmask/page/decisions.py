"""What the page says of single decisions taken apart."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from unmask.config import Config, ModelId
from unmask.files import read_json, read_table
from unmask.internals.catalogue import COUNTERFACTUALS, SURROGATES
from unmask.internals.surrogates import words
from unmask.layout import Layout
from unmask.page.embed import records

if TYPE_CHECKING:
    import pandas as pd

SHOWN = (
    "flipped",
    "counterfactual_size",
    "proven_smallest",
    "counterfactual_evidence",
    "evidence_by_chance",
    "never_flipped",
)


def counterfactuals(config: Config, layout: Layout) -> dict[str, Any] | None:
    """Means per removal and encoder, all domains pooled, and what was not measured; None where nothing was."""
    path = layout.leaderboards / "counterfactuals.csv"
    table = read_table(path) if path.exists() else None
    if table is None or table.empty:
        return None
    whole = table[table["domain"].isna() & (table["status"] == "ok")]
    # Of the curve the share at the largest size that was searched for.
    whole = whole[(whole["quantity"] != "flipped") | (whole["patches"] == whole["patches"].max())]
    rows = [
        {"encoder": encoder, "removal": removal, **{row["quantity"]: row for row in records(part)}}
        for removal in config["inside"]["counterfactuals"]["removals"]
        for encoder in config["encoders"]
        if len(part := whole[(whole["removal"] == removal) & (whole["encoder"] == encoder)])
    ]
    return {
        "images": config["inside"]["counterfactuals"]["images"],
        "largest": int(table["patches"].max()) if table["patches"].notna().any() else None,
        "rows": rows,
        "columns": {name: COUNTERFACTUALS[name] for name in SHOWN},
        "missing": _missing(table),
    }


def surrogates(config: Config, layout: Layout) -> dict[str, Any] | None:
    """Fidelity per removal, encoder and surrogate, all domains pooled, and what some of them say; None without any.

    Of every domain it is what is said of the image on which most are fit, and of all images by their concepts.
    """
    path = layout.leaderboards / "surrogates.csv"
    table = read_table(path) if path.exists() else None
    if table is None or table.empty:
        return None
    whole = table[table["domain"].isna() & (table["status"] == "ok")]
    keys = ["of", "removal", "encoder", "surrogate"]
    rows = [
        {**dict(zip(keys, key, strict=True)), **{row["quantity"]: row for row in records(part)}}
        for key, part in whole.groupby(keys, sort=False, dropna=False)
    ]
    places = {
        "of": ["patches", "concepts"],
        "removal": config["inside"]["surrogates"]["removals"],
        "encoder": list(config["encoders"]),
        "surrogate": ["linear", "tree"],
    }
    rows.sort(key=lambda row: [known.index(row[key]) if row[key] in known else -1 for key, known in places.items()])
    return {
        "given": config["inside"]["surrogates"],
        "rows": rows,
        "columns": SURROGATES,
        "said": [one for domain in config["domains"] for one in _said(config, layout, domain)],
        "missing": _missing(table),
    }


def _said(config: Config, layout: Layout, domain: str) -> list[dict[str, Any]]:
    """What the surrogates of a domain's models say, of the first pair of seeds, under the first removal."""
    seeds = config.first_seeds
    classes = read_json(layout.domain(domain) / "card.json")["classes"]
    removal, across = config["inside"]["surrogates"]["removals"][0], config["image"]["size"] // config["image"]["patch"]
    contents = {
        encoder: read_json(path)["surrogates"]
        for encoder in config["encoders"]
        if (path := layout.inside(ModelId(domain, encoder, *seeds)) / "surrogates.json").exists()
    }
    own = [one for said in contents.values() for one in said if one.get("removal") == removal]
    fit = Counter({one["image_id"]: 0 for one in own})
    fit.update(one["image_id"] for one in own if one["fit"])
    shown = fit.most_common(1)[0][0] if fit else None
    return [
        {
            **one,
            "domain": domain,
            "encoder": encoder,
            "decision": classes[one["class"]] if "class" in one else None,
            "text": words(one, across) if one["fit"] else None,
        }
        for encoder, said in contents.items()
        for one in said
        if one["of"] == "concepts" or (one["removal"], one["image_id"]) == (removal, shown)
    ]


def _missing(table: pd.DataFrame) -> list[dict[str, Any]]:
    """What was not measured: encoders and removals by reason."""
    without = table[table["status"] != "ok"]
    return [
        {
            "reason": reason,
            "encoders": list(dict.fromkeys(part["encoder"])),
            "removals": list(dict.fromkeys(part["removal"].fillna("concepts"))),
        }
        for reason, part in without.groupby("reason", sort=False)
    ]
