"""What made two runs, from their manifests: config, code, environment, hardware, and where their results part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask import manifest
from unmask.provenance import environment, hashes

_RESOLVED = (("explain", "options"), ("score", "options"), ("domains",))  # keys that stand below with every default
_SHOWN = 6


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder of results or of published tables, also where the folder of the tables was named."""
    return manifest.read(folder) or manifest.read(folder.parent if folder.name == "6_leaderboards" else folder)


def stale(folder: Path, found: dict[str, Any], tables: list[Path]) -> list[str]:
    """The tables that are not those of the folder's manifest, by name."""
    known = found.get("published") or found["hashes"]["leaderboards"]
    results = folder.parent if folder.name == "6_leaderboards" else folder
    names = {path.relative_to(results).as_posix() for path in tables}
    wrong = hashes.changed(results, {name: known[name] for name in names if name in known})
    return sorted({*wrong, *(name for name in names if name not in known)})


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, str]:
    """What differs, a line per topic; a topic without a difference says so."""
    return {**makers(first, second), "results": _parting(first["hashes"], second["hashes"])}


def makers(first: dict[str, Any], second: dict[str, Any]) -> dict[str, str]:
    """The same of what made them alone."""
    return {
        "config": _said(_config(first["config"], second["config"]), "the same"),
        "code": _said(_code(first["code"], second["code"]), "the same") + _commits(first["commit"], second["commit"]),
        "environment": _said(_environment(first["environment"], second["environment"]), "the same"),
        "hardware": _said(_flat_changes(first["hardware"], second["hardware"]), "the same"),
    }


def _said(changes: list[str], nothing: str) -> str:
    more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return ("; ".join(changes[:_SHOWN]) + more) or nothing


def _config(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    return _flat_changes(_resolved(first), _resolved(second))


def _resolved(described: dict[str, Any]) -> dict[str, Any]:
    """Keys and options, each once."""
    keys = {name: value for name, value in described["keys"].items() if (name,) not in _RESOLVED}
    for section, key in (pair for pair in _RESOLVED if len(pair) == 2):
        keys[section] = {name: value for name, value in keys[section].items() if name != key}
    return {**keys, **{name: value for name, value in described.items() if name not in ("digest", "keys")}}


def _flat_changes(first: Any, second: Any, where: str = "") -> list[str]:
    """`explain.images 20 -> 50` for every value that differs from the first to the second, at any depth."""
    if first == second:
        return []
    if isinstance(first, dict) and isinstance(second, dict):
        found = []
        for key in dict.fromkeys([*first, *second]):
            name = f"{where}.{key}" if where else str(key)
            if key not in first or key not in second:
                found.append(f"{name} is {'gone' if key in first else 'new'}")
            else:
                found += _flat_changes(first[key], second[key], name)
        return found
    if isinstance(first, list) and isinstance(second, list):
        lost, new = [x for x in first if x not in second], [x for x in second if x not in first]
        words = [f"{text} {', '.join(map(str, some))}" for text, some in (("without", lost), ("with", new)) if some]
        return [f"{where} {' and '.join(words)}" if words else f"{where} in another order"]
    return [f"{where} {first} -> {second}"]


def _code(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Stages and plug-ins of both whose code differs; plug-ins of one only are told by the config."""
    parts = {"stages": (first["stages"], second["stages"])}
    for kind in dict.fromkeys([*first["plugins"], *second["plugins"]]):
        parts[kind] = first["plugins"].get(kind, {}), second["plugins"].get(kind, {})
    found = []
    for kind, (one, other) in parts.items():
        changed = [name for name in one if name in other and one[name] != other[name]]
        if changed:
            found.append(f"{kind} {', '.join(changed)} differ" + ("s" if len(changed) == 1 else ""))
    return found


def _commits(first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    if first == second:
        return ""
    words = [
        "no commit known" if one is None else one["commit"][:10] + (" edited" if one["edited"] else "")
        for one in (first, second)
    ]
    return f" (commit {words[0]} -> {words[1]})"


def _environment(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Interpreter and platform, then libraries, those that unmask itself asks for first."""
    found = [
        f"{name} {first[name]} -> {second[name]}" for name in ("python", "platform") if first[name] != second[name]
    ]
    one, other = first["libraries"], second["libraries"]
    names = sorted({*one, *other}, key=lambda name: (name not in environment.direct(), name))
    found += [
        f"{name} {one.get(name, 'none')} -> {other.get(name, 'none')}"
        for name in names
        if one.get(name) != other.get(name)
    ]
    if first["lock"] != second["lock"]:
        found.append("another requirements.lock")
    return found


def _parting(first: dict[str, Any], second: dict[str, Any]) -> str:
    """The first stage at which files of both runs differ, and which.

    The side-cars of weights are left out: they name the code that trained, which may change and train the same.
    """
    for section in hashes.SECTIONS:
        one, other = first.get(section, {}), second.get(section, {})
        sidecars = section in ("encoders", "models")
        both = [name for name in one if name in other and not (sidecars and name.endswith(".json"))]
        changed = [name for name in both if one[name] != other[name]]
        if changed:
            return f"they part at the {section}: {len(changed)} of {len(both)} files differ, the first is {changed[0]}"
    alone = {name for part in first.values() for name in part} ^ {name for part in second.values() for name in part}
    return "the files that both have are the same" if alone else "every file is the same"
