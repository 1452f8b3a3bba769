"""Every metric: what it declares, agrees with Quantus where it is Quantus's, and how it treats what it is given."""

import itertools

import numpy as np
import pytest
import quantus
import torch
from planted_cases import DIM, KEY, make_case, score

from unmask import registry
from unmask.case import Shared
from unmask.check_plugin import NEEDS
from unmask.contract import bounds
from unmask.contract.state import compare, model_state
from unmask.passes import counted

METRICS = registry.available("metrics")
CATEGORIES = {"faithfulness", "localisation", "robustness", "complexity", "randomisation", "axiomatic"}
GRID = (4, 4)


def random_maps(count, seed=0, shape=GRID):
    return np.random.default_rng(seed).random((count, *shape))


def redraw(seed):
    """An explainer of fresh uniform noise at every call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda images, targets, **_: torch.rand(len(images), *GRID, generator=generator)


def brightness(images, targets, **_):
    """A deterministic explainer: the grey image."""
    return images.mean(1)


def filtered(model):
    """An explainer that depends on the weights and on the class: the image through the class's patch filter."""

    def explain(images, targets, model=model, **_):
        filters = model.backbone.patch_embed.proj.weight
        return torch.nn.functional.conv2d(images, filters, stride=filters.shape[-1])[torch.arange(len(images)), targets]

    return explain


def case_for(name, model, maps, **changes):
    meta = METRICS[name].meta
    removal = "mean" if "removal" in meta["needs"] else None
    explainer = filtered(model) if meta["category"] in ("randomisation", "axiomatic") else brightness
    return make_case(model, maps, removal=removal, **{"explainer": explainer, **changes})


@pytest.mark.parametrize("name", METRICS)
def test_meta_is_complete_and_its_direction_and_category_are_those_of_quantus(name):
    meta = METRICS[name].meta
    assert meta["category"] in CATEGORIES
    assert meta["direction"] in ("higher", "lower")
    assert set(meta["needs"]) <= set(NEEDS)
    assert set(meta["passes"]) == {"forward", "explanations"}
    assert set(meta.get("ranges", {})) <= set(meta["options"])
    assert bool(meta.get("gate")) == ("pass" in meta) == (meta["category"] == "randomisation")
    if "quantus" in meta:
        theirs = getattr(quantus, meta["quantus"])
        assert meta["direction"] == theirs.score_direction.value
        # Quantus spells with a z, and files its localisation metrics under the same word as we do.
        assert meta["category"] == theirs.evaluation_category.value.lower().replace("randomization", "randomisation")


@pytest.mark.parametrize("name", METRICS)
def test_one_float_per_image_nothing_written_and_numpys_state_put_back(name, tiny_vit):
    case = case_for(name, tiny_vit, random_maps(5))
    before = case.images.clone(), case.targets.clone(), case.masks.copy(), case.maps.copy()
    model = model_state(tiny_vit)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    scores = score(name, case)
    assert scores.shape == (5,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    low, high = bounds(METRICS[name])
    assert ((low <= scores) & (scores <= high)).all()
    # Which are 0 here: no image is predicted as 0, and no map is highest on one patch of sixteen.
    alike = "pointing_game", "road", "patches_needed", "shortcut_detection"
    assert len(set(scores)) > 1 or name in alike
    for was, now in zip(before, (case.images, case.targets, case.masks, case.maps), strict=True):
        assert (np.asarray(was) == np.asarray(now)).all()
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002
    compare(model, model_state(tiny_vit))


@pytest.mark.parametrize("name", METRICS)
def test_passes_are_as_declared(name, tiny_vit):
    calls = []

    def explainer(images, targets, **_):
        calls.append(len(images))
        return brightness(images, targets)

    case, meta = case_for(name, tiny_vit, random_maps(5), explainer=explainer), METRICS[name].meta
    with counted(tiny_vit) as spent:
        score(name, case)
    names = {**meta["options"], "patches": 16}
    charged = spent.total + case.shared.saved_passes
    assert charged == 5 * eval(meta["passes"]["forward"], names)
    assert sum(calls) == 5 * eval(meta["passes"]["explanations"], names)


def test_a_metrics_scores_do_not_depend_on_what_ran_before(tiny_vit):
    maps = {seed: random_maps(4, seed) for seed in (1, 2)}

    def results(names):
        shared = Shared(tiny_vit)
        found = {}
        for name, seed in names:
            found[name, seed] = score(name, case_for(name, tiny_vit, maps[seed], shared=shared))
            np.random.random()  # noqa: NPY002
        return found

    cells = list(itertools.product(METRICS, maps))
    forwards, backwards = results(cells), results(cells[::-1])
    alone = {cell: results([cell])[cell] for cell in cells}
    for cell in cells:
        np.testing.assert_array_equal(forwards[cell], alone[cell])
        np.testing.assert_array_equal(backwards[cell], alone[cell])


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in METRICS
        if METRICS[name].meta["category"] in ("localisation", "complexity", "randomisation", "axiomatic")
        and name not in ("random_logit", "smooth_mprt")  # whose draws are those of an image's place in the mini-batch
    ]
    + ["pixel_flipping", "pixel_flipping_lerf", "srg", "insertion", "region_perturbation", "road", "irof", "saco"]
    + ["faithfulness_estimate", "monotonicity_correlation", "infidelity"]
    + ["interventional_agreement", "shortcut_detection"],
)
def test_an_images_score_does_not_depend_on_the_others(name, tiny_vit):
    maps = random_maps(4) * np.array([1, 100, 0.01, 1])[:, None, None]
    together = score(name, case_for(name, tiny_vit, maps))
    case = case_for(name, tiny_vit, maps)
    for i in range(4):
        alone = case_for(name, tiny_vit, maps[i : i + 1], images=case.images[i : i + 1])
        np.testing.assert_allclose(score(name, alone), together[i : i + 1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", METRICS)
def test_a_degenerate_map_costs_no_other_image(name, tiny_vit):
    maps = random_maps(4)
    maps[1] = 0
    maps[2] = -maps[2]
    scores = score(name, case_for(name, tiny_vit, maps))
    assert np.isfinite(scores[[0, 3]]).all()
    clean = score(name, case_for(name, tiny_vit, np.stack([maps[0], random_maps(1, 9)[0], -maps[2], maps[3]])))
    np.testing.assert_array_equal(scores[[0, 3]], clean[[0, 3]])


def perfect():
    one = np.zeros(GRID)
    one[KEY] = 1
    return one


def in_order(name, scores):
    """Whether the first is better than the second, and that than the third."""
    best, middle, worst = scores if METRICS[name].meta["direction"] == "higher" else [-one for one in scores]
    return best > middle > worst


@pytest.mark.parametrize("name", [name for name in METRICS if not METRICS[name].meta.get("gate")])
def test_the_map_that_knows_beats_a_random_one_beats_its_inverse(name, planted):
    count = 48
    known = np.stack([perfect()] * count)
    ladder = {"perfect": known, "random": random_maps(count), "inverted": 1 - known}
    fixed, noise = torch.tensor(ladder["random"], dtype=torch.float32), redraw(1)

    def again(images, maps):
        return torch.as_tensor(maps, dtype=torch.float32).repeat(len(images) // count, 1, 1)

    explainers = {  # what they say of other images: the same, half of it drawn anew, another thing
        "perfect": lambda images, targets, **_: again(images, known),
        "random": lambda images, targets, **_: (again(images, fixed) + noise(images, targets)) / 2,
        "inverted": lambda images, targets, **_: again(images, 1 - known if torch.equal(images, own) else 2 * known),
    }
    if "gallery" in METRICS[name].meta["needs"]:  # of mosaics they say which tiles are the class's, the bright ones
        explainers["perfect"] = lambda images, targets, **_: (images.mean(1) > 1.5 * DIM).float()
        explainers["inverted"] = lambda images, targets, **_: (images.mean(1) < 1.5 * DIM).float()
    own = make_case(planted, known).images
    removal = "zero" if "removal" in METRICS[name].meta["needs"] else None
    assert in_order(
        name,
        [
            score(name, make_case(planted, maps, removal=removal, explainer=explainers[kind])).mean()
            for kind, maps in ladder.items()
        ],
    )


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].meta.get("gate")])
def test_a_gate_lets_the_map_of_the_network_through_and_stops_one_of_nothing(name, weighted):
    pattern = torch.arange(4)[:, None].add(torch.arange(4)).remainder(2).float()

    def contribution(images, targets, model=weighted, **_):
        maps = weighted.patches(images) * model.backbone.head.weight[targets]
        return (maps / maps.abs().amax(1, keepdim=True)).reshape(-1, *GRID).detach()

    explainers = [
        contribution,
        lambda *asked, **more: (contribution(*asked, **more) + pattern) / 2,
        lambda images, targets, **_: pattern.expand(len(images), -1, -1),
    ]
    meta = METRICS[name].meta
    scores = [score(name, make_case(weighted, random_maps(24), explainer=explain)) for explain in explainers]
    assert in_order(name, [one.mean() for one in scores])
    ((side, level),) = meta["pass"].items()
    sign = {"above": 1, "below": -1}[side]
    assert sign == (1 if meta["direction"] == "higher" else -1)
    assert (sign * scores[0] > sign * level).all()
    assert (sign * scores[2] <= sign * level).all()
