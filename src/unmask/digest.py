"""Fingerprints of what a result depends on: code, library versions, settings.

The DAG passes them as rule parameters, so that an edit or an upgrade reruns what it touches and nothing else; inside
a job they key the cells, so that a rerun computes only the missing ones.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
# They decide what runs and what is said, never a number: their effect on results is digested as settings.
_WITHOUT_EFFECT = {"api", "cli", "config", "digest", "encoders", "errors", "layout", "plan", "progress", "registry"}


def of(value: Any) -> str:
    """16 hexadecimal digits of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code(*roots: str | Path) -> str:
    """A digest of the code of modules (`unmask.explain`) or files and of all of unmask that they import.

    Taken from the syntax tree without docstrings: comments, formatting and docstrings leave it unchanged.
    """
    pending = [_path(root) if isinstance(root, str) and root.startswith("unmask.") else Path(root) for root in roots]
    seen: dict[Path, str] = {}
    while pending:
        path = pending.pop().resolve()
        if path not in seen:
            seen[path], imports = _read(path, path.stat().st_mtime_ns)
            pending.extend(imports)
    return of(sorted(seen.values()))


def listing(folder: str | Path) -> str:
    """A digest of a folder's files by name, size and time of change."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            state = path.stat()
            found.append((path.relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns))
    return of(sorted(found))


def versions(*packages: str) -> dict[str, str]:
    """Installed versions by package name (pip upgrades trigger no rerun of Snakemake's by themselves)."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}


def _path(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != "unmask" or (len(parts) == 2 and parts[1] in _WITHOUT_EFFECT):
        return None
    base = PACKAGE.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _read(path: Path, _mtime: int) -> tuple[str, tuple[Path, ...]]:
    """A file's name and dumped code, and the unmask files it imports at any depth."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set(_imported(tree, path))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    found = (_path(name) for name in names)
    return f"{path.name}:{digest}", tuple(sorted({p for p in found if p is not None}))


def _imported(tree: ast.AST, path: Path) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
