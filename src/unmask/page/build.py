"""`index.html`: one file without outside references, from the tables, the pictures and the plug-ins' META.

Everything that comes from users' files is escaped: jinja2 escapes text, and data for the script is base64.
The page's template, style and scripts are `index.*` beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.config import Config
from unmask.files import read_table
from unmask.layout import Layout
from unmask.page import about, answers, inside
from unmask.page.embed import data_uri, deflated, number, packed, records
from unmask.page.plates import plates
from unmask.tables.columns import BOARDS

if TYPE_CHECKING:
    import pandas as pd

Figure = tuple[str, Path]
SCRIPTS = ("index.js", "index.table.js", "index.views.js", "index.gallery.js")  # in the order in which they run
# Shown where they exist and are not empty.
OPTIONAL = (
    "metric_clusters",
    "encoders",
    "chance",
    "gates",
    "ratio_effects",
    "stability",
    "friedman",
    "hypotheses",
    "metric_quality",
)
# Where the figures of a kind stand, and what they are called there; any other kind stands among "more figures".
KINDS = {
    "ranks": ("ranking", "Ranks under every metric"),
    "critical": ("ranking", "Critical differences"),
    "leaderboard": ("leaderboards", "Means with intervals"),
    "controls": ("leaderboards", "The controls"),
    "curves": ("leaderboards", "Deletion and insertion"),
    "effects": ("ratios", "What the mask ratio changes"),
    "mask_ratio": ("ratios", "Scores against the mask ratio"),
    "agreement": ("questions", "Which metrics agree"),
    "removals": ("questions", "How removals change the ranking"),
    "quality": ("questions", "Which metrics can be trusted"),
    "pareto": ("figures", "Faithfulness against compute"),
    "missingness": ("inside", "Answers and features as patches are removed"),
    "causes": ("inside", "True effects of evidence, distractors and background"),
    "causal_model": ("inside", "Estimated against true effects"),
    "inside_attention": ("inside", "Attention"),
    "inside_features": ("inside", "Features"),
    "cka": ("inside", "How alike layers and encoders are"),
    "heads": ("inside", "Attention, head by head"),
    "filters": ("inside", "What a patch is described by"),
    "image_maps": ("inside", "Which images lie together"),
    "counterfactuals": ("inside", "How little decides"),
    "counterfactual_sets": ("inside", "Sets of patches that decide"),
    "surrogates": ("inside", "How faithful simple stand-ins are"),
    "surrogate_maps": ("inside", "What sparse linear stand-ins say"),
    "dissection": ("inside", "Units that detect concepts, layer by layer"),
    "tcav": ("inside", "Concepts that are known, and followed"),
    "units": ("inside", "What single units answer to"),
    "visualisations": ("inside", "Images made to drive classes and units"),
    "factors": ("inside", "Concepts that nobody named"),
    "losses": ("reconstructions", "Loss curves"),
}
# Of these the page holds the one of all domains; single domains lie with the figures, or it would be too heavy.
POOLED = (
    "agreement",
    "effects",
    "removals",
    "quality",
    "missingness",
    "inside_attention",
    "inside_features",
    "cka",
    "dissection",
    "counterfactuals",
    "surrogates",
)
SECTIONS = ("ranking", "leaderboards", "ratios", "questions", "inside", "figures", "reconstructions", "data")


def page(config: Config, layout: Layout, tables: dict[str, pd.DataFrame], figures: dict[str, Figure]) -> str:
    """The page's HTML; `figures` maps a figure's stem to its caption and PNG."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        words=lambda name: str(name).replace("_", " "),
        marked=lambda name: f"{name} (submitted)" if name in config.submitted else name,
    )
    paths = {name: layout.leaderboards / f"{name}.csv" for name in OPTIONAL}
    found = {name: read_table(path) for name, path in paths.items() if path.exists()}
    tables = {**tables, **{name: table for name, table in found.items() if len(table)}}
    drawn = pictures(config, layout, figures)
    gallery = plates(config, layout, tables["accuracy"])
    return environment.get_template("index.html").render(
        css=(folder / "index.css").read_text(encoding="utf-8"),
        scripts=[(folder / name).read_text(encoding="utf-8") for name in SCRIPTS],
        tables=deflated(views(tables, config.gates)),
        gallery=gallery and deflated(gallery),
        confidence=config["aggregate"]["confidence"],
        bootstrap=config["aggregate"]["bootstrap"],
        summary=about.summary(config),
        submitted={name: card.data for name, card in config.submitted.items()},
        encoders=about.encoders(config, tables["accuracy"], tables.get("encoders")),
        leaders=answers.leaders(config, tables),
        ratios=answers.ratios(tables.get("ratio_effects")),
        shown=set(tables),
        has_questions=bool({"hypotheses", "stability", "friedman", "metric_quality"} & set(tables))
        or bool(drawn["questions"]),
        clusters=records(tables["metric_clusters"]) if "metric_clusters" in tables else [],
        hypotheses=records(tables["hypotheses"]) if "hypotheses" in tables else [],
        inside=inside.inside(config, layout, tables.get("hypotheses")),
        flags=flags(tables["leaderboard"]),
        failures=failures(tables["failed"]),
        pictures=drawn,
        explainers=about.measured(about.plugins(config, "explainers"), tables["explainers"]),
        metrics=about.plugins(config, "metrics"),
        removals=about.plugins(config, "removals"),
        environment=about.environment(config),
        hashes=about.hashes(config, layout),
        citation=about.citation(),
    )


def views(tables: dict[str, pd.DataFrame], gates: list[str]) -> dict[str, Any]:
    """The tables that `index.views.js` shows, packed; what an older run's tables lack is a column of nothing.

    `gates` have a view of their own.
    """
    import pandas as pd

    columns = BOARDS["leaderboard"]
    parts = [tables[name].reindex(columns=columns).astype(object) for name in ("overall", "by_domain", "leaderboard")]
    boards = pd.concat(parts, ignore_index=True)
    shown = {
        "boards": boards[~boards["metric"].isin(gates)],
        "ranking": tables["ranking"].reindex(columns=BOARDS["ranking"]),
        "failed": tables["failed"],
    }
    for name in ("ratio_effects", "friedman"):
        if name in tables:
            shown[name] = tables[name]
    if "chance" in tables:
        keys = ["domain", "encoder", "metric", "removal", "variant"]
        shown["chance"] = tables["chance"][[*keys, "chance", "chance_by", "ceiling", "ceiling_by", "reason"]]
    if "gates" in tables:
        table = tables["gates"]
        shown["gates"] = table[table["scope"] != "model"].drop(columns=["scope", "encoder", "removal"])
    if "metric_quality" in tables:
        table = tables["metric_quality"]
        shown["quality"] = table[table["scope"] != "model"].drop(columns=["scope", "encoder", "mc_input", "mc_model"])
    if "stability" in tables:
        # Means over the metrics; Kendall's W is part of the Friedman tests.
        table = tables["stability"]
        shown["stability"] = table[table["metric"].isna() & (table["measure"] == "kendall_tau")]
    return {name: packed(table) for name, table in shown.items()}


def flags(board: pd.DataFrame) -> list[dict[str, Any]]:
    """Metrics that do not separate the controls on a model."""
    unclear = board[board["controls_separated"].map(lambda flag: flag is False)]
    return records(unclear[["domain", "encoder", "metric", "removal", "variant"]].drop_duplicates())


def failures(failed: pd.DataFrame) -> list[dict[str, Any]]:
    """What failed, then what was skipped, by reason: how many scores, under which metrics, of how many explainers."""
    groups = failed.assign(reason=failed["reason"].fillna("")).groupby(["status", "reason"], sort=False)
    rows = [
        {
            "status": status,
            "reason": reason,
            "count": int(part["count"].sum()),
            "metrics": ", ".join(dict.fromkeys(part["metric"])),
            "explainers": list(dict.fromkeys(part["explainer"])),
        }
        for (status, reason), part in groups
    ]
    return sorted(rows, key=lambda row: (row["status"] != "failed", -row["count"]))


def pictures(config: Config, layout: Layout, figures: dict[str, Figure]) -> dict[str, dict[str, list[dict[str, str]]]]:
    """Pictures by section and title, as data URIs; the galleries stand there as a browser instead."""
    domains = list(config["domains"])
    found = []
    for name, (caption, path) in figures.items():
        stem, _, part = name.partition(".")
        domain = next((domain for domain in domains if stem.endswith(f"_{domain}")), None)
        kind = stem.removesuffix(f"_{domain}")
        if kind != "gallery" and not (domain and kind in POOLED and len(domains) > 1):
            section, title = KINDS.get(kind, ("figures", kind.replace("_", " ")))
            label = domain or "all domains"
            found.append((section, title, f"{label}, {part}" if part else label, caption, path))
    for name in config.pretrained:
        for seed in config["seeds"]["pretrain"]:
            caption = f"{name}, pretraining seed {seed}"
            found.append(("reconstructions", "", caption, caption, layout.encoder(name, seed) / "reconstruction.png"))
    found.extend(("data", "", domain, domain, layout.domain(domain) / "preview.png") for domain in domains)
    sections: dict[str, dict[str, list[dict[str, str]]]] = {section: {} for section in SECTIONS}
    for section, title, label, caption, path in found:
        if path.exists():
            picture = {"label": label, "caption": caption, "uri": data_uri(path)}
            sections[section].setdefault(title, []).append(picture)
    return sections
