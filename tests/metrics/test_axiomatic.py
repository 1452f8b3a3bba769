"""Axioms: closed forms, Captum's own gap, Quantus in token space, a function that stays when its input is shifted."""

import numpy as np
import pytest
import quantus
import torch
from captum.attr import IntegratedGradients
from planted_cases import GAIN, KEY, PATCH, SIZE, images, make_case, score

from unmask.case import Shared
from unmask.contract import network
from unmask.metrics import _networks
from unmask.passes import counted
from unmask.quantus_bridge import COMMON, TokenSpace

GRID, PATCHES = (4, 4), 16


def effect(count):
    """What the key patch adds to the planted model's logit: float64 [count]."""
    row, column = (PATCH * part for part in KEY)
    pixels = images(count)[:, :, row : row + PATCH, column : column + PATCH]
    return GAIN * pixels.mean((1, 2, 3)).double().numpy()


def on_key(values):
    maps = np.zeros((len(values), *GRID))
    maps[:, KEY[0], KEY[1]] = values
    return maps


def test_completeness_in_closed_form(planted):
    known = effect(6)
    for factor, expected in {1: 1, 2: 2 / 3, 0.1: 0.2 / 1.1, -1: 0, -3: 0, 0: 0}.items():
        case = make_case(planted, on_key(factor * known), removal="zero")
        np.testing.assert_allclose(score("completeness", case), expected, atol=1e-5)
    spread = np.repeat(np.repeat(on_key(known), PATCH, 1), PATCH, 2) / PATCH**2  # the same sum over pixels
    np.testing.assert_allclose(score("completeness", make_case(planted, spread, removal="zero")), 1, atol=1e-5)


def test_completeness_is_relative_to_the_removal(planted):
    case = make_case(planted, on_key(effect(6)), removal="mean")
    mean = planted.normalise.mean.mean().item()
    change = effect(6) - GAIN * mean
    expected = 1 - np.abs(effect(6) - change) / (effect(6) + np.abs(change))
    np.testing.assert_allclose(score("completeness", case), expected, atol=1e-5)


@pytest.mark.parametrize("steps", [4, 64])
def test_completeness_of_integrated_gradients_is_captums_own_convergence_gap(tiny_vit, steps):
    case = make_case(tiny_vit, np.zeros((3, *GRID)), removal="mean")
    baseline = tiny_vit.normalise.mean.expand_as(case.images)
    maps, gap = IntegratedGradients(tiny_vit).attribute(
        case.images, baseline, case.targets, n_steps=steps, return_convergence_delta=True
    )
    maps = maps.sum(1).detach().numpy()
    with torch.no_grad():
        change = (tiny_vit(case.images) - tiny_vit(baseline))[:, 0].double().numpy()
    expected = 1 - np.abs(gap.numpy()) / (np.abs(maps.sum((1, 2))) + np.abs(change))
    found = score("completeness", make_case(tiny_vit, maps, removal="mean"))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (found > (0.99 if steps == 64 else 0)).all()


def test_non_sensitivity_by_hand(planted):
    known = on_key(np.ones(4))
    known[1, 0, 0] = 0.5  # says something where there is nothing
    known[2] = 1 - known[2]  # 15 times that, and nothing where there is something
    known[3, 0, 0] = 0.009  # less than a hundredth of the largest
    case = make_case(planted, known, removal="zero")
    np.testing.assert_allclose(score("non_sensitivity", case), [0, 1 / 16, 1, 0])
    np.testing.assert_allclose(score("non_sensitivity", case, tolerance=0.001), [0, 1 / 16, 1, 1 / 16])
    np.testing.assert_allclose(score("non_sensitivity", make_case(planted, -known, removal="zero")), [0, 1 / 16, 1, 0])


class Relative(torch.nn.Module):
    """The logits in token space, in units of what the image's most important patch does."""

    def __init__(self, case):
        super().__init__()
        self.inner, targets = TokenSpace(case), case.targets
        rows = torch.arange(len(case))
        whole = self.inner(torch.ones(len(case), 1, *GRID))[rows, targets]
        drops = []
        for patch in range(PATCHES):
            keep = torch.ones(len(case), 1, PATCHES)
            keep[:, 0, patch] = 0
            drops.append((whole - self.inner(keep.reshape(-1, 1, *GRID))[rows, targets]).abs())
        self.largest = torch.stack(drops).amax(0)[:, None]
        self.eval()

    def forward(self, z):
        return self.inner(z) / self.largest


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("operator", ["mean", "mask_token"])
def test_non_sensitivity_is_quantus_count_over_the_number_of_patches(operator, seed, kind, tiny_vit):
    maps = np.random.default_rng(seed).normal(size=(4, *GRID))
    if kind == "sparse":
        maps = maps.clip(0)
    case = make_case(tiny_vit, maps, removal=operator)
    metric = quantus.NonSensitivity(
        eps=0.1, features_in_step=1, perturb_baseline=0.0, abs=True, normalise=True, **COMMON
    )
    counts = metric(
        model=Relative(case),
        x_batch=np.ones((4, 1, *GRID), np.float32),
        y_batch=case.targets.numpy(),
        a_batch=maps[:, None].astype(np.float32),
        softmax=False,
        channel_first=True,
        batch_size=4,
    )
    found = score("non_sensitivity", case, tolerance=0.1)
    np.testing.assert_allclose(found, np.asarray(counts) / PATCHES)
    assert 0 < found.mean() < 1


def test_the_effects_of_single_patches_cost_the_next_explainer_nothing(tiny_vit):
    shared = Shared(tiny_vit)
    with counted(tiny_vit) as spent:
        for maps in (np.ones((3, *GRID)), np.random.default_rng(0).random((3, *GRID))):
            case = make_case(tiny_vit, maps, removal="mean", shared=shared)
            score("non_sensitivity", case)
            score("completeness", case)
    assert spent.total == 3 * (PATCHES + 2)


def slope(model, times_input):
    def explain(images, targets, model=model, **_):
        leaf = images.clone().requires_grad_()
        found = torch.autograd.grad(model(leaf).gather(1, targets[:, None]).sum(), leaf)[0]
        return (found * images if times_input else found.abs()).sum(1)

    return explain


def integrated(model, baseline):
    def explain(images, targets, model=model, **_):
        start = baseline(model).expand_as(images)
        return IntegratedGradients(model).attribute(images, start, targets, n_steps=8).sum(1).detach().float()

    return explain


@pytest.mark.parametrize("kind", ["avg", "token", "resnet"])
@pytest.mark.parametrize("shift", [-1.0, 0.5])
def test_a_shift_that_the_first_layer_takes_away_is_seen_by_those_who_read_the_numbers(kind, shift):
    model = network(kind)
    shifted = _networks.shifted(model, shift)
    with torch.no_grad():
        torch.testing.assert_close(shifted(images(4) + shift), model(images(4)), rtol=1e-4, atol=1e-5)
    invariant = {
        "gradient": slope(model, False),
        "mean colour as the baseline": integrated(model, lambda model: model.normalise.mean),
        "no image read": lambda images, targets, **_: torch.ones(len(images), SIZE, SIZE),
    }
    variant = {
        "gradient times input": slope(model, True),
        "0 as the baseline": integrated(model, lambda model: torch.zeros(1, 3, 1, 1)),
    }
    for name, explain in {**invariant, **variant}.items():
        case = make_case(model, np.ones((4, SIZE, SIZE)), explainer=explain)
        found = score("input_invariance", case, shift=shift)
        assert (found > 0.999).all() if name in invariant else (found < 0.98).all(), name


def test_input_invariance_by_hand(tiny_vit):
    own, other = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)

    def explain(images, targets, model=None, paired=False, **_):
        assert paired
        return torch.from_numpy(own if model is None else other)

    expected = 1 - np.abs(own - other).sum((1, 2)) / (np.abs(own) + np.abs(other)).sum((1, 2))
    found = score("input_invariance", make_case(tiny_vit, own, explainer=explain))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
