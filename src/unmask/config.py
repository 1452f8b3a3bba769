"""The config: read, held to its schema and to our own checks, and turned into the cells of the benchmark.

Every mistake is a `UserError`: one sentence that names the key, what is wrong and what would be right.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unmask import encoders, registry
from unmask.encoders import MASKED, UNTRAINED
from unmask.errors import UserError
from unmask.schema import problems
from unmask.submissions import card
from unmask.submissions.card import Card

SCHEMA = json.loads(Path(__file__).with_name("config.schema.json").read_text(encoding="utf-8"))


@dataclass(frozen=True, order=True)
class ModelId:
    """An encoder fine-tuned on a domain with one pair of seeds."""

    domain: str
    encoder: str
    pretrain_seed: int
    finetune_seed: int

    @property
    def seeds(self) -> str:
        """The seeds as they stand in paths, `p0f0`."""
        return f"p{self.pretrain_seed}f{self.finetune_seed}"

    @property
    def folder(self) -> str:
        """Where the model's results lie below a stage's folder."""
        return f"{self.domain}/{self.encoder}/{self.seeds}"


@dataclass(frozen=True)
class ExplainerSpec:
    """An entry of a group: a plug-in, the removal it perturbs with (None where it removes nothing), its options."""

    name: str
    plugin: registry.Plugin
    removal: str | None
    options: dict[str, Any]


@dataclass(frozen=True)
class MetricSpec:
    """A metric, its options, and how many of the explained images it scores (None = all)."""

    name: str
    plugin: registry.Plugin
    options: dict[str, Any]
    images: int | None


class Config:
    """A checked config. `config["section"]` gives a section with every default filled in."""

    def __init__(self, data: dict[str, Any]):
        self.data = _with_defaults(data)
        _check(self)

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    @property
    def results(self) -> Path:
        """The folder of all results."""
        return Path(self["results"])

    @property
    def plugins(self) -> list[str]:
        """Paths of the user's own plug-in files."""
        return self["plugins"]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Explainer entries by group; a group is one process per model."""
        return self["explain"]["groups"]

    @cached_property
    def models(self) -> list[ModelId]:
        """Every model, in config order."""
        seeds = self["seeds"]
        return [
            ModelId(domain, encoder, p, f)
            for domain in self["domains"]
            for encoder in self["encoders"]
            for p in seeds["pretrain"]
            for f in seeds["finetune"]
        ]

    @property
    def first_seeds(self) -> tuple[int, int]:
        """The pretraining and fine-tuning seed of the models that pictures are of."""
        return self["seeds"]["pretrain"][0], self["seeds"]["finetune"][0]

    @property
    def pretrained(self) -> list[str]:
        """Encoders that a pretraining job makes; the models of the others start from random weights."""
        return [name for name, spec in self["encoders"].items() if spec["method"] not in UNTRAINED]

    @property
    def numerics(self) -> dict[str, Any]:
        """Of how trainings are run, what decides more of their result than its rounding."""
        return {key: self["training"][key] for key in ("precision", "accumulate", "compile")}

    @property
    def masked(self) -> list[str]:
        """Those of them that learn to fill in what is masked, and so have a network that does."""
        return [name for name, spec in self["encoders"].items() if spec["method"] in MASKED]

    def pretraining_of(self, encoder: str) -> str:
        """The encoder whose pretraining another starts from: mostly itself.

        One that says how patches are missing in fine-tuning is a condition of that, and shares the pretraining of the
        first encoder that is pretrained as it would be.
        """
        spec = self["encoders"][encoder]
        if encoders.MISSING not in spec or encoder not in self.pretrained:
            return encoder
        alike = encoders.pretraining(spec)
        return next(name for name, one in self["encoders"].items() if encoders.pretraining(one) == alike)

    def missing(self, encoder: str) -> str | None:
        """How patches are missing in an encoder's fine-tuning: `none` or None for not at all."""
        return self["encoders"][encoder].get(encoders.MISSING, self["finetune"].get(encoders.MISSING))

    def domain(self, name: str) -> tuple[registry.Plugin, dict[str, Any]]:
        """A domain's plug-in and its options, defaults filled in."""
        spec = dict(self["domains"][name] or {})
        plugin = registry.find("domains", spec.pop("plugin", name), self.plugins, f"domains.{name}")
        return plugin, {**plugin.options, **spec}

    @property
    def gates(self) -> list[str]:
        """The metrics that are shown and never rank: what they ask, such as randomisation, is passed or failed."""
        return [name for name in self["score"]["metrics"] if self.metric(name).plugin.meta.get("gate")]

    @cached_property
    def submitted(self) -> dict[str, Card]:
        """The cards of what others submitted, by the name of their explainer."""
        cards = [card.read(path, "submissions") for path in self["submissions"]]
        return {one.name: one for one in cards}

    @property
    def entries(self) -> list[str]:
        """Every explainer of the leaderboards: those of the groups, then those that were submitted."""
        return [*(entry for group in self.groups.values() for entry in group), *self.submitted]

    def meta(self, entry: str) -> dict[str, Any]:
        """What the META of an explainer, or the card of a submitted one, says."""
        return self.submitted[entry].meta if entry in self.submitted else self.explainer(entry).plugin.meta

    def owner(self, name: str) -> str | None:
        """What has a name already that a submission would like to have; None where it is free."""
        for group, entries in self.groups.items():
            if name in entries:
                return f"an entry of explain.groups.{group}"
        known = registry.available("explainers", self.plugins).get(name.partition("@")[0])
        return known and f"an explainer of {'unmask' if known.path.parent.parent == registry.PACKAGE else known.path}"

    def explainer(self, entry: str, where: str = "explain.groups") -> ExplainerSpec:
        """Read an entry, `rise` or `rise@mask_token` (the explainer with another removal than its default)."""
        options = self["explain"]["options"]
        given = options.get(entry, options.get(entry.partition("@")[0], {}))
        return explainer_spec(entry, self.plugins, given, where)

    def metric(self, name: str) -> MetricSpec:
        """A metric with its options; the option `images` limits it to the first so many explained images."""
        plugin = registry.find("metrics", name, self.plugins, "score.metrics")
        given = dict(self["score"]["options"].get(name, {}))
        images = given.pop("images", None)
        return MetricSpec(name, plugin, {**plugin.options, **given}, images)

    def mask_cell(self, encoder: str) -> int:
        """Pixels a side of what the pretraining of a masked encoder masks at once."""
        return encoders.unit(self["encoders"][encoder], self["image"]["patch"], self["pretrain"]["mask_cell"])

    def mask_ratio(self, encoder: str) -> float | None:
        """The effective mask ratio: cells are masked whole and their number is rounded up, as in SimMIM.

        Where each image draws its own ratio it is their mean, and `ratio_range` says so. Of an imported encoder it is
        what its entry states. None without masks.
        """
        if "mask_ratio" not in self["encoders"][encoder]:
            return None
        cells = (self["image"]["size"] // self.mask_cell(encoder)) ** 2
        return encoders.effective_ratio(cells, self["encoders"][encoder]["mask_ratio"])

    def ratio_range(self, encoder: str) -> tuple[float, float] | None:
        """The range that each image draws its mask ratio from; None for a fixed ratio or none."""
        ratio = self["encoders"][encoder].get("mask_ratio")
        return (ratio[0], ratio[1]) if isinstance(ratio, list) else None

    def ratio_words(self, encoder: str) -> str:
        """The mask ratio in words."""
        ratio, drawn = self.mask_ratio(encoder), self.ratio_range(encoder)
        if ratio is None:
            return "no mask"
        if drawn:
            return f"mask ratio drawn per image from {drawn[0]:g} to {drawn[1]:g}, effective mean {ratio:.3g}"
        return f"effective mask ratio {ratio:.3g}"


def explainer_spec(entry: str, plugins: Iterable[str], options: dict[str, Any], where: str) -> ExplainerSpec:
    """Read an entry; options not given have the plug-in's defaults. `where` begins the sentence of a mistake."""
    name, _, removal = entry.partition("@")
    plugin = registry.find("explainers", name, plugins, where)
    default = plugin.meta.get("removal")
    if removal:
        registry.find("removals", removal, plugins, f"{where}: '{entry}'")
        if default is None:
            raise UserError(f"{where}: '{entry}' names a removal, but {name} removes nothing; write '{name}'")
    return ExplainerSpec(entry, plugin, removal or default, {**plugin.options, **options})


def load(path: str | Path) -> Config:
    """Read and check a YAML (or JSON) config file."""
    import yaml

    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"config file '{path}' does not exist; config.yaml is the default benchmark") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config file '{path}' is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"config file '{path}' must hold keys and values, such as `seed: 0`")
    return Config(data)


def defaults(section: str) -> dict[str, Any]:
    """What a section of the config holds where nothing is said."""
    data: dict[str, Any] = {}
    _fill(data, {"properties": {section: SCHEMA["properties"][section]}})
    return data[section]


def _with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    found = problems(data, SCHEMA, "config")
    if found:
        raise UserError(found[0])
    data = copy.deepcopy(data)
    _fill(data, SCHEMA)
    encoders.fill(data["encoders"])
    return data


def _fill(data: dict[str, Any], schema: dict[str, Any]) -> None:
    for key, sub in schema.get("properties", {}).items():
        if "$ref" in sub:
            sub = SCHEMA["$defs"][sub["$ref"].rsplit("/", 1)[1]]
        if key not in data and "default" in sub:
            data[key] = copy.deepcopy(sub["default"])
        if isinstance(data.get(key), dict):
            _fill(data[key], sub)


def _check(config: Config) -> None:
    _check_sizes(config)
    sizes = {**config["image"], "cell": config["pretrain"]["mask_cell"], "width": config["model"]["width"]}
    encoders.check(config["encoders"], **sizes, missing=config["finetune"].get(encoders.MISSING))
    if "missing_share" in config["finetune"] and not any(
        config.missing(name) not in (None, "none") for name in config["encoders"]
    ):
        raise UserError(
            "finetune.missing_share: no encoder is fine-tuned with patches missing; set finetune.missing to native"
        )
    _check_pool(config)
    _check_domains(config)
    _check_explainers(config)
    _check_metrics(config)
    _check_submissions(config)
    for name in config["inside"]["removals"] or []:
        registry.find("removals", name, config.plugins, "inside.removals")
    for family, given in config["inside"].items():
        for name in given.get("removals", []) if isinstance(given, dict) and family != "concepts" else []:
            registry.find("removals", name, config.plugins, f"inside.{family}.removals")
    for name, folder in config["inside"]["concepts"].items():
        from unmask.internals.concepts import files

        files(folder, f"inside.concepts.{name}")
    _check_training(config)
    low, high = config["pretrain"]["crop_scale"]
    if low > high:
        raise UserError(f"pretrain.crop_scale: [{low}, {high}] is not a range; write the smaller share first")


def _check_sizes(config: Config) -> None:
    size, patch, cell = config["image"]["size"], config["image"]["patch"], config["pretrain"]["mask_cell"]
    if size % patch:
        raise UserError(
            f"image.size: {size} is not a multiple of image.patch {patch}; try {size // patch * patch or patch}"
        )
    if cell % patch:
        raise UserError(
            f"pretrain.mask_cell: {cell} is not a multiple of image.patch {patch}; try {max(1, cell // patch) * patch}"
        )
    if size % cell:
        raise UserError(f"image.size: {size} is not a multiple of pretrain.mask_cell {cell}")
    width, heads = config["model"]["width"], config["model"]["heads"]
    if width % heads:
        raise UserError(f"model.width: {width} is not a multiple of model.heads {heads}")


def _check_pool(config: Config) -> None:
    given = config["pretrain"].get("pool")
    if not given:
        return
    from unmask import pool

    pool.check(given["path"], given["kind"])
    labels = [name for name, spec in config["encoders"].items() if spec["method"] == "supervised"]
    if labels:
        raise UserError(
            f"encoders.{labels[0]}: it pretrains on labels, and the images of pretrain.pool are read without any; "
            "remove one of the two"
        )


def _check_training(config: Config) -> None:
    how = config["training"]
    if how["tensorboard"] and find_spec("tensorboard") is None:
        raise UserError("training.tensorboard: needs the package tensorboard; install it, or set it to false")
    for name, spec in config["encoders"].items():
        if how["accumulate"] > 1 and spec["method"] == "simmim_siamese":
            raise UserError(
                f"training.accumulate: {how['accumulate']} passes over parts of a batch do not fit "
                f"encoders.{name}, whose contrast is among all of its images; set it to 1, or use several GPUs "
                "(pretrain.processes)"
            )


def _check_options(given: dict[str, Any], plugin: registry.Plugin, where: str) -> None:
    for key, value in given.items():
        if key not in plugin.options:
            raise UserError(f"{where}: unknown option '{key}'; {registry.suggest(key, plugin.options)}")
        default = plugin.options[key]
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        fits = (
            isinstance(value, (int, float)) and not isinstance(value, bool)
            if number
            else isinstance(value, type(default))
        )
        if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, float):
            fits = False
        if default is not None and not fits:
            raise UserError(f"{where}.{key}: {value!r} is not of type {type(default).__name__} (default: {default!r})")
        choices = plugin.meta.get("choices", {}).get(key)
        if choices and value not in choices:
            raise UserError(f"{where}.{key}: '{value}' is not allowed; {registry.suggest(value, choices)}")
        low, high = plugin.meta.get("ranges", {}).get(key, (None, None))
        if (low is not None and value < low) or (high is not None and value > high):
            raise UserError(f"{where}.{key}: {value!r} is outside {low} to {'any' if high is None else high}")


def _check_domains(config: Config) -> None:
    for name, spec in config["domains"].items():
        plugin, options = config.domain(name)
        _check_options({k: v for k, v in (spec or {}).items() if k != "plugin"}, plugin, f"domains.{name}")
        for key in plugin.meta.get("folders", []):
            folder = options.get(key)
            if not folder and key in plugin.meta.get("optional", []):
                continue
            if not folder or not Path(folder).is_dir():
                raise UserError(
                    f"domains.{name}.{key}: the folder '{folder}' does not exist; give the folder that holds the images"
                )


def _check_explainers(config: Config) -> None:
    seen: dict[str, str] = {}
    for group, entries in config.groups.items():
        for entry in entries:
            where = f"explain.groups.{group}"
            spec = config.explainer(entry, where)
            if entry in seen:
                raise UserError(f"{where}: '{entry}' is in the group '{seen[entry]}' already; list each explainer once")
            seen[entry] = group
            _check_options(
                {k: v for k, v in spec.options.items() if k not in spec.plugin.options},
                spec.plugin,
                f"explain.options.{entry}",
            )
    for name, given in config["explain"]["options"].items():
        plugin = registry.find("explainers", name.partition("@")[0], config.plugins, "explain.options")
        _check_options(given, plugin, f"explain.options.{name}")


def _check_metrics(config: Config) -> None:
    for name in config["score"]["metrics"]:
        config.metric(name)
    for name in config["score"]["removals"]:
        registry.find("removals", name, config.plugins, "score.removals")
    _check_judge(config)
    for name, given in config["score"]["options"].items():
        plugin = registry.find("metrics", name, config.plugins, "score.options")
        images = given.get("images", 1)
        if not isinstance(images, int) or isinstance(images, bool) or images < 1:
            raise UserError(f"score.options.{name}.images: {images!r} is not a number of images; give 1 or more")
        _check_options({k: v for k, v in given.items() if k != "images"}, plugin, f"score.options.{name}")


def _check_judge(config: Config) -> None:
    named = config["score"]["judge"]["explainers"]
    known = [entry for entries in config.groups.values() for entry in entries]
    for entry in named:
        if entry not in known:
            raise UserError(
                f"score.judge.explainers: '{entry}' is in no group of explain.groups; {registry.suggest(entry, known)}"
            )
    if len(named) == 1:
        raise UserError(f"score.judge.explainers: '{named[0]}' alone has no rank; name two explainers or more, or none")


def _check_submissions(config: Config) -> None:
    """Files, cards and names; `unmask.submissions` holds the scores to the rest."""
    seen: dict[str, str] = {}
    for path in config["submissions"]:
        name = card.read(path, "submissions").name
        owner = seen.get(name) or config.owner(name)
        if owner:
            raise UserError(f"submissions: '{path}' has the name '{name}', as has {owner}; rename the submitted one")
        seen[name] = path
