"""How many samples a sampling explainer needs: its maps and their score against the number of samples.

    python benchmarks/convergence.py --domain defect --encoder simmim_60

A fine-tuned model of the config's results is explained with an eighth of the config's number of samples up to twice as
many, and with many more (the long run). benchmarks/README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from unmask import config as configs
from unmask import explainers, files, registry, removals, seeds, subject
from unmask.config import Config, ExplainerSpec, ModelId
from unmask.errors import Skip, UserError
from unmask.explain import planned
from unmask.layout import Layout
from unmask.patches import patch_sum
from unmask.sampling import explained

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unmask.case import Shared
    from unmask.models.classifier import Classifier, ConvClassifier

EXPLAINERS = [
    "rise",
    "lime",
    "kernel_shap",
    "shapley_sampling",
    "patch_effect",
    "vit_cx",
    "smoothgrad",
    "vargrad",
    "gradient_shap",
    "integrated_gradients",
]
COUNTS = ("samples", "masks", "steps")  # what plug-ins call the number of samples
LADDER = (1 / 8, 1 / 4, 1 / 2, 1, 2)  # times the config's number
ORDERS = 4  # random ones, for the area to start from


@dataclass(frozen=True)
class Subject:
    """A model with N images, their predictions, the references, and what scored its maps so far."""

    model: Classifier | ConvClassifier
    images: torch.Tensor
    targets: torch.Tensor
    references: torch.Tensor
    shared: Shared


@dataclass(frozen=True)
class Row:
    """Of a number of samples, means over images: rank correlations (None: nothing is drawn), areas, their excess."""

    samples: int
    passes: int
    long: float
    other: float | None
    area: float
    excess: float
    error: float


def load(config: Config, model_id: ModelId, count: int) -> Subject:
    """The model and the first `count` images of those that the stage explain would choose."""
    import torch

    from unmask.case import Shared
    from unmask.device import batch_size, resolve

    device = resolve(config["device"])
    model, _ = subject.load_model(config, model_id, device)
    test = files.read_arrays(Layout(config.results).domain(model_id.domain) / "test.safetensors")
    rows = explained(test["labels"], count, config["seed"], model_id.domain)
    images = torch.from_numpy(test["images"][rows]).to(device).permute(0, 3, 1, 2).float().div(255).contiguous()
    with torch.no_grad():
        targets = torch.cat([model(part) for part in images.split(batch_size(device))]).argmax(1)
    return Subject(model, images, targets, subject.references(config, model_id.domain, device), Shared(model))


def maps(config: Config, on: Subject, spec: ExplainerSpec, *seed: object) -> np.ndarray:
    """Maps float32 [N, gh, gw] of an entry."""
    import torch

    removal = None
    if spec.removal:
        removal = removals.bind(registry.find("removals", spec.removal, config.plugins), on.model)
    explain = explainers.bind(spec, on.model, removal, on.references)
    generator = seeds.torch_generator(config["seed"], "convergence", spec.name, *seed)
    parts = [explain(on.images[p], on.targets[p], generator) for p in explainers.split(on.images, 4)]
    return patch_sum(torch.cat(parts).detach().cpu(), on.model.grid).numpy()


def areas(config: Config, on: Subject, of: np.ndarray) -> np.ndarray:
    """The metric pixel_flipping of maps [N, gh, gw], with the config's options and first removal: float64 [N]."""
    import numpy as np

    from unmask.case import Case

    metric, removal = config.metric("pixel_flipping"), config["score"]["removals"][0]
    bound = removals.bind(registry.find("removals", removal, config.plugins), on.model)
    masks = np.zeros((len(of), *on.images.shape[2:]), bool)
    case = Case(on.model, on.images, on.targets, masks, of, config["seed"], bound, shared=on.shared)
    return metric.plugin.load().score(case, **metric.options)


def correlation(some: np.ndarray, others: np.ndarray) -> float:
    """Mean over images of the rank correlation of two maps [N, gh, gw]."""
    import numpy as np
    from scipy.stats import spearmanr

    return float(np.mean([spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(some, others, strict=True)]))


def rows(config: Config, on: Subject, entry: str, long: int) -> Iterator[Row]:
    """The long run's row, then those of the ladder; raises `Skip` where the explainer does not apply."""
    import numpy as np

    spec, grid = config.explainer(entry, "--explainers"), on.model.grid
    option = next((name for name in COUNTS if name in spec.options), None)
    if option is None:
        raise UserError(f"--explainers: {entry} takes no number of samples; use {', '.join(EXPLAINERS)}")
    usual, (least, _) = spec.options[option], spec.plugin.meta["ranges"][option]
    draws = spec.plugin.meta.get("draws", False)

    def given(samples: int) -> ExplainerSpec:
        return replace(spec, options={**spec.options, option: samples})

    def row(samples: int, found: list[np.ndarray], best: np.ndarray, floor: np.ndarray) -> Row:
        scored = np.mean([areas(config, on, one) for one in found], axis=0)
        excess = scored - floor
        return Row(
            samples,
            planned(given(samples), grid[0] * grid[1], on.model.backbone.num_features).total,
            float(np.mean([correlation(one, best) for one in found])),
            correlation(*found) if len(found) == 2 else None,
            scored.mean(),
            excess.mean(),
            excess.std(ddof=1) / len(excess) ** 0.5,
        )

    best = maps(config, on, given(long * usual), "long")
    floor = areas(config, on, best)
    yield row(long * usual, [best], best, floor)
    for samples in sorted({max(least, round(usual * share)) for share in LADDER}):
        found = [maps(config, on, given(samples), seed) for seed in range(2 if draws else 1)]
        yield row(samples, found, best, floor)


HEAD = (f"{'explainer':22}{'samples':>8}{'passes':>8}{'long run':>10}{'other seed':>12}{'area':>8}{'excess':>9}"
        f"{'error':>8}")  # fmt: skip


def line(entry: str, row: Row) -> str:
    """A row of the table."""
    other = "-" if row.other is None else f"{row.other:.3f}"
    return (f"{entry:22}{row.samples:8d}{row.passes:8d}{row.long:10.3f}{other:>12}{row.area:8.3f}{row.excess:9.3f}"
            f"{row.error:8.3f}")  # fmt: skip


def chosen(config: Config, options: argparse.Namespace) -> ModelId:
    """The first of the config's models that fits the options."""
    for section, asked in (("domains", options.domain), ("encoders", options.encoder)):
        if asked and asked not in config[section]:
            raise UserError(f"--{section[:-1]}: '{asked}' is not in the config; it has {', '.join(config[section])}")
    return next(
        one
        for one in config.models
        if one.domain == (options.domain or one.domain) and one.encoder == (options.encoder or one.encoder)
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top.add_argument("--config", default="config.yaml", help="the config file (default: config.yaml)")
    top.add_argument("--domain", help="the domain (default: the config's first)")
    top.add_argument("--encoder", help="the encoder (default: the config's first)")
    top.add_argument("--images", type=int, default=8, help="how many test images to explain, 2 or more (default: 8)")
    top.add_argument("--long", type=int, default=8, help="the long run, times the config's number (default: 8)")
    top.add_argument("--explainers", nargs="+", default=EXPLAINERS, metavar="NAME", help="entries as in the config")
    return top


def main() -> int:
    options = parser().parse_args()
    try:
        config = configs.load(options.config)
        model_id = chosen(config, options)
        on = load(config, model_id, options.images)
        score = partial(areas, config, on)
        draws = seeds.numpy_generator(config["seed"], "convergence")
        start = sum(score(draws.random((len(on.images), *on.model.grid))).mean() for _ in range(ORDERS)) / ORDERS
        print(f"{model_id.folder}, {len(on.images)} images; area of a random order {start:.3f}\n\n{HEAD}", flush=True)
        for entry in options.explainers:
            try:
                for row in rows(config, on, entry, options.long):
                    print(line(entry, row), flush=True)
            except Skip as reason:
                print(f"{entry:22}skipped: {reason}", flush=True)
    except UserError as error:
        print(f"convergence.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
