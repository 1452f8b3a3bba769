"""The cells of stage 5: what each depends on, and the rows of one explainer under one metric."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest, registry, seeds
from unmask.config import Config, ExplainerSpec, MetricSpec, ModelId
from unmask.domains import CONCEPT, NO_FACTORS, TAG
from unmask.errors import Skip, UserError
from unmask.files import read_arrays, read_json, read_table, sha256
from unmask.layout import Layout
from unmask.time_limit import time_limit

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from unmask.case import Case, Changed, Gallery, Shared

LIBRARIES = ("captum", "numpy", "quantus", "scipy", "timm", "torch", "torchvision")
NO_EVIDENCE = "no evidence mask"
NO_CONCEPT = "no concept mask"
ONE_FACTOR = "the image has fewer than two factors that can be changed"
NO_TAG = "the image carries no tag"
FACTORS = {"interventions", "tag"}  # what a metric may need that is read from the interventions
RANDOM = "random"  # the name of curves that depend on no map
CURVES = {
    "domain": "str",
    "encoder": "str",
    "mask_ratio": "float64",
    "pretrain_seed": "int64",
    "finetune_seed": "int64",
    "explainer": "object",
    "metric": "str",
    "removal": "object",
    "image_id": "str",
    "curve": "object",
}
MISCLASSIFIED = "misclassified: the evidence belongs to the label, the map explains the prediction"


def metric_settings(metric: MetricSpec) -> dict[str, Any]:
    """What a metric's scores depend on besides what it is given."""
    return {
        "name": metric.name,
        "code": digest.code(metric.plugin.path),
        "options": metric.options,
        "images": metric.images,
    }


def removal_settings(config: Config, name: str) -> dict[str, str]:
    """A removal by its code."""
    return {"name": name, "code": digest.code(registry.find("removals", name, config.plugins).path)}


def explainer_settings(config: Config, spec: ExplainerSpec) -> dict[str, Any]:
    """What re-explaining depends on."""
    return {
        "name": spec.name,
        "code": digest.code(spec.plugin.path),
        "options": spec.options,
        "references": config["explain"]["references"] if "references" in spec.plugin.meta.get("needs", []) else None,
        "removal": spec.removal and removal_settings(config, spec.removal),
    }


def common_settings(config: Config) -> dict[str, Any]:
    """What every cell depends on: the code that scores, the libraries' versions, and how images are batched."""
    engine = {key: config["score"][key] for key in ("batch", "engine")}
    return {"code": digest.code("unmask.scoring"), "versions": digest.versions(*LIBRARIES), **engine}


def kept_cells(path: Path) -> dict[str, pd.DataFrame]:
    """The rows of an earlier run's cells by key; none where the file does not exist."""
    if not path.exists():
        return {}
    return {key: rows.drop(columns="key") for key, rows in read_table(path).groupby("key", sort=False)}


def typed(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """The columns in order and of their types, whether just computed or read back, so that the bytes are the same."""
    table = table[list(columns)].astype(columns)
    missing = {name: table[name].where(table[name].notna(), None) for name, kind in columns.items() if kind == "object"}
    return table.assign(**missing)


@dataclass(frozen=True)
class Cell:
    """An explainer, a metric and the removal that the metric uses (None where it uses none)."""

    explainer: ExplainerSpec
    metric: MetricSpec
    removal: str | None
    key: str

    @property
    def name(self) -> str:
        return self.metric.name + (f"@{self.removal}" if self.removal else "")


class Work:
    """What the cells of a job have in common: the model, its explained images, and what metrics share."""

    def __init__(self, config: Config, model_id: ModelId, group: str):
        from unmask.device import resolve

        self.config, self.model_id = config, model_id
        layout = Layout(config.results)
        self._folder = layout.maps(model_id)
        self._model_path = layout.model(model_id) / "model.safetensors"
        self._test_path = layout.domain(model_id.domain) / "test.safetensors"
        self._factors_path = layout.domain(model_id.domain) / "interventions.safetensors"
        self._index_path = self._folder / f"{group}.json"
        self.index = read_json(self._index_path)
        self._inputs = {"model": sha256(self._model_path), "test": sha256(self._test_path)}
        self._by_name = {entry["name"]: entry for entry in self.index["explainers"]}
        self._device = resolve(config["device"])
        # Digests of code, which every cell's key holds, are taken once.
        metrics = map(config.metric, config["score"]["metrics"])
        self._common, self._metrics = common_settings(config), [(metric, metric_settings(metric)) for metric in metrics]
        self._removals = {name: removal_settings(config, name) for name in config["score"]["removals"]}
        self._cells: dict[str, list[Cell]] = {}
        self._loaded: _Loaded | None = None
        self._maps: dict[str, np.ndarray] = {}
        self._drawn: torch.Tensor | None = None

    @property
    def loaded(self) -> _Loaded:
        """Model and images, read when the first cell is computed."""
        if self._loaded is None:
            self._loaded = _load(self.config, self.model_id, self._test_path, self.index["images"], self._device)
        return self._loaded

    @cached_property
    def _factors_hash(self) -> str:
        if not self._factors_path.is_file():
            raise UserError(f"{self._factors_path} does not exist; run the stage data again")
        return sha256(self._factors_path)

    @cached_property
    def _factors(self) -> dict[str, Changed]:
        """What can be changed in the explained images, read when the first metric asks."""
        import numpy as np
        import torch

        from unmask import interventions
        from unmask.case import Changed

        images = self.loaded.images
        plain = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        rows, found = [image["index"] for image in self.index["images"]], {}
        for name, factor in interventions.choose(interventions.read(self._factors_path), rows).items():
            pixels = np.zeros(plain.shape[:3], bool)
            pixels[factor.present] = (factor.changed != plain[factor.present]).any(-1)
            changed = torch.from_numpy(factor.changed).permute(0, 3, 1, 2).to(images) / 255
            found[name] = Changed(changed.contiguous(), pixels)
        return found

    def seconds_per_pass(self) -> float:
        """Of one image forward, in a mini-batch, on this machine: for a forecast."""
        import torch

        from unmask.device import batch_size

        model, images = self.loaded.model, self.loaded.images
        images = images[torch.arange(batch_size(self._device)) % len(images)]
        with torch.inference_mode():
            model(images)
            start = time.perf_counter()
            model(images).sum().item()  # waits for a GPU
        return (time.perf_counter() - start) / len(images)

    def twin(self, model: torch.nn.Module, images: torch.Tensor) -> Work:
        """The same work for another network, or for the first images as `images` has them; nothing is shared with it.

        It has no maps but those that `replace_maps` gives it.
        """
        import torch

        from unmask.case import Shared

        made, known, count = copy.copy(self), self.loaded, len(images)
        made.index = {**self.index, "images": self.index["images"][:count]}
        made._by_name, made._maps = dict(self._by_name), {}
        concepts = {name: pixels[:count] for name, pixels in known.concepts.items()}
        made._loaded = _Loaded(model, images, known.targets[:count], known.masks[:count], concepts, Shared(model))
        if any(FACTORS.intersection(metric.plugin.meta["needs"]) for metric, _ in self._metrics):
            # The same intervention on what the images have become.
            given = {name: one.of(list(range(count))) for name, one in self._factors.items()}
            drift = images - known.images[:count]
            made._factors = {
                name: replace(one, images=(one.images + drift[torch.from_numpy(one.present)]).clamp(0, 1))
                for name, one in given.items()
            }
        return made

    def replace_maps(self, name: str, maps: np.ndarray | None, status: str = "ok", error: str | None = None) -> None:
        """Take these maps of an explainer, or the reason why there are none, instead of stage 4's."""
        self._by_name[name] = {**self.entry(name), "status": status, "error": error}
        self._maps.pop(name, None)
        if maps is not None:
            self._maps[name] = maps

    def entry(self, name: str) -> dict[str, Any]:
        """What stage 4 says of an explainer's maps."""
        if name not in self._by_name:
            raise UserError(f"{self._index_path} lacks the explainer '{name}'; run `unmask explain` again")
        return self._by_name[name]

    def cells(self, explainer: ExplainerSpec) -> list[Cell]:
        """Every cell of an explainer, each with the key of all it depends on."""
        if explainer.name not in self._cells:
            self._cells[explainer.name] = self._keyed(explainer)
        return self._cells[explainer.name]

    def _keyed(self, explainer: ExplainerSpec) -> list[Cell]:
        cells = []
        entry, again = self.entry(explainer.name), explainer_settings(self.config, explainer)
        maps = {key: entry.get(key) for key in ("sha256", "failed", "status", "error", "family", "is_control")}
        for metric, described in self._metrics:
            needs = metric.plugin.meta["needs"]
            for removal in self.config["score"]["removals"] if "removal" in needs else [None]:
                parts = {
                    **self._inputs,
                    "images": self.index["images"][: metric.images],
                    "model_id": self.model_id.folder,
                    "mask_ratio": self.config.mask_ratio(self.model_id.encoder),
                    "seed": self.config["seed"],
                    "device": self._device.type,
                    "common": self._common,
                    "name": explainer.name,
                    "maps": maps,
                    "metric": described,
                    "removal": removal and self._removals[removal],
                    "explainer": again if "explainer" in needs else None,
                    "gallery": self.index["images"] if "gallery" in needs else None,
                    "factors": self._factors_hash if FACTORS.intersection(needs) else None,
                }
                cells.append(Cell(explainer, metric, removal, digest.of(parts)))
        return cells

    def score(self, cell: Cell) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows of a cell, and the curves that the metric traced: a row per image and curve."""
        images = self.index["images"][: cell.metric.images]
        rejected = self._rejected(cell, len(images))
        asked = [i for i in range(len(images)) if i not in rejected]
        outcome = _Outcome()
        if asked:
            # Whether a map failed does not matter here, so that draws are the same for every explainer.
            needs = cell.metric.plugin.meta["needs"]
            rows = [i for i, image in enumerate(images) if not self._lacking(needs, i, image)]
            self._ask(cell, rows, set(asked), outcome)
            for i in asked:
                verdict = outcome.verdict(i, cell.metric.plugin.meta.get("undefined"))
                if verdict:
                    rejected[i] = verdict
        return self._table(cell, images, set(asked), rejected, outcome), self._curves(cell, images, rejected, outcome)

    def finish(self, name: str) -> None:
        """Let go of what only one explainer's cells share."""
        self._maps.pop(name, None)
        if self._loaded is not None:
            self._loaded.shared.forget("explanation")

    def _rejected(self, cell: Cell, count: int) -> dict[int, tuple[str, str]]:
        """(status, reason) of the images that a metric is not asked about, by row."""
        entry, images = self.entry(cell.explainer.name), self.index["images"][:count]
        if entry["status"] != "ok":
            return dict.fromkeys(range(count), (entry["status"], entry["error"]))
        rejected = {}
        for i, image in enumerate(images):
            if lacking := self._lacking(cell.metric.plugin.meta["needs"], i, image):
                rejected[i] = "skipped", lacking
            elif image["image_id"] in entry["failed"]:
                reason = entry["failed"][image["image_id"]]
                rejected[i] = "skipped" if reason == NO_EVIDENCE else "failed", reason
            elif problem := _defect(self._maps_of(cell.explainer.name)[i]):
                rejected[i] = "failed", problem
        return rejected

    def _lacking(self, needs: list[str], row: int, image: dict) -> str | None:
        """Why a metric of these needs cannot judge any map of an image."""
        if "masks" in needs and not self.loaded.masks[row].any():
            return NO_EVIDENCE
        if "masks" in needs and not image["correct"]:
            return MISCLASSIFIED
        if "concepts" in needs and not any(pixels[row].any() for pixels in self.loaded.concepts.values()):
            return NO_CONCEPT
        if FACTORS.intersection(needs):
            present = [name for name, one in self._factors.items() if one.pixels[row].any()]
            if not self._factors:
                return NO_FACTORS
            if "tag" in needs and TAG not in present:
                return NO_TAG
            if "interventions" in needs and len(present) < 2:
                return ONE_FACTOR
        return None

    def _maps_of(self, name: str) -> np.ndarray:
        if name not in self._maps:
            entry = self.entry(name)
            path = self._folder / Path(entry["file"]).name
            maps = read_arrays(path)["maps"]
            if sha256(path) != entry["sha256"] or len(maps) != len(self.index["images"]):
                raise UserError(f"{path} is not the file that {self._index_path} describes; run `unmask explain` again")
            self._maps[name] = maps
        return self._maps[name]

    def _ask(self, cell: Cell, rows: list[int], asked: set[int], outcome: _Outcome) -> None:
        """Ask the metric about images `rows`, a mini-batch at a time; whatever it raises becomes the images' reason."""
        from unmask.passes import counted

        shared, size = self.loaded.shared, self.config["score"]["batch"]
        saved_passes, saved_seconds = shared.saved_passes, shared.saved_seconds
        start = time.perf_counter()
        limit = self.config["score"]["time_limit"]
        with counted(self.loaded.model) as spent:
            try:
                with time_limit(limit, "score.time_limit"):
                    for first in range(0, len(rows), size):
                        part = rows[first : first + size]
                        if asked.intersection(part):
                            self._ask_batch(cell, part, outcome)
            except Skip as skip:
                outcome.failure = "skipped", str(skip)
            except (Exception, SystemExit) as error:  # whatever a metric raises costs its own cell
                outcome.failure = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
        seconds = time.perf_counter() - start
        print(
            f"{cell.explainer.name} {cell.name}: {seconds:.2f} s, {spent.total} passes, {len(rows)} images"
            + (": ".join((", " + outcome.failure[0], outcome.failure[1])) if outcome.failure else ""),
            flush=True,
        )
        outcome.passes = (spent.total + shared.saved_passes - saved_passes) / len(rows)
        outcome.seconds = (seconds + shared.saved_seconds - saved_seconds) / len(rows)

    def _ask_batch(self, cell: Cell, rows: list[int], outcome: _Outcome) -> None:
        import numpy as np

        case = self._case(cell, rows)
        scores = np.asarray(cell.metric.plugin.load().score(case, **cell.metric.options), dtype=np.float64)
        for name, values in [("the metric", scores), *case.traces.items()]:
            if values.shape[:1] != (len(rows),) or (values is scores and scores.ndim != 1):
                raise ValueError(f"{name} returned shape {values.shape} for {len(rows)} images")
        for position, i in enumerate(rows):
            outcome.scores[i] = float(scores[position])
            outcome.curves[i] = {name: values[position] for name, values in case.traces.items()}
            if position in case.skipped:
                outcome.skipped[i] = case.skipped[position]

    def _case(self, cell: Cell, rows: list[int]) -> Case:
        from unmask.case import Case

        needs, loaded = cell.metric.plugin.meta["needs"], self.loaded
        return Case(
            model=loaded.model,
            images=loaded.images[rows],
            targets=loaded.targets[rows],
            masks=loaded.masks[rows],
            maps=self._judgeable(cell.explainer.name, rows),
            seed=seeds.derive(
                self.config["seed"],
                "score",
                self.model_id.folder,
                cell.metric.plugin.meta["category"],
                cell.removal or "",
            ),
            removal=self._bind(cell.removal) if cell.removal else None,
            explainer=self.explainer(cell.explainer, rows) if "explainer" in needs else None,
            shared=loaded.shared,
            engine=self.config["score"]["engine"],
            concepts={name: pixels[rows] for name, pixels in loaded.concepts.items()},
            gallery=self._gallery() if "gallery" in needs else None,
            factors={name: one.of(rows) for name, one in self._factors.items()} if FACTORS.intersection(needs) else {},
        )

    def _gallery(self) -> Gallery:
        from unmask.case import Gallery

        loaded, images = self.loaded, self.index["images"]
        rows = [i for i, image in enumerate(images) if not self._lacking(["masks"], i, image)]
        return Gallery(loaded.images[rows], loaded.targets[rows], loaded.masks[rows])

    def _judgeable(self, name: str, rows: list[int]) -> np.ndarray:
        """Maps of images `rows`, with another in place of one that cannot be judged and whose score nobody reads."""
        import numpy as np

        maps = self._maps_of(name)[rows]
        bad = [i for i, one in enumerate(maps) if _defect(one)]
        maps[bad] = np.random.default_rng(0).random(maps.shape[1:])
        return maps

    def _bind(self, removal: str, model: torch.nn.Module | None = None) -> Any:
        from unmask import removals

        return removals.bind(registry.find("removals", removal, self.config.plugins), model or self.loaded.model)

    def explainer(self, spec: ExplainerSpec, rows: list[int]) -> Callable[..., torch.Tensor]:
        """The explainer as a function of (images, targets), each call with a generator seeded by its inputs.

        A paired call's is seeded by images `rows` themselves. Without draws their maps are those of stage 4.
        """
        import torch

        from unmask import explainers
        from unmask.case import fingerprint

        meta, loaded = spec.plugin.meta, self.loaded
        references = self._references() if "references" in meta.get("needs", []) else None
        own_masks = torch.from_numpy(loaded.masks[rows])
        cell = "score", self.model_id.folder, spec.name, "robustness"
        own = fingerprint(loaded.images[rows], loaded.targets[rows])

        def bound(model: torch.nn.Module) -> Callable[..., torch.Tensor]:
            removal = self._bind(spec.removal, model) if spec.removal else None
            # A network with another origin of the colours is one for data with it, the training images too.
            seen = None if references is None else references + (model.normalise.mean - loaded.model.normalise.mean)
            return explainers.bind(spec, model, removal, seen)

        def again(
            images: torch.Tensor,
            targets: torch.Tensor,
            model: torch.nn.Module | None = None,
            paired: bool = False,
            masks: np.ndarray | None = None,
        ) -> torch.Tensor:
            asked = fingerprint(images, targets)
            if paired and model is None and asked == own and not meta.get("draws"):
                return torch.from_numpy(self._judgeable(spec.name, rows))
            ask = bound(loaded.model if model is None else model)
            generator = seeds.torch_generator(self.config["seed"], *cell, own if paired else asked)
            repeated = own_masks.repeat(len(images) // len(own_masks), 1, 1)
            evidence = repeated if masks is None else torch.from_numpy(masks)
            parts = explainers.split(images, 4)  # as large as in stage 4; the maps do not depend on it
            return torch.cat([ask(images[part], targets[part], generator, evidence[part]) for part in parts])

        return again

    def _references(self) -> torch.Tensor:
        from unmask import subject

        if self._drawn is None:
            self._drawn = subject.references(self.config, self.model_id.domain, self._device)
        return self._drawn

    def _table(
        self,
        cell: Cell,
        images: list[dict],
        asked: set[int],
        rejected: dict[int, tuple[str, str]],
        outcome: _Outcome,
    ) -> pd.DataFrame:
        import pandas as pd

        entry, meta, nan = self.entry(cell.explainer.name), cell.metric.plugin.meta, float("nan")
        return pd.DataFrame(
            {
                **self._model_columns(),
                "explainer": cell.explainer.name,
                "family": entry["family"],
                "is_control": entry["is_control"],
                "metric": cell.metric.name,
                "category": meta["category"],
                "direction": meta["direction"],
                "removal": cell.removal,
                "variant": "",
                "image_id": [image["image_id"] for image in images],
                "label": [image["label"] for image in images],
                "prediction": [image["prediction"] for image in images],
                "correct": [image["correct"] for image in images],
                "score": [nan if i in rejected else outcome.scores[i] for i in range(len(images))],
                "status": [rejected[i][0] if i in rejected else "ok" for i in range(len(images))],
                "reason": [rejected[i][1] if i in rejected else None for i in range(len(images))],
                "passes": [outcome.passes if i in asked else 0.0 for i in range(len(images))],
                "seconds": [outcome.seconds if i in asked else 0.0 for i in range(len(images))],
            }
        )

    def _curves(
        self, cell: Cell, images: list[dict], rejected: dict[int, tuple[str, str]], outcome: _Outcome
    ) -> pd.DataFrame:
        import pandas as pd

        rows = [
            {
                **self._model_columns(),
                "explainer": cell.explainer.name if name != RANDOM else None,
                "metric": name,
                "removal": cell.removal,
                "image_id": images[i]["image_id"],
                "curve": curve,
            }
            for i, curves in sorted(outcome.curves.items())
            if i not in rejected
            for name, curve in curves.items()
        ]
        return pd.DataFrame(rows, columns=list(CURVES))

    def _model_columns(self) -> dict[str, Any]:
        ratio = self.config.mask_ratio(self.model_id.encoder)
        return {
            "domain": self.model_id.domain,
            "encoder": self.model_id.encoder,
            "mask_ratio": float("nan") if ratio is None else ratio,
            "pretrain_seed": self.model_id.pretrain_seed,
            "finetune_seed": self.model_id.finetune_seed,
        }


@dataclass
class _Outcome:
    """What a metric returned for the images it was asked about, by row, or why it did not; cost per image."""

    scores: dict[int, float] = field(default_factory=dict)
    curves: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    passes: float = 0.0
    seconds: float = 0.0

    def verdict(self, row: int, undefined: str | None) -> tuple[str, str] | None:
        """(status, reason) of an image without a score; `undefined` says why a metric has no number for an image."""
        if self.failure:
            return self.failure
        if row in self.skipped:
            return "skipped", self.skipped[row]
        value = self.scores[row]
        if math.isnan(value) and undefined:
            return "failed", f"no number: {undefined}"
        return None if math.isfinite(value) else ("failed", f"metric returned {value}")


@dataclass(frozen=True)
class _Loaded:
    model: torch.nn.Module
    images: torch.Tensor
    targets: torch.Tensor
    masks: np.ndarray
    concepts: dict[str, np.ndarray]
    shared: Shared


def _load(config: Config, model_id: ModelId, test_path: Path, images: list[dict], device: torch.device) -> _Loaded:
    import torch

    from unmask import subject
    from unmask.case import Shared

    model, _ = subject.load_model(config, model_id, device)
    test, rows = read_arrays(test_path), [image["index"] for image in images]
    pixels = torch.from_numpy(test["images"][rows]).permute(0, 3, 1, 2).to(device, torch.float32) / 255
    targets = torch.tensor([image["prediction"] for image in images], device=device)
    concepts = {name.removeprefix(CONCEPT): test[name][rows] for name in sorted(test) if name.startswith(CONCEPT)}
    return _Loaded(model, pixels.contiguous(), targets, test["masks"][rows], concepts, Shared(model))


def _defect(values: np.ndarray) -> str | None:
    """Why a map cannot be judged."""
    import numpy as np

    if not np.isfinite(values).all():
        return "the map is not finite"
    return "the map is constant" if values.min() == values.max() else None
