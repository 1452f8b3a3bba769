"""What the page says of the run itself: what ran, with which plug-ins, on which data and code, and how to cite it."""

from __future__ import annotations

import platform
from importlib.metadata import metadata
from typing import TYPE_CHECKING, Any

from unmask import __version__, digest, manifest, registry
from unmask.config import Config
from unmask.files import read_json
from unmask.layout import Layout
from unmask.page.embed import records

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "timm", "captum", "quantus", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "snakemake")


def summary(config: Config) -> list[tuple[str, str]]:
    """What this run is, in words."""
    seeds, explain = config["seeds"], config.groups
    submitted = f", and {len(config.submitted)} submitted" if config.submitted else ""
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
        ("Explainers", str(sum(map(len, explain.values()))) + submitted),
        ("Metrics", ", ".join(config["score"]["metrics"])),
        ("Removals", ", ".join(config["score"]["removals"])),
    ]


def encoders(config: Config, accuracy: pd.DataFrame, table: pd.DataFrame | None = None) -> list[dict[str, Any]]:
    """Encoders with their effective mask ratio and mean test accuracy per domain, and what their table says of all."""
    tests = accuracy.groupby(["domain", "encoder"])["test"].mean()
    keys = ("average_distance", "linear_probe_before", "effective_rank_before")
    facts: dict[str, dict[str, Any]] = {}
    if table is not None:
        facts = {row["encoder"]: {key: row[key] for key in keys} for row in records(table[table["domain"].isna()])}
    return [
        {
            "name": name,
            "method": spec["method"],
            "ratio": config.mask_ratio(name),
            "drawn": config.ratio_range(name),
            **facts.get(name, dict.fromkeys(keys)),
            "accuracy": {domain: float(tests[domain, name]) for domain in config["domains"]},
        }
        for name, spec in config["encoders"].items()
    ]


def plugins(config: Config, kind: str) -> list[dict[str, Any]]:
    """What META says of the plug-ins that this config uses, in config order; then what the cards of submissions say."""
    if kind == "explainers":
        specs = [config.explainer(entry) for group in config.groups.values() for entry in group]
        found = [(spec.name, spec.plugin.meta, spec.removal) for spec in specs]
        found += [(name, card.meta, card.data["removal"]) for name, card in config.submitted.items()]
    elif kind == "metrics":
        found = [(name, config.metric(name).plugin.meta, None) for name in config["score"]["metrics"]]
    else:
        used = [*config["score"]["removals"], *(config.explainer(e).removal for g in config.groups.values() for e in g)]
        found = [(name, registry.find(kind, name, config.plugins).meta, None) for name in dict.fromkeys(used) if name]
    return [{"name": name, "removal": removal, "meta": meta} for name, meta, removal in found]


def measured(items: list[dict[str, Any]], table: pd.DataFrame) -> list[dict[str, Any]]:
    """The explainers with what was measured of them, None where nothing was."""
    known = {row["explainer"]: row for row in records(table)}
    keys = ("alias_of", "target_correlation", "forward", "backward")
    return [{**item, **{key: known.get(item["name"], {}).get(key) for key in keys}} for item in items]


def environment(config: Config) -> dict[str, str]:
    """What ran it: versions, the config's hash and seed."""
    return {
        "unmask": __version__,
        "config (hash)": manifest.described(config)["digest"],
        "base seed": str(config["seed"]),
        "python": platform.python_version(),
        **digest.versions(*PACKAGES),
    }


def hashes(config: Config, layout: Layout) -> list[tuple[str, str, str]]:
    """Data and models by SHA-256, those that say theirs: (kind, name, hash)."""
    found = [("data", name, read_json(layout.domain(name) / "card.json").get("sha256")) for name in config["domains"]]
    for model in config.models:
        indices = (layout.maps(model) / f"{group}.json" for group in config.groups)
        known = (read_json(path)["model"].get("sha256") for path in indices if path.exists())
        found.append(("model", model.folder, next(known, None)))
    return [(kind, str(name), hash_) for kind, name, hash_ in found if hash_]


def citation() -> str:
    """BibTeX for this version."""
    about = metadata("unmask")
    author = about.get("Author") or "The unmask authors"
    return (
        f"@software{{unmask,\n  title   = {{unmask: {about['Summary']}}},\n  author  = {{{{{author}}}}},\n"
        f"  version = {{{__version__}}}\n}}"
    )
