"""Plug-ins: one file each, the file name is the id, found by folder, described without being imported.

A plug-in file holds a literal `META = {...}` and one function, whose name depends on the kind:

    domains     build(options, *, size, seed)         -> unmask.domains.Splits
    explainers  explain(model, images, targets, ...)  -> attribution maps
    metrics     score(case, **options)                -> one number per image
    removals    remove(model, images, keep)           -> what the model is called with

A user's own file is named in the config's `plugins:`; its META says its kind: `"kind": "explainers"`.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from unmask.errors import UserError

FUNCTIONS = {"domains": "build", "explainers": "explain", "metrics": "score", "removals": "remove"}
REQUIRED = {
    "domains": ("summary",),
    "explainers": ("family", "class_specific", "signed", "resolution", "architectures", "passes", "citation"),
    "metrics": ("category", "direction", "needs", "passes", "citation"),
    "removals": ("summary", "architectures"),
}
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Plugin:
    """A plug-in's id, kind, file and META, known without importing it."""

    id: str
    kind: str
    path: Path
    meta: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """The options it takes, with their defaults."""
        return self.meta.get("options", {})

    def load(self) -> ModuleType:
        """Import the file."""
        if self.path.parent == PACKAGE / self.kind:
            return importlib.import_module(f"unmask.{self.kind}.{self.id}")
        place = hashlib.sha256(str(self.path).encode()).hexdigest()[:8]  # two users' files may have one name
        name = f"unmask_plugin_{self.kind}_{self.id}_{place}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, self.path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[name] = module
        return sys.modules[name]


def read(path: Path, kind: str | None = None) -> Plugin:
    """Describe one plug-in file from its syntax tree; raises `UserError` where META or the function is missing."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"plugins: '{path}' does not exist; give the path of a Python file") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"plugins: '{path}' is not valid Python ({error})") from None
    meta = None
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "META" for t in node.targets):
            try:
                meta = ast.literal_eval(node.value)
            except ValueError:
                raise UserError(f"{path}: META must be a literal dict (no names, no calls)") from None
    if not isinstance(meta, dict):
        raise UserError(f"{path}: a plug-in needs a literal `META = {{...}}` at the top level")
    kind = kind or meta.get("kind")
    if kind not in FUNCTIONS:
        raise UserError(f"{path}: META['kind'] is {kind!r}; it must be one of {', '.join(FUNCTIONS)}")
    missing = [key for key in REQUIRED[kind] if key not in meta]
    if missing:
        raise UserError(f"{path}: META lacks {', '.join(missing)}")
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    imported = {a.asname or a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    if FUNCTIONS[kind] not in functions | imported:
        raise UserError(f"{path}: a plug-in of kind {kind} must define the function {FUNCTIONS[kind]}()")
    summary = (ast.get_docstring(tree) or "").strip().partition("\n")[0]
    return Plugin(path.stem, kind, path.resolve(), {"summary": summary, **meta})


@cache
def _embedded(kind: str) -> tuple[Plugin, ...]:
    files = sorted((PACKAGE / kind).glob("*.py"))
    return tuple(read(path.resolve(), kind) for path in files if not path.name.startswith("_"))


def available(kind: str, plugins: Iterable[str | Path] = ()) -> dict[str, Plugin]:
    """All plug-ins of a kind by id: the embedded ones, and the users' files among `plugins`."""
    found = {plugin.id: plugin for plugin in _embedded(kind)}
    for path in plugins:
        plugin = read(Path(path))
        if plugin.kind == kind:
            if plugin.id in found:
                raise UserError(f"plugins: '{path}' has the id '{plugin.id}', which {found[plugin.id].path} has too")
            found[plugin.id] = plugin
    return found


def find(kind: str, name: str, plugins: Iterable[str | Path] = (), where: str = "") -> Plugin:
    """One plug-in; raises `UserError` with the nearest known names for an unknown one."""
    known = available(kind, plugins)
    if name not in known:
        raise UserError(f"{where or kind}: unknown {kind.removesuffix('s')} '{name}'; {suggest(name, known)}")
    return known[name]


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what is known."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
