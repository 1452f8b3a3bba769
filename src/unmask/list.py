"""`unmask list KIND`: the plug-ins of a kind and what is known of each, from their META alone.

With `--markdown` it is a page; `docs/explainers.md` is the explainers'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unmask import registry
from unmask.config import Config
from unmask.registry import Plugin


def _passes(plugin: Plugin) -> str:
    """The formulas per image, `512 forward`; options stand as their names."""
    return ", ".join(f"{formula} {way}" for way, formula in plugin.meta["passes"].items() if formula != "0") or "none"


def _yes(key: str) -> Callable[[Plugin], str]:
    return lambda plugin: "yes" if plugin.meta[key] else "no"


def _text(key: str, default: str = "") -> Callable[[Plugin], str]:
    def cell(plugin: Plugin) -> str:
        value: Any = plugin.meta.get(key) or default
        return ", ".join(value) if isinstance(value, list | tuple) else str(value)

    return cell


def _applies_to(plugin: Plugin) -> str:
    poolings = plugin.meta.get("poolings", [])
    vit = "ViT" + (f" ({' or '.join(POOLINGS[pooling] for pooling in poolings)})" if poolings else "")
    return ", ".join({"vit": vit, "resnet": "ResNet"}[arch] for arch in plugin.meta["architectures"])


POOLINGS = {"avg": "mean pooling", "token": "class token"}
COLUMNS: dict[str, dict[str, Callable[[Plugin], str]]] = {
    "domains": {"about": _text("summary")},
    "explainers": {
        "family": _text("family"),
        "applies to": _applies_to,
        "class-specific": _yes("class_specific"),
        "signed": _yes("signed"),
        "resolution": _text("resolution"),
        "removal": _text("removal", "-"),
        "passes per image": _passes,
        "citation": _text("citation"),
    },
    "metrics": {
        "category": _text("category"),
        "better": _text("direction"),
        "needs": _text("needs", "-"),
        "passes per image": _passes,
        "citation": _text("citation"),
    },
    "removals": {"absent means": _text("summary"), "needs": _text("needs", "-"), "citation": _text("citation")},
}


def table(kind: str, plugins: list[str]) -> list[list[str]]:
    """A header row and a row per plug-in, in order of the id."""
    known = sorted(registry.available(kind, plugins).values(), key=lambda plugin: plugin.id)
    columns = COLUMNS[kind]
    return [["id", *columns], *([plugin.id, *(cell(plugin) for cell in columns.values())] for plugin in known)]


FAMILIES = {
    "gradient": "Gradients",
    "cam": "Class activation maps",
    "attention": "Attention",
    "relevance": "Relevance propagation",
    "perturbation": "Perturbation",
    "mim": "Masked image modelling",
    "control": "Controls",
}
EXPLAINERS = """# Explainers

Made from the plug-ins' META by `make docs`: change it there. Each explainer is a file of its id in
`src/unmask/explainers/`, whose docstring has the formula and the choices made.

**Passes** are images that go through the model, per explained image: `backward` is a pass forward and one back. The
formulas are over the explainer's options, `patches` (the number of patches) and `width` (the channels of the activation
that a CAM reads). **Signed** maps are negative where the image speaks against the target; others tell importance only.
A **class-specific** map depends on the target. The **removal** is what "absent" means to a perturbing explainer by
default; `id@removal` is the same with another one of `unmask list removals`.
"""


def page(kind: str, plugins: list[str]) -> str:
    """The table as a page; for explainers, each with its summary, options and citation, family by family."""
    if kind != "explainers":
        return f"# {kind.capitalize()}\n\n{_grid(table(kind, plugins))}"
    known = sorted(registry.available(kind, plugins).values(), key=lambda plugin: plugin.id)
    families = {family: [p for p in known if p.meta["family"] == family] for family in [*FAMILIES, *_others(known)]}
    parts = [EXPLAINERS]
    for family, members in families.items():
        if members:
            parts.append(f"## {FAMILIES.get(family, family)}\n\n{_grid(_overview(members))}")
            parts.extend(_entry(plugin) for plugin in members)
    return "\n".join(parts)


def _others(known: list[Plugin]) -> list[str]:
    return sorted({plugin.meta["family"] for plugin in known} - set(FAMILIES))


def _overview(members: list[Plugin]) -> list[list[str]]:
    shown = {name: cell for name, cell in COLUMNS["explainers"].items() if name not in ("family", "citation")}
    rows = [[f"[`{p.id}`](#{p.id})", *(cell(p) for cell in shown.values()), _text("needs", "-")(p)] for p in members]
    return [["id", *shown, "needs"], *rows]


def _entry(plugin: Plugin) -> str:
    lines = [f"### {plugin.id}", "", plugin.meta["summary"], ""]
    if plugin.options:
        lines += ["| option | default | allowed |", "|---|---|---|"]
        lines += [f"| `{name}` | {default} | {_allowed(plugin, name)} |" for name, default in plugin.options.items()]
        lines.append("")
    return "\n".join([*lines, f"{plugin.meta['citation']}.", ""])


def _allowed(plugin: Plugin, option: str) -> str:
    if choices := plugin.meta.get("choices", {}).get(option):
        return ", ".join(map(str, choices))
    low, high = plugin.meta.get("ranges", {}).get(option, (None, None))
    if low is None and high is None:
        return "any"
    if high is None:
        return f"{low} or more"
    return f"{high} or less" if low is None else f"{low} to {high}"


def _grid(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], ""])


def run(config: Config, kind: str, *, markdown: bool = False) -> None:
    """Print the table, columns aligned, or the page."""
    if markdown:
        print(page(kind, config.plugins), end="")
        return
    rows = table(kind, config.plugins)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
