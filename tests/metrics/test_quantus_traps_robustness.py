"""What Quantus 0.6 gets wrong in robustness, randomisation and axioms: shown on it, and that no metric here does."""

import copy
import itertools

import numpy as np
import pytest
import quantus
import torch
from planted_cases import SIZE, images, make_case, score
from quantus.functions.perturb_func import batch_uniform_noise
from quantus.helpers.model.pytorch_model import PyTorchModel

from unmask import registry
from unmask.metrics import _networks, _noise
from unmask.models.vit import Classifier
from unmask.passes import counted
from unmask.quantus_bridge import COMMON

METRICS = {
    name: plugin
    for name, plugin in registry.available("metrics").items()
    if plugin.meta["category"] in ("robustness", "randomisation", "axiomatic")
}
NOISE = [name for name in METRICS if METRICS[name].meta["category"] == "robustness" and name != "continuity"]
GRID = (4, 4)


def gradient(model):
    def explain(images, targets, model=model, **_):
        leaf = images.clone().requires_grad_()
        logits = model(leaf).gather(1, targets[:, None]).sum()
        return (torch.autograd.grad(logits, leaf)[0] * images).sum(1)

    return explain


def spying(explain):
    """The explainer, and a list of what it is asked for: (images, targets, model)."""
    asked = []

    def spy(images, targets, model=None, **more):
        asked.append((images.clone(), targets.clone(), model))
        return explain(images, targets, **({} if model is None else {"model": model}))

    return spy, asked


def case_of(model, explain=None, count=4, **changes):
    explain, targets = explain or gradient(model), torch.arange(count) % 4
    maps = explain(images(count), targets).numpy()
    return make_case(model, maps, **{"explainer": explain, "targets": targets, **changes})


def scored(name, case):
    return score(name, case if "removal" not in METRICS[name].meta["needs"] else with_removal(case))


def with_removal(case):
    return make_case(case.model, case.maps, removal="mean", explainer=case.explainer, targets=case.targets)


def plain(case, explain, **more):
    """How a metric of Quantus is called, with nothing of ours."""
    return {
        "model": case.model,
        "x_batch": case.images.numpy().copy(),
        "y_batch": case.targets.numpy().copy(),
        "a_batch": case.maps[:, None].copy(),
        "explain_func": explain,
        "softmax": False,
        "channel_first": True,
        "batch_size": len(case),
        **more,
    }


def bare(explain):
    return lambda model, inputs, targets, **_: explain(
        torch.as_tensor(np.asarray(inputs), dtype=torch.float32), torch.as_tensor(targets)
    )[:, None].numpy()


@pytest.mark.parametrize("name", NOISE)
def test_noise_goes_both_ways_where_the_relative_stabilities_of_quantus_only_brighten(name, tiny_vit):
    stock = quantus.RelativeInputStability(disable_warnings=True).perturb_func
    pixels = np.zeros((1, 1000))
    drawn = stock(arr=pixels, indices=np.arange(1000)[None])
    assert drawn.min() > 0  # the trap: U(0.02, 0.2)
    explain, asked = spying(gradient(tiny_vit))
    score(name, case_of(tiny_vit, explain))
    noise = torch.cat([given for given, _, _ in asked[1:]]) - images(4).repeat(5, 1, 1, 1)
    assert 0.48 < (noise > 0).float().mean() < 0.52
    assert noise.abs().max() <= 0.0501


def test_a_shift_of_nothing_does_not_divide_an_explainers_own_noise_by_nothing(tiny_vit):
    generator, explain = torch.Generator().manual_seed(0), gradient(tiny_vit)

    def wavering(images, targets, **_):
        maps = explain(images, targets)
        return maps + 1e-3 * maps.abs().mean() * torch.randn(maps.shape, generator=generator)

    case = case_of(tiny_vit, explain)
    beside, through = (quantus.Continuity(nr_steps=n, abs=False, normalise=True, **COMMON) for n in (12, 16))
    assert max(beside(**plain(case, bare(wavering)))) < 1e3
    assert max(through(**plain(case, bare(wavering)))) > 1e6  # the trap: one of the shifts is 0
    steady, shaken = (score("continuity", case_of(tiny_vit, one)) for one in (explain, wavering))
    np.testing.assert_allclose(shaken, steady, rtol=0.05)


def test_maps_decide_every_score_where_quantus_consistency_is_blind_to_them(tiny_vit):
    maps = [np.random.default_rng(seed).normal(size=(4, 1, SIZE, SIZE)) for seed in (1, 2)]
    case = case_of(tiny_vit)
    blind = [quantus.Consistency(**COMMON)(**plain(case, None, a_batch=one)) for one in maps]
    np.testing.assert_array_equal(*blind)  # the trap: all maps have one label
    assert "consistency" not in METRICS
    other = gradient(tiny_vit)

    def weighted(images, targets, **more):
        maps = other(images, targets, **more) + images[:, 0] * images[:, 1]
        return maps * (torch.arange(SIZE) < SIZE // 2)

    for name in METRICS:
        first, second = (scored(name, case_of(tiny_vit, explain)) for explain in (other, weighted))
        assert (first != second).all(), name


def fresh(pooling="token"):
    torch.manual_seed(0)
    model = Classifier(size=SIZE, patch=8, width=24, depth=3, heads=2, classes=4, pooling=pooling)
    model.mask_token = torch.nn.Parameter(torch.zeros(1, 1, 24))
    return model.eval().requires_grad_(False)


def stock_random(model):
    """The fully randomised network of Quantus's MPRT."""
    with torch.random.fork_rng([]):
        return list(PyTorchModel(model).get_random_layer_generator())[-1][1]


def ours(model):
    return _networks.cascade(make_case(model, np.zeros((1, *GRID))), 1)[-1]


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_no_token_and_no_norm_keeps_its_values_where_quantus_randomises(pooling):
    model = fresh(pooling)
    known = dict(model.named_parameters())
    kept = {name for name, tensor in stock_random(model).named_parameters() if torch.equal(tensor, known[name])}
    tokens = {"backbone.pos_embed", "mask_token"} | ({"backbone.cls_token"} if pooling == "token" else set())
    assert tokens <= kept  # the trap
    assert {name for name in known if "norm" in name} <= kept  # and another: a norm is "reset" to what it was
    for name, tensor in ours(model).named_parameters():
        assert not torch.isclose(tensor, known[name], rtol=0, atol=1e-7).all(), name
        assert tensor.unique().numel() > 0.99 * tensor.numel(), name


def test_no_two_blocks_have_the_same_weights_where_quantus_seeds_each_layer_alike():
    def standard(tensor):
        return (tensor - tensor.mean()).flatten() / tensor.std()

    def equal_pairs(made):
        """Pairs of blocks that are the same but for the scale of their weights."""
        blocks = [torch.cat([standard(p) for p in block.parameters() if p.std() > 0]) for block in made.backbone.blocks]
        return sum(torch.allclose(one, other, atol=1e-3) for one, other in itertools.combinations(blocks, 2))

    assert equal_pairs(stock_random(fresh())) == 3  # the trap
    assert equal_pairs(ours(fresh())) == 0


def test_randomising_leaves_torchs_generator_where_quantus_seeds_it(tiny_vit):
    before = torch.get_rng_state()
    with torch.random.fork_rng([]):
        next(PyTorchModel(copy.deepcopy(tiny_vit)).get_random_layer_generator())
        assert not torch.equal(before, torch.get_rng_state())  # the trap
    for name in METRICS:
        scored(name, case_of(tiny_vit))
    assert torch.equal(before, torch.get_rng_state())


def test_smooth_mprt_asks_the_explainer_where_quantus_never_does(tiny_vit, monkeypatch):
    explain, asked = spying(gradient(tiny_vit))
    case = case_of(tiny_vit)
    monkeypatch.setattr(
        quantus, "explain", lambda model, inputs, targets, **_: np.asarray(inputs).mean(1, keepdims=True)
    )
    theirs = quantus.SmoothMPRT(nr_samples=2, skip_layers=True, return_last_correlation=True, **COMMON)
    theirs(**plain(case, bare(explain)))
    assert not asked  # the trap
    score("smooth_mprt", case_of(tiny_vit, explain), samples=3)
    (given, _, own), (again, _, other) = asked[1:]
    assert given.shape == (3 * 4, 3, SIZE, SIZE)
    assert torch.equal(given, again)
    assert own is None
    assert other is not tiny_vit
    assert torch.equal(given[8:], images(4))  # the last sample has no noise
    assert ((given[:8] - images(4).repeat(2, 1, 1, 1)).std() / 0.8).item() == pytest.approx(0.1, rel=0.05)


def test_the_likeness_of_a_map_with_itself_is_in_no_average(tiny_vit):
    case = case_of(tiny_vit)
    average = quantus.MPRT(return_average_correlation=True, abs=True, normalise=False, **COMMON)
    layers = quantus.MPRT(abs=True, normalise=False, **COMMON)
    with torch.random.fork_rng([]):
        found = np.array(average(**plain(case, bare(gradient(tiny_vit)))))
        known = layers(**plain(case, bare(gradient(tiny_vit))))
    np.testing.assert_allclose(found, np.mean(list(known.values()), axis=0))  # the trap: "original" is among them
    np.testing.assert_allclose(known["original"], 1)
    scores = score("mprt", case, steps=3)
    assert case.traces["mprt"].shape == (4, 3)
    assert (case.traces["mprt"] < 0.999).all()
    np.testing.assert_allclose(scores, case.traces["mprt"][:, -1], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_another_class_is_drawn_among_those_there_are_and_from_no_global_generator(classes):
    torch.manual_seed(0)
    model = Classifier(size=SIZE, patch=8, width=24, depth=1, heads=2, classes=classes).eval().requires_grad_(False)
    explain, asked = spying(gradient(model))
    targets = torch.arange(4) % classes
    case = make_case(model, explain(images(4), targets).numpy(), explainer=explain, targets=targets)
    with pytest.raises(RuntimeError):  # the trap: one of 1000 classes
        quantus.RandomLogit(**COMMON)(**plain(case, bare(gradient(model))))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    score("random_logit", case)
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002
    others = asked[-1][1]
    assert (others != targets).all()
    assert ((others >= 0) & (others < classes)).all()


def test_a_sum_that_is_off_by_a_rounding_error_is_complete(planted):
    case = make_case(planted, np.zeros((4, *GRID)), removal="zero")
    with torch.no_grad():
        change = (planted(case.images) - planted(torch.zeros_like(case.images)))[:, 0].numpy()
    maps = np.random.default_rng(0).random((4, *GRID))
    maps *= ((change + 1e-5) / maps.sum((1, 2)))[:, None, None]
    pixels = np.repeat(np.repeat(maps, 8, 1), 8, 2)[:, None] / 64
    theirs = quantus.Completeness(normalise=False, perturb_baseline=0.0, **COMMON)
    assert not np.any(theirs(**plain(case, None, a_batch=pixels.astype(np.float32))))  # the trap
    assert (score("completeness", make_case(planted, maps, removal="zero")) > 0.9999).all()


def test_non_sensitivity_takes_a_pass_per_patch_where_quantus_takes_one_per_value_or_crashes(tiny_vit):
    case = with_removal(case_of(tiny_vit))
    with pytest.raises(ValueError):  # the trap: more than one value in a step
        quantus.NonSensitivity(features_in_step=64, **COMMON)(**plain(case, None))
    with counted(tiny_vit) as spent:
        score("non_sensitivity", case)
    assert spent.total == 4 * 17


def test_input_invariance_finds_the_first_layer_of_a_vit(tiny_vit):
    case = case_of(tiny_vit)
    with pytest.raises(AttributeError):  # the trap
        quantus.InputInvariance(**COMMON)(**plain(case, bare(gradient(tiny_vit))))
    assert np.isfinite(score("input_invariance", case)).all()


@pytest.mark.parametrize("name", METRICS)
def test_an_image_that_noise_moves_over_the_border_has_a_score(name, tiny_vit):
    near = copy.deepcopy(tiny_vit)
    near.backbone.head.bias -= near(images(1))[0]  # the first image is on the border of all classes
    targets = near(images(4)).argmax(1)
    case = make_case(near, gradient(near)(images(4), targets).numpy(), explainer=gradient(near), targets=targets)
    moved = [near(batch).argmax(1) for batch in _noise.perturbed(case, 5, 0.05)]
    assert any((after != targets).any() for after in moved)
    assert np.isfinite(scored(name, case)).all()


def test_a_changed_prediction_is_a_nan_in_quantus(tiny_vit):
    case = case_of(tiny_vit)  # classes 0 to 3 as targets; Quantus compares predictions before and after
    metric = quantus.RelativeInputStability(
        nr_samples=20,
        perturb_func=batch_uniform_noise,
        perturb_func_kwargs={"lower_bound": 2.0, "upper_bound": None},
        **COMMON,
    )
    assert np.isnan(metric(**plain(case, bare(gradient(tiny_vit))))).any()


def test_layers_are_named_where_the_indices_of_quantus_select_others(tiny_vit):
    case = case_of(tiny_vit)
    stock = quantus.RelativeRepresentationStability(nr_samples=1, layer_indices=[-1], **COMMON)
    with pytest.raises(ValueError, match="No hidden representations"):  # the trap
        stock(**plain(case, bare(gradient(tiny_vit))))
    assert np.isfinite(score("relative_representation_stability", case)).all()


@pytest.mark.parametrize("name", METRICS)
def test_another_images_large_map_changes_no_score(name, tiny_vit):
    explain = gradient(tiny_vit)
    rows = {1: 1000.0, 3: 0.001}

    def uneven(images, targets, **more):
        maps = explain(images, targets, **more)
        for row, factor in rows.items():
            maps[row::4] *= factor  # that image in every version
        return maps

    even, other = (scored(name, case_of(tiny_vit, one)) for one in (explain, uneven))
    np.testing.assert_allclose(even[[0, 2]], other[[0, 2]], rtol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_that_an_explainer_returned_or_the_case_holds_is_written_to(name, tiny_vit):
    explain, given = gradient(tiny_vit), []

    def keeping(images, targets, **more):
        maps = explain(images, targets, **more)
        given.append((maps, maps.clone(), images, images.clone()))
        return maps

    case = case_of(tiny_vit, keeping)
    maps = case.maps.copy()
    scored(name, case)
    assert (case.maps == maps).all()
    for made, then, shown, before in given:
        assert torch.equal(made, then)
        assert torch.equal(shown, before)
