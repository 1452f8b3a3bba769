"""`unmask list KIND`: the plug-ins of a kind and what is known of each, from their META alone."""

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


COLUMNS: dict[str, dict[str, Callable[[Plugin], str]]] = {
    "domains": {"about": _text("summary")},
    "explainers": {
        "family": _text("family"),
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


def run(config: Config, kind: str) -> None:
    """Print the table, columns aligned."""
    rows = table(kind, config.plugins)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
