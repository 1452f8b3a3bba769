"""`index.html`: one file without outside references, from the tables, the pictures and the plug-ins' META.

Everything that comes from users' files is escaped: jinja2 escapes text, and data for the script is JSON without `<`.
"""

from __future__ import annotations

import base64
import io
import json
import platform
import re
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import __version__, digest, registry
from unmask.config import Config
from unmask.layout import Layout
from unmask.tables.columns import BOARDS

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "timm", "captum", "quantus", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "snakemake")
LARGE, WIDEST = 500_000, 1600  # bytes, pixels: what is larger is shrunk for the page; the figures' own files are not


def page(config: Config, layout: Layout, tables: dict[str, pd.DataFrame], figures: dict[str, Path]) -> str:
    """The page's HTML; `figures` maps a figure's stem to its PNG."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, words=lambda name: str(name).replace("_", " "))
    return environment.get_template("index.html").render(
        css=(folder / "index.css").read_text(encoding="utf-8"),
        js=(folder / "index.js").read_text(encoding="utf-8"),
        boards=embedded(boards(tables)),
        version=__version__,
        seed=config["seed"],
        config_hash=digest.of(config.data),
        confidence=config["aggregate"]["confidence"],
        bootstrap=config["aggregate"]["bootstrap"],
        summary=summary(config),
        encoders=encoders(config, tables["accuracy"]),
        ranking=ranking(tables["ranking"]),
        flags=flags(tables["leaderboard"]),
        failed=records(tables["failed"]),
        pictures=pictures(config, layout, figures),
        explainers=measured(plugins(config, "explainers"), tables["explainers"]),
        metrics=plugins(config, "metrics"),
        removals=plugins(config, "removals"),
        versions={"python": platform.python_version(), **digest.versions(*PACKAGES)},
        citation=citation(),
    )


def number(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits, an en dash for none."""
    return "\N{EN DASH}" if value is None or value != value else f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def embedded(value: Any) -> Any:
    """JSON for a `<script type="application/json">`: no `<`, so nothing inside can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts, missing values as None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def boards(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """All leaderboards as one list of rows; `domain` and `encoder` are empty where they are pooled."""
    import pandas as pd

    columns = BOARDS["leaderboard"]
    parts = [tables[name].reindex(columns=columns).astype(object) for name in ("overall", "by_domain", "leaderboard")]
    whole = pd.concat(parts, ignore_index=True)
    rows = [[_compact(value) for value in row] for row in whole.itertuples(index=False)]
    return {"columns": columns, "rows": rows}


def _compact(value: Any) -> Any:
    if value is None or value != value:
        return None
    return float(f"{value:.5g}") if isinstance(value, float) else value


def summary(config: Config) -> list[tuple[str, str]]:
    """What this run is, in words."""
    seeds, explain = config["seeds"], config.groups
    return [
        ("Domains", ", ".join(config["domains"])),
        ("Models", f"{len(config.models)} (domain x encoder x seeds)"),
        (
            "Seeds",
            "; ".join(
                f"{stage} {', '.join(map(str, seeds[key]))}"
                for stage, key in (("pretraining", "pretrain"), ("fine-tuning", "finetune"))
            ),
        ),
        (
            "Images",
            f"{config['explain']['images']} test images explained per model, {config['image']['size']} px, "
            f"patches of {config['image']['patch']} px",
        ),
        ("Explainers", str(sum(map(len, explain.values())))),
        ("Metrics", ", ".join(config["score"]["metrics"])),
        ("Removals", ", ".join(config["score"]["removals"])),
    ]


def encoders(config: Config, accuracy: pd.DataFrame) -> list[dict[str, Any]]:
    """Encoders with their effective mask ratio and mean test accuracy per domain."""
    tests = accuracy.groupby(["domain", "encoder"])["test"].mean()
    return [
        {
            "name": name,
            "method": spec["method"],
            "ratio": config.mask_ratio(name),
            "accuracy": {domain: float(tests[domain, name]) for domain in config["domains"]},
        }
        for name, spec in config["encoders"].items()
    ]


def ranking(table: pd.DataFrame) -> dict[str, Any]:
    """The ranking over everything: explainers, best first, with their mean rank in each category."""
    rows = table[table["scope"] == "all"]
    categories = [c for c in dict.fromkeys(rows["category"]) if c != "all"]
    by = {(row["category"], row["explainer"]): row["mean_rank"] for row in records(rows)}
    top = [
        {**row, "categories": [by.get((c, row["explainer"])) for c in categories]}
        for row in records(rows[rows["category"] == "all"])
    ]
    return {"categories": categories, "rows": top}


def flags(board: pd.DataFrame) -> list[dict[str, Any]]:
    """Metrics that do not separate the controls on a model."""
    unclear = board[board["controls_separated"].map(lambda flag: flag is False)]
    return records(unclear[["domain", "encoder", "metric", "removal", "variant"]].drop_duplicates())


def pictures(config: Config, layout: Layout, figures: dict[str, Path]) -> dict[str, list[dict[str, str]]]:
    """Pictures by section as data URIs with their captions; what does not exist is left out."""
    domains = list(config["domains"])
    wanted: dict[str, list[tuple[Path | None, str]]] = {
        "ranks": [(figures.get("ranks"), "Rank of every explainer under every metric, all models pooled")],
        "leaderboards": [
            (figures.get(f"leaderboard_{d}"), f"{d}: means with intervals, encoders pooled") for d in domains
        ],
        "ratios": [(figures.get(f"mask_ratio_{d}"), f"{d}: scores against the effective mask ratio") for d in domains],
        "galleries": [
            (path, f"{d}: attribution maps of the most accurate model")
            for d in domains
            for name, path in figures.items()
            if re.fullmatch(rf"gallery_{re.escape(d)}(\.\d+)?", name)
        ],
        "reconstructions": [
            (layout.encoder(name, seed) / "reconstruction.png", f"{name}, pretraining seed {seed}")
            for name in config.pretrained
            for seed in config["seeds"]["pretrain"]
        ],
        "previews": [(layout.domain(d) / "preview.png", d) for d in domains],
    }
    return {
        section: [{"uri": data_uri(path), "caption": caption} for path, caption in items if path and path.exists()]
        for section, items in wanted.items()
    }


def data_uri(path: Path) -> str:
    """A PNG as a data URI; a large one shrunk and in 256 colours, so that the page stays light."""
    from PIL import Image

    if path.stat().st_size <= LARGE:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
        if rgb.width > WIDEST:
            rgb = rgb.resize((WIDEST, round(rgb.height * WIDEST / rgb.width)), Image.Resampling.LANCZOS)
        rgb.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def plugins(config: Config, kind: str) -> list[dict[str, Any]]:
    """What META says of the plug-ins that this config uses, in config order."""
    if kind == "explainers":
        specs = [config.explainer(entry) for group in config.groups.values() for entry in group]
        found = [(spec.name, spec.plugin, spec.removal) for spec in specs]
    elif kind == "metrics":
        found = [(name, config.metric(name).plugin, None) for name in config["score"]["metrics"]]
    else:
        used = [*config["score"]["removals"], *(config.explainer(e).removal for g in config.groups.values() for e in g)]
        found = [(name, registry.find(kind, name, config.plugins), None) for name in dict.fromkeys(used) if name]
    return [{"name": name, "removal": removal, "meta": plugin.meta} for name, plugin, removal in found]


def measured(items: list[dict[str, Any]], table: pd.DataFrame) -> list[dict[str, Any]]:
    """The explainers with what was measured of them, None where nothing was."""
    known = {row["explainer"]: row for row in records(table)}
    keys = ("alias_of", "target_correlation", "forward", "backward")
    return [{**item, **{key: known.get(item["name"], {}).get(key) for key in keys}} for item in items]


def citation() -> str:
    """BibTeX for this version."""
    about = metadata("unmask")
    author = about.get("Author") or "The unmask authors"
    return (
        f"@software{{unmask,\n  title   = {{unmask: {about['Summary']}}},\n  author  = {{{{{author}}}}},\n"
        f"  version = {{{__version__}}}\n}}"
    )
