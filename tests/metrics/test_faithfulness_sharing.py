"""What faithfulness metrics and explainers share is computed once, and the curves they keep are what they say."""

import numpy as np
import pytest
import torch
from kinds_of_maps import COUNT, case_of, maps_of
from planted_cases import score

from unmask import registry
from unmask.case import Shared
from unmask.config import ExplainerSpec, MetricSpec
from unmask.passes import counted
from unmask.plan import scoring_passes

METRICS = [
    name
    for name, plugin in registry.available("metrics").items()
    if plugin.meta["category"] == "faithfulness" and "removal" in plugin.meta["needs"]
]
STEP = 2


def options(name):
    plugin = registry.find("metrics", name)
    return {**plugin.options, **({"step": STEP} if "step" in plugin.options else {})}


def spent_on(case, names=METRICS):
    with counted(case.model) as spent:
        for name in names:
            score(name, case, **options(name))
    return spent.total / COUNT


def own():
    """Passes for one image that depend on the map: two curves, SaCo's groups, IROF's segments."""
    return 2 * (16 // STEP - 1) + options("saco")["groups"] + options("irof")["segments"] - 1


def test_every_further_explainer_pays_for_two_curves_groups_and_segments_only(tiny_vit):
    shared = Shared(tiny_vit)
    drawn = spent_on(case_of(tiny_vit, "signed", 0, "mean", shared=shared)) - own()
    singles, squares, orders = 16, 9 + 4, options("pixel_flipping_gain")["orders"]
    subsets = options("sensitivity_n")["sizes"] * options("sensitivity_n")["samples"]
    runs = options("faithfulness_correlation")["runs"]
    assert drawn == 2 + singles + squares + orders * (16 // STEP - 1) + subsets + runs
    for seed in (1, 2):
        # another map, the same draws: the cases' own seed is that of their model
        case = case_of(tiny_vit, "signed", 0, "mean", shared=shared, maps=maps_of("signed", seed).astype(np.float32))
        assert spent_on(case) == own()


@pytest.mark.parametrize("order", [METRICS, METRICS[::-1]])
def test_the_plan_of_a_run_is_what_it_spends(order, tiny_vit):
    explainers = [ExplainerSpec(name, registry.find("explainers", "saliency"), None, {}) for name in ("a", "b")]
    metrics = [MetricSpec(name, registry.find("metrics", name), options(name), None) for name in order]
    cells = [(explainer, metric, "mean") for explainer in explainers for metric in metrics]
    planned = scoring_passes(cells, COUNT, 16, 0)
    shared, spent = Shared(tiny_vit), 0
    for seed in range(2):
        maps = maps_of("signed", seed).astype(np.float32)
        spent += COUNT * spent_on(case_of(tiny_vit, "signed", 0, "mean", shared=shared, maps=maps), order)
    assert (planned.forward, planned.backward) == (spent, 0)


def test_a_metric_is_charged_what_it_would_cost_alone(tiny_vit):
    shared = Shared(tiny_vit)
    for name in METRICS:
        case, saved = case_of(tiny_vit, "signed", 0, "mean", shared=shared), shared.saved_passes
        with counted(tiny_vit) as spent:
            score(name, case, **options(name))
        formula = registry.find("metrics", name).meta["passes"]["forward"]
        charged = spent.total + shared.saved_passes - saved
        assert charged == COUNT * eval(formula, {**options(name), "patches": 16})


@pytest.mark.parametrize("engine", ["batched", "quantus"])
@pytest.mark.parametrize(("name", "sign"), [("pixel_flipping", 1), ("pixel_flipping_lerf", -1)])
def test_the_curve_that_is_kept_is_the_probability_from_the_whole_image_to_none(name, sign, engine, tiny_vit):
    case = case_of(tiny_vit, "signed", 0, "mean", engine=engine)
    score(name, case, step=4)
    assert list(case.traces) == [name]
    curve = case.traces[name]
    assert curve.shape == (COUNT, 5)
    for i in range(COUNT):
        patches = np.argsort(-sign * case.patch_maps[i].ravel())
        for k in range(5):
            keep = torch.ones(16, dtype=torch.bool)
            keep[torch.from_numpy(patches[: 4 * k].copy())] = False
            with torch.no_grad():
                logits = tiny_vit(case.removal.remove(case.images[i : i + 1], keep.reshape(1, 4, 4)))[0]
            assert curve[i, k] == pytest.approx(logits.softmax(0)[case.targets[i]].item(), abs=1e-6)


def test_the_random_orders_curve_depends_on_no_map_and_on_no_metric(tiny_vit):
    kept = []
    for name in ("pixel_flipping_gain", "pixel_flipping_lerf_gain"):
        for seed in (0, 1):
            case = case_of(tiny_vit, "signed", 0, "mean", maps=maps_of("signed", seed).astype(np.float32))
            score(name, case, step=4, orders=3)
            assert list(case.traces) == ["random"]
            kept.append(case.traces["random"])
    for other in kept[1:]:
        np.testing.assert_array_equal(other, kept[0])
    assert kept[0].shape == (COUNT, 5)
    other = case_of(tiny_vit, "signed", 1, "mean")
    score("pixel_flipping_gain", other, step=4, orders=3)
    assert not np.array_equal(other.traces["random"], kept[0])
    np.testing.assert_array_equal(other.traces["random"][:, [0, -1]], kept[0][:, [0, -1]])


def test_random_orders_are_permutations_without_a_favourite(tiny_vit):
    from unmask.metrics._curves import random_orders

    case = case_of(tiny_vit, "signed", 0, "mean")
    orders = np.array(random_orders(case, 300)).reshape(300, COUNT, 16)
    assert (np.sort(orders) == np.arange(1, 17)).all()
    assert np.abs(orders.mean((0, 1)) - 8.5).max() < 4 * ((16**2 - 1) / 12 / 300 / COUNT) ** 0.5
    assert len({tuple(order) for order in orders.reshape(-1, 16)}) == 300 * COUNT
