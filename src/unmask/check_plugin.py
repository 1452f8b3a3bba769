"""`unmask check-plugin FILE`: does a plug-in of yours keep its contract, and if not, what would be right?

One line per check, `ok` or `FAIL`. An explainer is held to all of `unmask.contract`; a metric, a removal or a domain to
what its stage relies on. What raises or hangs is reported like any other breach.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unmask import contract, data, passes, registry, removals
from unmask.case import Case, Changed, Gallery
from unmask.contract import IMAGES, PATCH, SIZE, Breach
from unmask.contract.state import compare, model_state
from unmask.device import resolve
from unmask.errors import Skip, UserError
from unmask.patches import to_pixels
from unmask.registry import PACKAGE, Plugin
from unmask.time_limit import time_limit as limited

NEEDS = ("removal", "masks", "concepts", "explainer", "gallery", "interventions", "tag", "model")
FACTORS = ("evidence", "thing", "shade", "background", "tag")  # that a metric's images have, which needs interventions
NETWORKS = {"avg": "a ViT with mean pooling", "token": "a ViT with a class token", "resnet": "a ResNet"}
TYPES = {
    "metrics": {
        "kind": str,
        "summary": str,
        "category": str,
        "direction": str,
        "needs": list,
        "passes": dict,
        "options": dict,
        "ranges": dict,
        "choices": dict,
        "shares": dict,
        "draws": dict,
        "gate": bool,
        "bounds": list,
        "chance": str,
        "undefined": str,
        "quantus": str,
        "citation": str,
    },
    "removals": {"kind": str, "summary": str, "architectures": list, "needs": list, "citation": str},
    "domains": {
        "kind": str,
        "summary": str,
        "options": dict,
        "ranges": dict,
        "choices": dict,
        "folders": list,
        "optional": list,
        "factors": int,
        "citation": str,
    },
}


def run(files: list[str], time_limit: float) -> int:
    """Check each file, all of them known to it; returns 0, or 2 where a check fails."""
    resolve("cpu")
    if time_limit <= 0:
        raise UserError(f"--time-limit: {time_limit:g} s is no time; give more than 0")
    counts = [_file(Path(file), [Path(other) for other in files], time_limit) for file in files]
    return 2 if any(counts) else 0


def _file(path: Path, plugins: list[Path], seconds: float) -> int:
    """Print the lines of a file; returns how many checks fail."""
    try:
        embedded = path.resolve().parent.name if path.resolve().parent.parent == PACKAGE else None
        plugin = registry.read(path, embedded)
        others = [other for other in plugins if other.resolve().parent.parent != PACKAGE]
        registry.available(plugin.kind, others)  # raises where an id is taken
    except UserError as error:
        print(f"FAIL  {error}")
        return 1
    print(f"{path}, {plugin.kind.removesuffix('s')} '{plugin.id}'")
    report = Report(plugin, seconds)
    if report.holds(contract.has_a_plain_name):
        {"explainers": _explainer, "metrics": _metric, "removals": _removal, "domains": _domain}[plugin.kind](
            report, plugin, others
        )
    count = report.failures
    print(f"{path} " + (f"breaks the contract: {count} FAIL above" if count else "keeps the contract"))
    return count


class Report:
    """Prints a line per check of a plug-in, and counts what fails."""

    def __init__(self, plugin: Plugin, seconds: float):
        self.failures = 0
        self._plugin, self._seconds = plugin, seconds

    def holds(self, check: Callable[..., None], *arguments: Any) -> bool:
        """Whether a check of the plug-in holds."""
        return bool(self.holding(check, {"": (self._plugin, *arguments)}))

    def holding(self, check: Callable[..., None], cases: dict[str, tuple]) -> list[str]:
        """The names of the cases, each a check's arguments, for which it holds."""
        problems: dict[str, list[str]] = {}
        for name, arguments in cases.items():
            problem = self._problem(check, arguments)
            if problem:
                problems.setdefault(problem, []).append(name)
        for problem, names in problems.items():
            print(f"FAIL  {problem}" + (f" [{', '.join(names)}]" if names != [""] else ""), flush=True)
        if not problems:
            print(f"ok    {check.__doc__.partition(chr(10))[0].rstrip('.')}", flush=True)
        self.failures += len(problems)
        failed = {name for names in problems.values() for name in names}
        return [name for name in cases if name not in failed]

    def _problem(self, check: Callable[..., None], arguments: tuple) -> str | None:
        try:
            with limited(self._seconds, "--time-limit"):
                check(*arguments)
        except (Breach, UserError, Skip) as error:
            return str(error)
        except TimeoutError as error:
            return f"it {error}{self._line(error)}"
        except (Exception, SystemExit) as error:  # a plug-in may raise anything
            return f"it raises {type(error).__name__}: {' '.join(str(error).split())}{self._line(error)}"
        return None

    def _line(self, error: BaseException) -> str:
        """Where in the plug-in's file it happened."""
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(self._plugin.path)]
        return f", line {lines[-1]} of {self._plugin.path.name}" if lines else ""


def _explainer(report: Report, plugin: Plugin, plugins: list[Path]) -> None:
    if not report.holds(contract.describes_itself, plugins) or not report.holds(contract.takes_its_arguments):
        return
    trials = {NETWORKS[kind]: (contract.Trial(plugin, kind, plugins=plugins),) for kind in contract.kinds(plugin)}
    first, *others = contract.CHECKS
    sound = report.holding(first, trials)
    for check in others if sound else ():
        report.holding(check, {name: trials[name] for name in sound})


def _metric(report: Report, plugin: Plugin, plugins: list[Path]) -> None:
    if report.holds(describes_a_metric) and report.holds(takes_a_case) and report.holds(gives_scores):
        report.holds(draws_by_the_case_alone)
        report.holds(leaves_the_model_to_the_next_metric)
        report.holds(costs_the_declared_passes)


def _removal(report: Report, plugin: Plugin, plugins: list[Path]) -> None:
    if not report.holds(describes_a_removal) or not report.holds(takes_images_and_keep):
        return
    kinds = {NETWORKS[kind]: (plugin, kind) for kind in contract.kinds(plugin)}
    sound = report.holding(gives_inputs, kinds)
    for check in (changes_what_is_removed_alone, treats_subsets_one_by_one) if sound else ():
        report.holding(check, {name: kinds[name] for name in sound})


def _domain(report: Report, plugin: Plugin, plugins: list[Path]) -> None:
    if not report.holds(describes_a_domain) or not report.holds(takes_size_and_seed):
        return
    missing = [key for key in plugin.meta.get("folders", []) if not plugin.options.get(key)]
    if set(missing) - set(plugin.meta.get("optional", [])):
        print(f"--    not built: name its {missing[0]} in a config, then run `unmask data`")
    else:
        report.holds(builds_splits)


def describes_a_metric(plugin: Plugin) -> None:
    """META is complete, and each entry is of the right type."""
    contract.has_the_keys(plugin, TYPES["metrics"])
    contract.one_of(plugin.meta["direction"], "direction", ("higher", "lower"))
    for need in plugin.meta["needs"]:
        contract.one_of(need, "needs", NEEDS)
    contract.options_fit(plugin)
    contract.bounds(plugin)
    contract.formulas_count(plugin, ("forward", "explanations"))


def takes_a_case(plugin: Plugin) -> None:
    """score() takes the arguments that it will be called with."""
    contract.accepts(plugin, ("case",), tuple(plugin.options))


def gives_scores(plugin: Plugin) -> None:
    """There is a finite number for each image, and the images are left alone."""
    case = _case(plugin)
    kept = case.images.clone()
    scores = _scores(plugin, case)
    if scores.shape != (IMAGES,):
        raise Breach(f"score() returns the shape {scores.shape} for {IMAGES} images; return a number for each")
    if not np.isfinite(scores).all():
        raise Breach(f"score() returns {scores.tolist()}; all must be finite")
    low, high = contract.bounds(plugin)
    if not ((low <= scores) & (scores <= high)).all():
        raise Breach(f"score() returns {scores.tolist()}, and not all lie within META['bounds']")
    if not torch.equal(kept, case.images):
        raise Breach("it writes into case.images; work on a clone")


def draws_by_the_case_alone(plugin: Plugin) -> None:
    """The scores depend on case.seed and on no global generator."""
    before = contract.global_states()
    first = _scores(plugin, _case(plugin))
    if contract.global_states() != before:
        raise Breach("it changes a global random generator; draw from one seeded by case.seed")
    contract.seed_globally(8)
    if not np.array_equal(first, _scores(plugin, _case(plugin))):
        raise Breach("two runs differ; draw from a generator seeded by case.seed and from nothing else")


def leaves_the_model_to_the_next_metric(plugin: Plugin) -> None:
    """The model is left as found: weights, mode, hooks, gradients, attributes."""
    case = _case(plugin)
    before = model_state(case.model)
    _scores(plugin, case)
    compare(before, model_state(case.model))


def costs_the_declared_passes(plugin: Plugin) -> None:
    """The passes and explanations are as many as declared."""
    calls: list[int] = []
    case = _case(plugin, calls)
    with passes.counted(case.model) as spent:
        _scores(plugin, case)
    measured = {"forward": (spent.total + case.shared.saved_passes) / IMAGES, "explanations": sum(calls) / IMAGES}
    for way, formula in plugin.meta["passes"].items():
        declared = passes.declared(formula, plugin.options, (SIZE // PATCH) ** 2)
        if measured[way] != declared:
            raise Breach(
                f"META declares {declared:g} {way} an image ({formula!r}), but {measured[way]:g} were counted; correct "
                "META['passes'] (a backward pass counts as two forward)"
            )


def _case(plugin: Plugin, calls: list[int] | None = None) -> Case:
    """Random maps of five images; what `calls` gets are the sizes of the batches that are explained again."""

    def brightness(images: torch.Tensor, targets: torch.Tensor, **_: Any) -> torch.Tensor:
        if calls is not None:
            calls.append(len(images))
        return images.mean(1)

    model, needs, generator = contract.network("avg"), plugin.meta["needs"], torch.Generator().manual_seed(5)
    images, targets = torch.rand(IMAGES, 3, SIZE, SIZE, generator=generator), torch.tensor([0, 1, 2, 1, 0])
    masks = (torch.rand(IMAGES, SIZE, SIZE, generator=generator) > 0.5).numpy()
    return Case(
        model=model,
        images=images,
        targets=targets,
        masks=masks,
        maps=torch.rand(IMAGES, *model.grid, generator=generator).numpy(),
        seed=1,
        removal=removals.bind(registry.find("removals", "mean"), model) if "removal" in needs else None,
        explainer=brightness if "explainer" in needs else None,
        concepts={"thing": ~masks} if "concepts" in needs else {},
        gallery=Gallery(images, targets, masks) if "gallery" in needs else None,
        factors=_factors(images) if {"interventions", "tag"}.intersection(needs) else {},
    )


def _factors(images: torch.Tensor) -> dict[str, Changed]:
    """Every image has every factor: a stripe that is black without it, the tag a square."""
    made = {}
    for place, name in enumerate(FACTORS):
        pixels = torch.zeros(len(images), SIZE, SIZE, dtype=torch.bool)
        pixels[:, 6 * place + 1 : 6 * place + 6, slice(1, 6) if name == "tag" else slice(None)] = True
        made[name] = Changed(images * ~pixels[:, None], pixels.numpy())
    return made


def _scores(plugin: Plugin, case: Case) -> np.ndarray:
    return np.asarray(plugin.load().score(case, **plugin.options), dtype=np.float64)


def describes_a_removal(plugin: Plugin) -> None:
    """META is complete, and each entry is of the right type."""
    contract.has_the_keys(plugin, TYPES["removals"])
    for need in plugin.meta.get("needs", []):
        contract.one_of(need, "needs", ("mask_token", "pretraining"))
    contract.names_a_network(plugin)


def takes_images_and_keep(plugin: Plugin) -> None:
    """remove() takes the arguments that it will be called with."""
    contract.accepts(plugin, ("model", "images", "keep"), ())


def gives_inputs(plugin: Plugin, kind: str) -> None:
    """The model takes what remove() returns, and gives finite logits."""
    model, images, keep = _removable(kind)
    kept = images.clone(), keep.clone()
    inputs = removals.bind(plugin, model).remove(images, keep)
    if len(inputs) != len(images):
        raise Breach(f"remove() returns {len(inputs)} inputs for {len(images)} images; return one for each")
    if not torch.isfinite(model(inputs)).all():
        raise Breach("the model's logits are not finite with what remove() returns")
    if not torch.equal(images, kept[0]) or not torch.equal(keep, kept[1]):
        raise Breach("it writes into its `images` or `keep`; work on a clone")


def changes_what_is_removed_alone(plugin: Plugin, kind: str) -> None:
    """With every patch kept the model sees the image itself, else another one."""
    model, images, keep = _removable(kind)
    removal = removals.bind(plugin, model)
    whole = model(removal.remove(images, torch.ones_like(keep)))
    if not torch.allclose(whole, model(images), rtol=1e-4, atol=1e-5):
        raise Breach("with every patch kept the logits are not those of the image; change nothing where keep is True")
    without = removal.remove(images, keep)
    if torch.allclose(model(without), whole, rtol=1e-4, atol=1e-5):
        raise Breach("removing patches does not change the logits; keep is True where a patch is present")
    pixels = to_pixels(keep, (SIZE, SIZE)).unsqueeze(1).expand_as(images)
    if isinstance(without, torch.Tensor) and not torch.equal(without[pixels], images[pixels]):
        raise Breach("it changes pixels of patches that are kept; use unmask.removals.blend")


def treats_subsets_one_by_one(plugin: Plugin, kind: str) -> None:
    """Several subsets of an image at once are the same as one by one."""
    model, images, _ = _removable(kind)
    keep = torch.rand(len(images), 3, *model.grid, generator=torch.Generator().manual_seed(2)) < 0.5
    together = model(removals.bind(plugin, model).remove(images, keep)).reshape(len(images), 3, -1)
    for k in range(3):
        alone = model(plugin.load().remove(model, images, keep[:, k]))
        if not torch.allclose(alone, together[:, k], rtol=1e-4, atol=1e-5):
            raise Breach("several subsets at once give other logits than one by one; treat inputs independently")


def _removable(kind: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A network, images [N, 3, H, W], and which patches to keep [N, gh, gw]."""
    model, generator = contract.network(kind), torch.Generator().manual_seed(1)
    images = torch.rand(IMAGES, 3, SIZE, SIZE, generator=generator)
    return model, images, torch.rand(IMAGES, *model.grid, generator=generator) < 0.5


def describes_a_domain(plugin: Plugin) -> None:
    """META is complete, and each entry is of the right type."""
    contract.has_the_keys(plugin, TYPES["domains"])
    contract.options_fit(plugin)


def takes_size_and_seed(plugin: Plugin) -> None:
    """build() takes the arguments that it will be called with."""
    contract.accepts(plugin, ("options",), ("size", "seed"))


def builds_splits(plugin: Plugin) -> None:
    """The images, labels and masks of the splits are as unmask.domains asks, and the same again for the same seed."""
    first, second = (plugin.load().build(dict(plugin.options), size=SIZE, seed=1) for _ in range(2))
    data.check(first, SIZE, plugin.id)
    if not np.array_equal(first.train.images, second.train.images):
        raise Breach("two builds with the same seed differ; draw from a generator seeded by `seed`")
