"""`unmask list KIND`: the plug-ins of a kind and what is known of each, from their META and docstrings.

With `--markdown` it is a page; `docs/explainers.md` is the explainers', `docs/metrics.md` the metrics'.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
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


def _role(plugin: Plugin) -> str:
    return "gate" if plugin.meta.get("gate") else "rank"


def _scale(plugin: Plugin) -> str:
    low, high = plugin.meta.get("bounds", (None, None))
    return _range(*(bound if bound is None else f"{bound:g}" for bound in (low, high)))


def _range(low: object, high: object) -> str:
    if low is None and high is None:
        return "any"
    if high is None:
        return f"{low} or more"
    return f"{high} or less" if low is None else f"{low} to {high}"


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
        "scale": _scale,
        "role": _role,
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


CATEGORIES = {
    "faithfulness": "Faithfulness",
    "localisation": "Localisation",
    "robustness": "Robustness",
    "complexity": "Complexity",
    "randomisation": "Randomisation",
    "axiomatic": "Axioms",
}
METRICS = """# Metrics

Made from the plug-ins' META and docstrings by `make docs`: change it there. Each metric is a file of its id in
`src/unmask/metrics/`; [quantus.md](quantus.md) tells how Quantus is used, which of its metrics are left out and why,
and what token space is.

A score is a number per image. **Better** is the direction, **scale** what the scores lie between. A metric of the
**role** *rank* takes part in the rankings; a *gate* is shown with whether an explainer passes, and never ranks. The
**chance level** is what a map gets that knows nothing; the control explainers measure it in every table. **Passes** are
images that go through the model and, as *explanations*, images that are explained again, per scored image; formulas are
over the metric's options and `patches`, the number of patches. What several metrics or explainers ask for is computed
once: the passes that are spent are fewer.

What a metric **needs**:

- `removal`: it takes patches away, and runs once for each of the removals in `score.removals`; the table says which.
- `masks`: it compares the map with the evidence. Images without evidence are skipped, and so are images that the model
  gets wrong: there the evidence belongs to another class than the one that is explained.
- `concepts`: it compares the map with what else is in the image, such as the boxes of `driving`, which decide nothing.
  The embedded domains know where that is; images of the `folder` domain are skipped.
- `interventions`: it asks the model about the images with one factor changed (no evidence, no distractor of a kind,
  another background), which the embedded domains can make again; images with fewer than two such factors are skipped,
  and so are those of the `folder` domain. [causes.md](causes.md) tells more.
- `tag`: the same of the shortcut's tag; images without one are skipped.
- `gallery`: images of several classes, with evidence and classified right, to make mosaics of.
- `explainer`: it explains other images, or other networks, with the same explainer.

Every metric takes one option more, `images`: how many of the explained images it scores, the first ones; by default
all of them.
"""


@dataclass(frozen=True)
class Book:
    """How the page of a kind is made: its head, what its chapters are, and what it tells of each plug-in."""

    head: str
    chapter: str  # the key of META
    titles: dict[str, str]
    entry: Callable[[Plugin], list[str]]

    def made(self, kind: str, plugins: list[str]) -> str:
        """The page."""
        known = sorted(registry.available(kind, plugins).values(), key=lambda plugin: plugin.id)
        parts = [self.head]
        for chapter in [*self.titles, *sorted({plugin.meta[self.chapter] for plugin in known} - set(self.titles))]:
            members = [plugin for plugin in known if plugin.meta[self.chapter] == chapter]
            if members:
                parts.append(f"## {self.titles.get(chapter, chapter)}\n\n{_grid(self._overview(kind, members))}")
                parts.extend("\n".join([f"### {plugin.id}", "", *self.entry(plugin)]) for plugin in members)
        return "\n".join(parts)

    def _overview(self, kind: str, members: list[Plugin]) -> list[list[str]]:
        shown = {name: cell for name, cell in COLUMNS[kind].items() if name not in (self.chapter, "needs", "citation")}
        shown["needs"] = _text("needs", "-")
        rows = [[f"[`{p.id}`](#{p.id})", *(_plain(cell(p)) for cell in shown.values())] for p in members]
        return [["id", *shown], *rows]


def _explainer(plugin: Plugin) -> list[str]:
    return [plugin.meta["summary"], "", *_options(plugin), f"{plugin.meta['citation']}.", ""]


def _metric(plugin: Plugin) -> list[str]:
    """Summary and remarks of the file's docstring, the formula and pitfalls of the function's, and what META says."""
    about, formula = _docstrings(plugin)
    lines = [line for paragraph in (*about, *formula) for line in (_plain(paragraph), "")]
    facts = [f"Better: {plugin.meta['direction']}", f"chance level: {plugin.meta.get('chance', 'unknown')}"]
    if "quantus" in plugin.meta:
        facts.append(f"in Quantus: `{plugin.meta['quantus']}`")
    if passed := plugin.meta.get("pass"):
        facts.append("passes: " + ", ".join(f"{side} {level:g}" for side, level in passed.items()))
    return [*lines, *_options(plugin), _plain("; ".join(facts)) + ".", "", _plain(plugin.meta["citation"]) + ".", ""]


def _docstrings(plugin: Plugin) -> tuple[list[str], list[str]]:
    """The paragraphs of the file's docstring and of its function's, each on one line."""
    tree = ast.parse(plugin.path.read_text(encoding="utf-8"))
    named = registry.FUNCTIONS[plugin.kind]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == named]
    texts = (ast.get_docstring(node) or "" for node in (tree, *functions[:1]))
    found = [[" ".join(part.split()) for part in text.split("\n\n") if part.strip()] for text in texts]
    return found[0], found[1] if functions else []


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: the stars, underscores and brackets that it would take for its own escaped."""
    own = re.compile(r"(?<=[^\s*])\*|\*(?=[^\s*])|(?<!\w)_|_(?!\w)|<(?=[\w/!])")
    parts = re.split("(`[^`]*`)", text)
    return "".join(part if part[:1] == "`" else own.sub(lambda found: "\\" + found[0], part) for part in parts)


def page(kind: str, plugins: list[str]) -> str:
    """The table as a page; of explainers and metrics each with all that is known of it, chapter by chapter."""
    if kind in BOOKS:
        return BOOKS[kind].made(kind, plugins)
    return f"# {kind.capitalize()}\n\n{_grid(table(kind, plugins))}"


def _options(plugin: Plugin) -> list[str]:
    lines = []
    if plugin.options:
        lines += ["| option | default | allowed |", "|---|---|---|"]
        lines += [f"| `{name}` | {default} | {_allowed(plugin, name)} |" for name, default in plugin.options.items()]
        lines.append("")
    return lines


def _allowed(plugin: Plugin, option: str) -> str:
    if choices := plugin.meta.get("choices", {}).get(option):
        return ", ".join(map(str, choices))
    return _range(*plugin.meta.get("ranges", {}).get(option, (None, None)))


BOOKS = {
    "explainers": Book(EXPLAINERS, "family", FAMILIES, _explainer),
    "metrics": Book(METRICS, "category", CATEGORIES, _metric),
}


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
