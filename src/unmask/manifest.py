"""The manifest, `results/manifest.json`: what a run is made of and made by, and the hashes of what it left.

Two runs of one config on one machine have the same manifest but for the sections in `VOLATILE`. Paths are relative to
the results; paths of the config outside them are kept only where they are relative.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask import __version__, dag, digest, registry
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_json, write_json
from unmask.provenance import environment, hashes, times

NAME = "manifest.json"
FORMAT = 1
VOLATILE = ("hardware", "times", "commit")


def settings(config: Config) -> dict[str, Any]:
    """What the manifest depends on beside the files that it hashes."""
    return {"code": digest.code("unmask.manifest"), "versions": environment.libraries(), "config": config.data}


def run(config: Config) -> None:
    """Write it; raises `UserError` where a file of the run is missing."""
    path = config.results / NAME
    made = build(config)
    write_json(path, made)
    print(f"{path}: {sum(map(len, made['hashes'].values()))} files hashed")


def build(config: Config) -> dict[str, Any]:
    """The manifest of what lies in `config.results` now."""
    return {**maker(config), "hashes": hashes.of_run(config), "times": times.of_run(config)}


def maker(config: Config) -> dict[str, Any]:
    """What a run of a config is made by here and now."""
    from unmask.device import resolve

    seeds = config["seeds"]
    return {
        "format": FORMAT,
        "unmask": __version__,
        "config": described(config),
        "seeds": {"base": config["seed"], "pretrain": seeds["pretrain"], "finetune": seeds["finetune"]},
        "code": code(config),
        "environment": environment.environment(),
        "hardware": environment.hardware(resolve(config["device"]).type),
        "commit": environment.commit(),
    }


def described(config: Config) -> dict[str, Any]:
    """The config with all defaults, also those of the plug-ins' options, and the effective mask ratios."""
    keys = {key: value for key, value in config.data.items() if key not in ("results", "submissions")}
    entries = [config.explainer(entry) for group in config.groups.values() for entry in group]
    metrics = [config.metric(name) for name in config["score"]["metrics"]]
    domains = {name: config.domain(name) for name in config["domains"]}
    whole = {
        "keys": keys,
        "mask_ratios": {name: config.mask_ratio(name) for name in config["encoders"]},
        "domains": {name: {"plugin": plugin.id, "options": options} for name, (plugin, options) in domains.items()},
        "explainers": {spec.name: {"removal": spec.removal, "options": spec.options} for spec in entries},
        "metrics": {spec.name: {"images": spec.images, "options": spec.options} for spec in metrics},
        "submissions": {path.name: hashes.fingerprint(path) for path in dag.submission_files(config)},
    }
    whole = _portable(whole)
    return {"digest": digest.of(whole), **whole}


def code(config: Config) -> dict[str, Any]:
    """Digests of the code of every stage and plug-in that the config uses; comments and docstrings do not count."""
    removals = [*config["score"]["removals"]]
    used: dict[str, dict[str, registry.Plugin]] = {"domains": {}, "explainers": {}, "metrics": {}, "removals": {}}
    for name in config["domains"]:
        plugin, _ = config.domain(name)
        used["domains"][plugin.id] = plugin
    for entry in (entry for group in config.groups.values() for entry in group):
        spec = config.explainer(entry)
        used["explainers"][spec.plugin.id] = spec.plugin
        removals += [spec.removal] if spec.removal else []
    for name in config["score"]["metrics"]:
        used["metrics"][name] = config.metric(name).plugin
    used["removals"] = {name: registry.find("removals", name, config.plugins) for name in removals}
    parts = {
        "stages": {stage: digest.code(f"unmask.{stage}") for stage in dag.STAGES},
        "plugins": {kind: {name: digest.code(one.path) for name, one in found.items()} for kind, found in used.items()},
    }
    return {"digest": digest.of(parts), **parts}


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder, None where there is none; raises `UserError` for a broken one or another format."""
    path = folder / NAME
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path} is not a manifest of this version of unmask (format {FORMAT}); run `unmask manifest`")
    return found


def _portable(value: Any) -> Any:
    """Without folders of this machine: of an absolute path the last part stays."""
    if isinstance(value, dict):
        return {key: _portable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_portable(one) for one in value]
    if isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()):
        return Path(value).name
    return value
