"""Every registered explainer keeps the contract on each architecture that it names: ViT (both poolings), ResNet.

The checks are those of `unmask.contract`, which `unmask check-plugin` runs on users' files; that each of them can fail
is shown in tests/tools/test_check_plugin.py. Budgets are cut down by `contract.SMALL`.
"""

from __future__ import annotations

from functools import cache

import pytest

from unmask import contract, explainers, registry
from unmask.config import ExplainerSpec
from unmask.errors import Skip

KNOWN = registry.available("explainers")
FAMILIES = {"gradient", "cam", "attention", "relevance", "perturbation", "mim", "control"}
CASES = [(name, kind) for name in sorted(KNOWN) for kind in contract.kinds(KNOWN[name])]
EVERY = pytest.mark.parametrize(("name", "kind"), CASES)
WITH_PASSES = [(name, kind) for name, kind in CASES if set(KNOWN[name].meta["passes"].values()) != {"0"}]


@cache
def trial(name, kind):
    """With the maps that several checks look at."""
    return contract.Trial(KNOWN[name], kind)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_plugin_says_what_it_is(name):
    contract.describes_itself(KNOWN[name])
    contract.has_a_plain_name(KNOWN[name])
    contract.takes_its_arguments(KNOWN[name])
    assert KNOWN[name].meta["family"] in FAMILIES


@EVERY
def test_maps_are_as_declared(name, kind):
    contract.gives_maps(trial(name, kind))
    contract.is_finite(trial(name, kind))
    if name != "constant":  # this control is there for the stage to refuse it
        contract.varies(trial(name, kind))
    contract.is_signed_as_declared(trial(name, kind))


@EVERY
def test_maps_depend_on_the_generator_alone(name, kind):
    contract.leaves_global_generators_alone(trial(name, kind))
    contract.works_without_grad(trial(name, kind))
    contract.draws_as_declared(trial(name, kind))


@EVERY
def test_maps_do_not_depend_on_the_batch(name, kind):
    contract.is_independent_of_the_batch(trial(name, kind))


@EVERY
def test_the_model_and_the_inputs_are_left_as_found(name, kind):
    contract.leaves_the_model_as_found(trial(name, kind))
    contract.leaves_its_inputs_alone(trial(name, kind))


@pytest.mark.parametrize(("name", "kind"), WITH_PASSES)
def test_the_model_is_left_as_found_after_an_error(name, kind):
    contract.leaves_the_model_as_found_after_an_error(trial(name, kind))


@EVERY
def test_declared_passes_are_the_measured_ones(name, kind):
    contract.costs_the_declared_passes(trial(name, kind))


@EVERY
def test_the_target_matters_exactly_where_declared(name, kind):
    contract.depends_on_the_target_as_declared(trial(name, kind))


@pytest.mark.parametrize("removal", ["zero", "mean", "blur", "mask_token", "token_drop", "inpaint", "noisy_linear"])
@pytest.mark.parametrize("name", sorted(name for name, plugin in KNOWN.items() if "removal" in plugin.meta))
def test_perturbing_explainers_take_every_removal(name, removal):
    contract.takes_the_removal(trial(name, "avg"), removal)


def test_an_explainer_of_another_architecture_is_skipped_with_a_reason(vit):
    model = vit("avg")
    model.arch = "resnet"
    with pytest.raises(Skip, match="chefer does not apply to the architecture resnet"):
        explainers.bind(ExplainerSpec("chefer", KNOWN["chefer"], None, {}), model)
