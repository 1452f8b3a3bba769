"""What an explainer's maps are, and what it leaves as found."""

from __future__ import annotations

import torch
from torch import nn

from unmask import passes, registry
from unmask.contract.breach import Breach
from unmask.contract.state import compare, global_states, model_state, seed_globally
from unmask.contract.trial import CLASSES, IMAGES, Trial, network
from unmask.explain import checked, degenerate, planned
from unmask.registry import Plugin


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
        before = model_state(model)
        trial.run(model)
        compare(before, model_state(model))


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
    before = model_state(model)
    try:
        trial.run(model)
    except RuntimeError as error:
        if str(error) != "broken on purpose":
            raise
    else:
        raise Breach("an error in the model does not get out of explain(); let it through, or the cell seems well")
    compare(before, model_state(model), " after an error in it; use `try: ... finally:` or a context manager")


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
