"""Metrics against closed forms and against code that shares nothing with them."""

import itertools

import numpy as np
import pytest
import quantus
import torch
from planted_cases import GAIN, KEY, PATCH, SIZE, images, make_case, score

from unmask import registry
from unmask.case import Shared
from unmask.passes import counted
from unmask.quantus_bridge import unchecked

GRID = (4, 4)


def one_hot(count):
    maps = np.zeros((count, *GRID))
    maps[:, KEY[0], KEY[1]] = 1
    return maps


def key_probability(count):
    row, column = (PATCH * part for part in KEY)
    brightness = images(count)[:, :, row : row + PATCH, column : column + PATCH].mean((1, 2, 3)).double().numpy()
    return 1 / (1 + np.exp(-GAIN * brightness)), GAIN * brightness


def test_flipping_areas_on_the_planted_patch(planted):
    p, _ = key_probability(6)
    last = (14 * p + (p + 0.5) / 2) / 15  # the key patch goes last: p at 15 of 16 points, then .5
    right, wrong = (make_case(planted, sign * one_hot(6), removal="zero") for sign in (1, -1))
    np.testing.assert_allclose(score("pixel_flipping", right), 0.5, atol=1e-6)
    np.testing.assert_allclose(score("pixel_flipping", wrong), last, atol=1e-6)
    np.testing.assert_allclose(score("srg", right), last - 0.5, atol=1e-6)
    np.testing.assert_allclose(score("srg", wrong), 0.5 - last, atol=1e-6)


def test_the_gain_is_zero_on_average_for_random_maps_and_positive_for_the_right_one(planted):
    rng = np.random.default_rng(5)
    noise = score("pixel_flipping_gain", make_case(planted, rng.random((200, *GRID)), removal="zero"), orders=8)
    assert abs(noise.mean()) < 4 * noise.std() / 200**0.5
    assert (score("pixel_flipping_gain", make_case(planted, one_hot(6), removal="zero"), orders=8) > 0).all()


def test_faithfulness_correlation_is_one_where_the_logit_is_the_sum_of_attributions(planted):
    case = make_case(planted, one_hot(6), removal="zero")
    np.testing.assert_allclose(score("faithfulness_correlation", case), 1, atol=1e-6)
    np.testing.assert_allclose(
        score("faithfulness_correlation", make_case(planted, -one_hot(6), removal="zero")), -1, atol=1e-6
    )


@pytest.mark.parametrize(("operator", "step"), [("zero", 1), ("mean", 2), ("blur", 4), ("mask_token", 1)])
def test_pixel_flipping_is_a_plain_loop_over_patches(tiny_vit, operator, step):
    case = make_case(tiny_vit, np.random.default_rng(0).normal(size=(3, SIZE, SIZE)), removal=operator)
    expected = []
    for i in range(3):
        blocks = case.maps[i].astype(np.float64).reshape(4, PATCH, 4, PATCH).sum((1, 3)).ravel()
        keep, curve = torch.ones(1, 16, dtype=torch.bool), []
        for patch in np.argsort(-blocks):
            keep[0, patch] = False
            with torch.no_grad():
                logits = tiny_vit(case.removal.remove(case.images[i : i + 1], keep.reshape(1, *GRID)))
            curve.append(logits.softmax(1)[0, 0].item())
        curve = curve[step - 1 :: step]
        expected.append(sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / (len(curve) - 1))
    np.testing.assert_allclose(score("pixel_flipping", case, step=step), expected, atol=1e-6)


def test_a_step_that_does_not_divide_the_patches_is_said(tiny_vit):
    with pytest.raises(ValueError, match="step 3 does not divide the 16 patches"):
        score("pixel_flipping", make_case(tiny_vit, one_hot(3), removal="zero"), step=3)


def test_pixel_flipping_is_quantus_region_perturbation_in_pixel_space(tiny_vit):
    case = make_case(tiny_vit, np.random.default_rng(0).normal(size=(3, SIZE, SIZE)), removal="zero")
    theirs = quantus.RegionPerturbation(
        patch_size=PATCH,
        order="morf",
        regions_evaluation=16,
        perturb_baseline=0.0,
        abs=False,
        normalise=False,
        return_aggregate=False,
        disable_warnings=True,
    )
    drops = theirs(
        model=tiny_vit,
        x_batch=case.images.numpy(),
        y_batch=case.targets.numpy(),
        a_batch=case.maps[:, None].copy(),
        softmax=True,
        channel_first=True,
        batch_size=3,
    )
    with torch.no_grad():
        start = tiny_vit(case.images).softmax(1)[:, 0].numpy()
    area = np.trapezoid(start[:, None] - np.asarray(drops), axis=1) / 15
    np.testing.assert_allclose(score("pixel_flipping", case), area, atol=1e-6)


def test_faithfulness_correlation_is_a_plain_loop_with_the_same_draws(tiny_vit):
    maps = np.random.default_rng(0).normal(size=(3, *GRID))
    case = make_case(tiny_vit, maps, removal="mean", seed=77)
    draws = np.random.RandomState(77)
    subsets = np.stack([[draws.choice(16, 4, replace=False) for _ in range(3)] for _ in range(20)])  # [runs, N, 4]
    expected = []
    for i in range(3):
        keep = torch.ones(20, 16, dtype=torch.bool)
        keep[torch.arange(20)[:, None], torch.tensor(subsets[:, i])] = False
        with torch.no_grad():
            whole = tiny_vit(case.images[i : i + 1])[0, 0]
            drop = (
                whole
                - tiny_vit(case.removal.remove(case.images[i : i + 1].expand(20, -1, -1, -1), keep.reshape(20, *GRID)))[
                    :, 0
                ]
            )
        expected.append(np.corrcoef(maps[i].ravel()[subsets[:, i]].sum(1), drop.double().numpy())[0, 1])
    np.testing.assert_allclose(score("faithfulness_correlation", case, runs=20), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["pointing_game", "relevance_rank_accuracy", "relevance_mass_accuracy", "attribution_localisation"]
)
def test_localisation_of_the_evidence_itself_is_one_and_of_its_complement_zero(planted, name):
    case = make_case(planted, one_hot(5))
    np.testing.assert_allclose(score(name, case), 1, atol=1e-6)
    np.testing.assert_allclose(score(name, make_case(planted, case.masks)), 1, atol=1e-6)
    np.testing.assert_array_equal(score(name, make_case(planted, 1.0 - one_hot(5))), 0)


@pytest.mark.parametrize("shape", [GRID, (SIZE, SIZE)])
@pytest.mark.parametrize(
    "name", ["pointing_game", "relevance_rank_accuracy", "relevance_mass_accuracy", "attribution_localisation"]
)
def test_chance_of_localisation_is_the_evidences_area_at_either_resolution(planted, name, shape):
    row, column = PATCH * KEY[0], PATCH * KEY[1]
    masks = np.zeros((600, SIZE, SIZE), bool)
    masks[:, row + 3 : row + 13, column + 3 : column + 13] = True  # cuts through patches: 100 of 1024 pixels
    case = make_case(planted, np.random.default_rng(1).random((600, *shape)), masks=masks)
    scores = score(name, case)
    assert abs(scores.mean() - 100 / SIZE**2) < 4 * scores.std() / 600**0.5


def test_localisation_by_hand(planted):
    maps = -np.ones((1, *GRID))
    maps[0, 2, 1], maps[0, 0, 0] = 3, 1  # the key patch has 3 of the positive 4, and 3 of the absolute 18
    case = make_case(planted, maps)
    assert score("relevance_mass_accuracy", case) == pytest.approx(3 / 4)
    assert score("attribution_localisation", case) == pytest.approx(3 / 18)


def test_mass_accuracy_of_a_map_without_positive_part_is_undefined(planted):
    maps = np.stack([-1 - one_hot(1)[0], one_hot(1)[0]])
    scores = score("relevance_mass_accuracy", make_case(planted, maps))
    assert np.isnan(scores[0])
    assert scores[1] == 1


def test_complexity_and_sparseness_of_one_patch_and_of_all_alike(planted):
    maps = np.stack([one_hot(1)[0], 1 + 1e-9 * np.arange(16.0).reshape(GRID)])
    np.testing.assert_allclose(score("sparseness", make_case(planted, maps)), [15 / 16, 0], atol=1e-5)
    np.testing.assert_allclose(score("complexity", make_case(planted, maps)), [0, np.log(16)], atol=1e-5)
    uniform = make_case(planted, np.random.default_rng(0).random((400, *GRID)))
    assert score("sparseness", uniform).mean() == pytest.approx(1 / 3, abs=0.03)


def test_explainers_share_the_passes_of_random_subsets(tiny_vit):
    rng, shared = np.random.default_rng(0), Shared(tiny_vit)
    maps = [rng.normal(size=(4, *GRID)) for _ in range(2)]
    alone = [score("faithfulness_correlation", make_case(tiny_vit, m, removal="mean")) for m in maps]
    score("faithfulness_correlation", make_case(tiny_vit, maps[0], removal="mean", shared=shared))
    with counted(tiny_vit) as spent:
        second = score("faithfulness_correlation", make_case(tiny_vit, maps[1], removal="mean", shared=shared))
    assert spent.total == 0
    assert shared.saved_passes == 4 * 51
    np.testing.assert_array_equal(second, alone[1])
    assert not np.array_equal(alone[0], alone[1])


def test_ranks_break_ties_at_random_and_leave_no_raster_order(planted):
    case = make_case(planted, one_hot(500))
    ranks = case.ranks(case.patch_maps)
    assert (np.sort(ranks.reshape(500, -1)) == np.arange(1, 17)).all()
    assert (ranks[:, KEY[0], KEY[1]] == 16).all()
    others = np.delete(ranks.reshape(500, 16), KEY[0] * 4 + KEY[1], axis=1)
    assert np.abs(others.mean(0) - 8).max() < 4 * 4.32 / 500**0.5  # uniform on 1..15: mean 8, deviation 4.32


def test_views_sum_over_patches_and_repeat_over_pixels(planted):
    fine = np.random.default_rng(0).random((2, SIZE, SIZE))
    case = make_case(planted, fine)
    by_hand = fine.astype(np.float32).reshape(2, 4, PATCH, 4, PATCH).sum((2, 4))
    np.testing.assert_allclose(case.patch_maps, by_hand, rtol=1e-5)
    coarse = make_case(planted, one_hot(2))
    np.testing.assert_array_equal(coarse.pixel_maps, case.masks.astype(np.float32))
    coarse.patch_maps[:] = 7
    assert coarse.patch_maps.max() == 1
    with pytest.raises(ValueError):
        coarse.maps[0] = 0


def test_the_self_checks_of_quantus_are_off_inside_and_back_after_an_error():
    from quantus.helpers import asserts, warn

    before = warn.warn_perturbation_caused_no_change, asserts.assert_attributions
    zeros = np.zeros((1, 1, 2, 2))

    def inside():
        with unchecked():
            asserts.assert_attributions(x_batch=zeros, a_batch=zeros)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        inside()
    assert (warn.warn_perturbation_caused_no_change, asserts.assert_attributions) == before
    with pytest.raises(AssertionError):
        asserts.assert_attributions(x_batch=zeros, a_batch=zeros)


def test_a_softmax_inside_the_model_is_left_where_it_is(planted):
    class Calibrated(type(planted)):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Softmax(dim=-1)

        def forward(self, images):
            return self.last(super().forward(images)) * 5

    model = Calibrated().eval()
    p, _ = key_probability(4)
    expected = 1 / (1 + np.exp(-5 * (2 * p - 1)))
    area = (14 * expected + (expected + 0.5) / 2) / 15
    case = make_case(model, -one_hot(4), removal="zero")
    np.testing.assert_allclose(score("pixel_flipping", case), area, atol=1e-6)
    case = make_case(model, one_hot(4), removal="zero")
    np.testing.assert_allclose(score("faithfulness_correlation", case), 1, atol=1e-5)


def test_every_metric_has_a_citation():
    assert all(plugin.meta["citation"] for plugin in registry.available("metrics").values())
