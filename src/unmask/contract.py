"""The contract of an explainer, a check at a time, on networks so small that a check takes a moment.

The tests run the checks on every embedded explainer, `unmask check-plugin` on a user's file. A check takes a plug-in or
a `Trial` and returns nothing where all is well; its docstring says what is then true. Otherwise it raises `Breach`, or
lets through what the plug-in raised.
"""

from __future__ import annotations

import inspect
import random
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from unmask import explainers, passes, registry, removals
from unmask.config import SCHEMA, ExplainerSpec
from unmask.explain import checked, degenerate, planned
from unmask.models.classifier import ARCHITECTURES, Classifier, ConvClassifier
from unmask.models.simmim import SimMIM
from unmask.models.vit import Pretraining
from unmask.registry import Plugin

SIZE, PATCH, CLASSES, IMAGES = 32, 8, 3, 5
KINDS = {"avg": ("vit", "avg"), "token": ("vit", "token"), "resnet": ("resnet", "avg")}
SMALL = {"masks": 32, "samples": 3, "steps": 4}  # budgets, by the names that options for them usually have
TYPES = {
    "kind": str,
    "summary": str,
    "family": str,
    "class_specific": bool,
    "signed": bool,
    "resolution": str,
    "architectures": list,
    "poolings": list,
    "draws": bool,
    "passes": dict,
    "options": dict,
    "ranges": dict,
    "choices": dict,
    "removal": str,
    "needs": list,
    "citation": str,
}


class Breach(Exception):
    """What a plug-in does against its contract: a sentence with what is wrong and what would be right."""


def network(kind: str, **given: Any) -> Classifier | ConvClassifier:
    """A network of a kind of `KINDS` with fixed random weights, as `subject.load_model` gives it.

    A transformer has a mask token and its pretraining network beside it; `given` overrides its sizes.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(4 if kind == "resnet" else 0)  # with others, rectified maps are rightly empty for some target
        if kind == "resnet":
            shape = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), **given}
            model = ConvClassifier(size=SIZE, patch=PATCH, classes=CLASSES, **shape).eval().requires_grad_(False)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.ones_(module.weight)  # timm's residual branches start at 0: it would see one patch
            model.backbone.maxpool = nn.Identity()  # with it, 32 pixels would end as a single position
            return model
        shape = {"size": SIZE, "patch": PATCH, "width": 32, "depth": 2, "heads": 2, "pooling": kind, **given}
        model = Classifier(classes=CLASSES, **shape).eval().requires_grad_(False)
        pretraining = SimMIM(**shape).eval().requires_grad_(False)
    model.mask_token = nn.Parameter(pretraining.encoder.mask_token.clone(), requires_grad=False)
    model.pretraining = Pretraining(pretraining, 0.5, PATCH)
    return model


def kinds(plugin: Plugin) -> list[str]:
    """The kinds of network that an explainer's META names."""
    architectures, poolings = plugin.meta["architectures"], plugin.meta.get("poolings", ["avg", "token"])
    return [kind for kind, (arch, pooling) in KINDS.items() if arch in architectures and pooling in poolings]


def small(plugin: Plugin, budgets: dict[str, int] = SMALL) -> dict[str, int]:
    """Those of the plug-in's options that are budgets, small but not below what it allows."""
    lowest = {name: limits[0] or 0 for name, limits in plugin.meta.get("ranges", {}).items()}
    return {name: max(value, lowest.get(name, 0)) for name, value in budgets.items() if name in plugin.options}


class Trial:
    """An explainer on a kind of network, with five images of noise, small budgets and all that it may ask for.

    `plugins` are the paths of users' files among which its removal is looked up too.
    """

    def __init__(self, plugin: Plugin, kind: str, options: dict[str, Any] | None = None, plugins: Any = ()):
        self.plugin, self.kind, self.plugins = plugin, kind, plugins
        options = small(plugin) if options is None else options
        self.spec = ExplainerSpec(plugin.id, plugin, plugin.meta.get("removal"), {**plugin.options, **options})
        generator = torch.Generator().manual_seed(5)
        self.images = torch.rand(IMAGES, 3, SIZE, SIZE, generator=generator)
        self.masks = torch.rand(IMAGES, SIZE, SIZE, generator=generator) > 0.5
        self.references = torch.rand(6, 3, SIZE, SIZE, generator=generator)
        self.targets = torch.tensor([0, 1, 2, 1, 0])
        self._with: dict[str, torch.Tensor] = {}

    def meta(self, key: str) -> Any:
        """What META says, or what holds where it says nothing."""
        return self.plugin.meta.get(key, {"draws": False, "needs": []}.get(key))

    def run(
        self,
        model: Classifier | ConvClassifier | None = None,
        *,
        targets: torch.Tensor | None = None,
        generator: torch.Generator | int = 0,
        part: slice | None = None,
        removal: str | None = None,
    ) -> torch.Tensor:
        """Maps of the images `part`, as the stage would ask for them; `generator` may be a seed."""
        model = network(self.kind) if model is None else model
        removal = removal or self.spec.removal
        bound = removals.bind(registry.find("removals", removal, self.plugins), model) if removal else None
        explain = explainers.bind(self.spec, model, bound, self.references)
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        targets = self.targets if targets is None else targets
        given = self.images, targets, self.masks
        images, targets, masks = given if part is None else (tensor[part] for tensor in given)
        return explain(images, targets, generator, masks)

    @cached_property
    def maps(self) -> torch.Tensor:
        """The maps of all images."""
        return self.run()

    def maps_with(self, removal: str) -> torch.Tensor:
        """The maps of all images with a removal."""
        if removal not in self._with:
            self._with[removal] = self.run(removal=removal)
        return self._with[removal]


def describes_itself(plugin: Plugin, plugins: Any = ()) -> None:
    """META is complete, and each entry is of the right type."""
    has_the_keys(plugin, TYPES)
    meta = plugin.meta
    for key, what in (
        ("summary", "the file's docstring"),
        ("family", "META['family']"),
        ("citation", "META['citation']"),
    ):
        if not meta[key].strip():
            raise Breach(f"{what} is empty; tables show it, so write one line")
    one_of(meta["resolution"], "resolution", ("pixel", "patch"))
    for key, known in (("poolings", ("avg", "token")), ("needs", explainers.NEEDS)):
        for value in meta.get(key, []):
            one_of(value, key, known)
    names_a_network(plugin)
    if "removal" in meta:
        one_of(meta["removal"], "removal", tuple(registry.available("removals", plugins)))
    options_fit(plugin)
    formulas_count(plugin, ("forward", "backward"))


def has_the_keys(plugin: Plugin, types: dict[str, type]) -> None:
    """META has no keys but these, each of its type."""
    for key, value in plugin.meta.items():
        if key not in types:
            raise Breach(f"META has the unknown key '{key}'; {registry.suggest(key, types)}")
        if not isinstance(value, types[key]):
            raise Breach(f"META['{key}'] is {value!r}; it must be of type {types[key].__name__}")


def names_a_network(plugin: Plugin) -> None:
    """META says for which architectures it is."""
    for value in plugin.meta["architectures"]:
        one_of(value, "architectures", tuple(ARCHITECTURES))
    if not kinds(plugin):
        raise Breach(f"META['architectures'] names no network; name some of {', '.join(ARCHITECTURES)}")


def one_of(value: Any, key: str, known: tuple[str, ...]) -> None:
    """Raise `Breach` where an entry of META is none of the known ones."""
    if value not in known:
        raise Breach(f"META['{key}'] has {value!r}; it may have {' or '.join(map(repr, known))}")


def options_fit(plugin: Plugin) -> None:
    """The options' defaults lie in their ranges and choices."""
    for key in ("ranges", "choices"):
        for name, limits in plugin.meta.get(key, {}).items():
            if name not in plugin.options:
                raise Breach(
                    f"META['{key}'] has '{name}', which is no option; {registry.suggest(name, plugin.options)}"
                )
            default = plugin.options[name]
            if key == "choices" and default not in limits:
                raise Breach(f"the option {name} is {default!r} by default, which is not among its choices {limits}")
            if key == "ranges":
                low, high = limits
                if (low is not None and default < low) or (high is not None and default > high):
                    raise Breach(f"the option {name} is {default!r} by default, which is outside its range {limits}")


def formulas_count(plugin: Plugin, ways: tuple[str, ...]) -> None:
    """The passes are formulas that give whole numbers."""
    formulas = plugin.meta["passes"]
    if set(formulas) != set(ways):
        raise Breach(f"META['passes'] has the keys {', '.join(formulas) or 'none'}; it must have {' and '.join(ways)}")
    names = ", ".join([*plugin.options, "patches", "width"])
    for way, formula in formulas.items():
        try:
            number = passes.declared(formula, plugin.options, 16, 32)
        except Exception as error:
            raise Breach(
                f"META['passes']['{way}'] is {formula!r}, which cannot be computed ({error}); write a formula "
                f"as a text, of numbers and {names}"
            ) from None
        if number < 0 or number != int(number):
            raise Breach(f"META['passes']['{way}'] is {formula!r}, which gives {number:g} an image; give whole numbers")


def has_a_plain_name(plugin: Plugin) -> None:
    """The file's name can stand in a config."""
    import re

    if not re.match(SCHEMA["$defs"]["name"]["pattern"], plugin.id):
        raise Breach(f"the file's name '{plugin.id}' is its id; use letters, digits, '_' and '-' only")


def takes_its_arguments(plugin: Plugin) -> None:
    """explain() takes the arguments that it will be called with."""
    extra = [name for name in ("masks", "references") if name in plugin.meta.get("needs", [])]
    accepts(plugin, ("model", "images", "targets"), ("generator", "removal", *extra, *plugin.options))


def accepts(plugin: Plugin, positional: tuple[str, ...], keywords: tuple[str, ...]) -> None:
    """Raise `Breach` where the plug-in's function cannot be called with these."""
    name = registry.FUNCTIONS[plugin.kind]
    try:
        inspect.signature(getattr(plugin.load(), name)).bind(*positional, **dict.fromkeys(keywords))
    except TypeError as error:
        call = ", ".join([*positional, *(f"{keyword}=..." for keyword in keywords)])
        raise Breach(f"{name}() will be called as {name}({call}), which it does not take: {error}") from None


def gives_maps(trial: Trial) -> None:
    """The maps have the declared shape and are float32, without a graph."""
    try:
        checked(trial.maps, trial.spec, network(trial.kind), trial.images)
    except (TypeError, ValueError) as error:
        if "maps" not in vars(trial):  # the plug-in's own
            raise
        raise Breach(str(error)) from None
    if trial.maps.requires_grad:
        raise Breach("the maps carry a graph; return maps.detach()")


def is_finite(trial: Trial) -> None:
    """Every value is finite."""
    bad = int((~torch.isfinite(trial.maps).flatten(1).all(1)).sum())
    if bad:
        raise Breach(f"{bad} of {IMAGES} maps have values that are infinite or no number; they must be finite")


def varies(trial: Trial) -> None:
    """No map is constant."""
    constant, whatever = _constant(trial.maps), ""
    if constant.any() and trial.meta("class_specific") and not trial.meta("signed"):
        # A rectified map is rightly empty where nothing speaks for the target; but not for all of them.
        whatever = ", whatever the target"
        for shift in range(1, CLASSES):
            constant &= _constant(trial.run(targets=(trial.targets + shift) % CLASSES))
    if constant.any():
        raise Breach(
            f"{int(constant.sum())} of {IMAGES} maps are constant{whatever}; a map that says nothing about where "
            "counts as failed"
        )


def _constant(maps: torch.Tensor) -> torch.Tensor:
    """bool [N]"""
    return torch.tensor([degenerate(one) is not None for one in maps.numpy()])


def is_signed_as_declared(trial: Trial) -> None:
    """There are negative values exactly where META says so."""
    negative = bool((trial.maps < 0).any())
    if negative and not trial.meta("signed"):
        raise Breach('some values are negative, but META says "signed": False; say True, or return 0 and more')
    if trial.meta("signed") and not negative:
        raise Breach('no value is negative, but META says "signed": True; say False')


def leaves_global_generators_alone(trial: Trial) -> None:
    """No global random generator is used."""
    before = global_states()
    first = trial.run()
    for name, was, now in zip(("torch", "numpy", "random"), before, global_states(), strict=True):
        if was != now:
            raise Breach(f"it draws from the global generator of {name}; draw from `generator`, with torch")
    seed_globally(8)
    if not torch.equal(trial.run(), first):
        raise Breach("two runs with the same generator differ; draw from `generator` and from nothing else")


def global_states() -> tuple[bytes, bytes, Any]:
    """The states of the global generators of torch, numpy and random."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state(legacy=False)).encode(),  # noqa: NPY002
        random.getstate(),
    )


def seed_globally(seed: int) -> None:
    """Seed every global generator that Python code draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def works_without_grad(trial: Trial) -> None:
    """The maps are the same under torch.no_grad()."""
    advice = "compute gradients inside `with torch.enable_grad():`"
    try:
        with torch.no_grad():
            maps = trial.run()
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise Breach(f"it raises under a caller's torch.no_grad() ({text}); {advice}") from None
    if not torch.equal(maps, trial.maps):
        raise Breach(f"the maps are others under a caller's torch.no_grad(); {advice}")


def draws_as_declared(trial: Trial) -> None:
    """Another generator gives other maps exactly where META says that it draws."""
    same = torch.equal(trial.run(generator=1), trial.maps)
    if same and trial.meta("draws"):
        raise Breach('another generator gives the same maps, but META says "draws": True; leave that out')
    if not same and not trial.meta("draws"):
        raise Breach('another generator gives other maps; say "draws": True in META')


def is_independent_of_the_batch(trial: Trial) -> None:
    """An image's map does not depend on the others in the batch."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.cat([trial.run(generator=generator, part=part) for part in (slice(0, 2), slice(2, IMAGES))])
    off, largest = (parts - trial.maps).abs().max().item(), trial.maps.abs().max().item()
    if not torch.allclose(parts, trial.maps, rtol=1e-4, atol=1e-4 * largest):
        raise Breach(
            f"the maps of five images at once and of two and three differ by {off:.2g} (the largest value is "
            f"{largest:.2g}); treat images one by one, and draw for one image after another"
        )


def depends_on_the_target_as_declared(trial: Trial) -> None:
    """Another target gives another map exactly where META says class-specific."""
    others = trial.run(targets=(trial.targets + 1) % CLASSES)
    if not trial.meta("class_specific"):
        if not torch.equal(others, trial.maps):
            raise Breach('another target gives other maps, but META says "class_specific": False; say True')
        return
    # Two rectified maps that are both empty may rightly be so; `varies` looks after those.
    told = ~(_constant(others) & _constant(trial.maps))
    same = [torch.allclose(a, b, rtol=1e-3, atol=0) for a, b in zip(others[told], trial.maps[told], strict=True)]
    if any(same):
        raise Breach(
            f'{sum(same)} of {len(same)} maps are the same for another target, but META says "class_specific": True; '
            "say False, or explain the logits of `targets`"
        )


def leaves_the_model_as_found(trial: Trial) -> None:
    """The model is left as found: weights, mode, hooks, gradients, fused attention."""
    for gradients in (False, True):
        model = network(trial.kind).requires_grad_(gradients)
        if trial.kind != "resnet":
            model.backbone.blocks[0].attn.fused_attn = False  # mixed on purpose: each block has its own to put back
        before = _state(model)
        trial.run(model)
        _compare(before, _state(model))


class _Broken(nn.Module):
    def forward(self, tokens):
        raise RuntimeError("broken on purpose")


def leaves_the_model_as_found_after_an_error(trial: Trial) -> None:
    """The model is left as found after an error in it, too."""
    if set(trial.meta("passes").values()) == {"0"}:
        return
    model = network(trial.kind)
    setattr(model.backbone, "fc" if trial.kind == "resnet" else "head", _Broken())
    if model.pretraining:
        model.pretraining.network.decoder = _Broken()
    before = _state(model)
    try:
        trial.run(model)
    except RuntimeError as error:
        if str(error) != "broken on purpose":
            raise
    else:
        raise Breach("an error in the model does not get out of explain(); let it through, or the cell seems well")
    _compare(before, _state(model), " after an error in it; use `try: ... finally:` or a context manager")


def _state(model: nn.Module) -> dict[str, dict[Any, Any]]:
    """All that an explainer could leave changed, by what it is called, then by where it is."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules, weights = dict(model.named_modules()), dict(model.named_parameters())
    found = {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "training mode": {name: module.training for name, module in modules.items()},
        "hooks": {name: [list(getattr(module, hook)) for hook in hooks] for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "requires_grad": {name: weight.requires_grad for name, weight in weights.items()},
        "gradient": {name: weight.grad is None for name, weight in weights.items()},
        "fused attention": {n: module.fused_attn for n, module in modules.items() if hasattr(module, "fused_attn")},
    }
    if getattr(model, "pretraining", None):
        for what, state in _state(model.pretraining.network).items():
            found[what] |= {f"pretraining.{name}": value for name, value in state.items()}
    return found


def _compare(before: dict[str, dict[Any, Any]], after: dict[str, dict[Any, Any]], when: str = "") -> None:
    advice = {
        "weights": "; work on a copy",
        "training mode": "; the model is in evaluation mode already",
        "hooks": "; remove every hook again",
        "attributes": "; patch nothing into it",
        "requires_grad": "; ask torch.autograd.grad for the gradients to the images alone",
        "gradient": "; use torch.autograd.grad instead of backward()",
        "fused attention": "; use unmask.models.rules.attention_maps",
    }
    for what, known in before.items():
        now = after[what]
        changed = [name for name in {**known, **now} if name not in known or not _same(known[name], now.get(name))]
        if changed:
            where = f"'{changed[0]}'" if changed[0] else "the model itself"
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise Breach(f"it changes the model's {what}, at {where}{more}{when or advice[what]}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    return one == other


def leaves_its_inputs_alone(trial: Trial) -> None:
    """The images, targets and masks are left as they were given."""
    given = trial.images, trial.targets, trial.masks, trial.references
    kept = [tensor.clone() for tensor in given]
    trial.run()
    for name, was, now in zip(("images", "targets", "masks", "references"), kept, given, strict=True):
        if not torch.equal(was, now):
            raise Breach(f"it writes into its `{name}`; work on a clone")
    if trial.images.requires_grad:
        raise Breach("`images` is left with requires_grad; work on images.detach().clone().requires_grad_()")


def costs_the_declared_passes(trial: Trial) -> None:
    """The passes through the model are as many as declared."""
    model = network(trial.kind)
    if trial.spec.removal and "pretraining" in _removal(trial, trial.spec.removal).meta.get("needs", []):
        return  # the removal has passes of its own
    plan = planned(trial.spec, model.grid[0] * model.grid[1], model.backbone.num_features)
    with passes.counted(model) as measured:
        trial.run(model)
    if (measured.forward, measured.backward) != (IMAGES * plan.forward, IMAGES * plan.backward):
        raise Breach(
            f"META declares {plan.forward} passes forward and {plan.backward} forward and backward an image, but "
            f"{measured.forward / IMAGES:g} and {measured.backward / IMAGES:g} were counted; correct META['passes'], "
            "and run what needs no gradient under torch.no_grad()"
        )


def _removal(trial: Trial, name: str) -> Plugin:
    return registry.find("removals", name, trial.plugins)


def takes_the_removal(trial: Trial, name: str) -> None:
    """Maps with a removal are finite and others than with another removal."""
    maps, other = trial.maps_with(name), trial.maps_with("zero" if name == "mean" else "mean")
    if not torch.isfinite(maps).all():
        raise Breach(f"with the removal {name} some values are infinite or no number; they must be finite")
    if torch.allclose(maps, other, rtol=1e-2):
        raise Breach(f"with the removal {name} the maps are those of another; remove patches by removal.remove()")


def takes_every_removal(trial: Trial) -> None:
    """Each removal gives finite maps of its own, where it removes patches."""
    if trial.spec.removal:
        for name, plugin in registry.available("removals").items():
            if network(trial.kind).arch in plugin.meta["architectures"]:
                takes_the_removal(trial, name)


# The first must hold for the others to make sense.
CHECKS = (
    gives_maps,
    is_finite,
    varies,
    is_signed_as_declared,
    depends_on_the_target_as_declared,
    leaves_global_generators_alone,
    works_without_grad,
    draws_as_declared,
    is_independent_of_the_batch,
    leaves_the_model_as_found,
    leaves_the_model_as_found_after_an_error,
    leaves_its_inputs_alone,
    costs_the_declared_passes,
    takes_every_removal,
)
