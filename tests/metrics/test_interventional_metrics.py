"""Maps against true effects: closed forms on a model whose effects are known, and what is skipped."""

import dataclasses

import numpy as np
import pytest
import torch
from planted_cases import GAIN, KEY, PATCH, SIZE, concepts, evidence, factors, images, make_case

from unmask import registry
from unmask.passes import counted

META = {name: registry.find("metrics", name).meta for name in ("interventional_agreement", "shortcut_detection")}


def agreement(case):
    return registry.find("metrics", "interventional_agreement").load().score(case)


def detection(case, **options):
    return registry.find("metrics", "shortcut_detection").load().score(case, **options)


class Sums(torch.nn.Module):
    """Logits (w . x, 0) of all pixel values: a map of w x is the truth, whatever is changed."""

    arch, grid, mask_token, pooling = "vit", (SIZE // PATCH, SIZE // PATCH), None, "avg"

    def __init__(self):
        super().__init__()
        self.weights = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(4)) / SIZE

    def forward(self, pixels):
        logit = (pixels * self.weights).sum((1, 2, 3))
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def black(pixels):
    """Factors that are black without, the background too: a sum's effects are its parts."""
    places = {"evidence": evidence(len(pixels)), **concepts(len(pixels))}
    places["background"] = ~np.any(list(places.values()), axis=0)
    made = factors(pixels)
    return {
        name: dataclasses.replace(
            made["background"], images=pixels * torch.from_numpy(~place)[:, None], pixels=place.copy()
        )
        for name, place in places.items()
    }


def test_the_truth_about_a_linear_model_agrees_and_its_inverse_does_not():
    model, pixels = Sums().eval(), images(6)
    truth = (pixels * model.weights).sum(1).numpy()
    for scale in (1.0, 40.0):
        case = make_case(model, scale * truth, factors=black(pixels))
        np.testing.assert_allclose(agreement(case), 1, atol=1e-5)
        np.testing.assert_allclose(agreement(make_case(model, -scale * truth, factors=black(pixels))), -1, atol=1e-5)
    assert case.skipped == {}


def test_the_score_is_the_cosine_of_sums_over_the_parts_with_their_effects(planted):
    maps = np.random.default_rng(0).normal(size=(5, SIZE, SIZE))
    case = make_case(planted, maps)
    places = {**{name: one.pixels for name, one in case.factors.items()}}
    dark = (case.images * torch.from_numpy(evidence(5))[:, None]).sum((1, 2, 3)).numpy() / (3 * PATCH**2)
    for i, found in enumerate(agreement(case)):
        a = [case.pixel_maps[i][places[name][i]].sum(dtype=float) for name in places]
        e = [GAIN * dark[i] if name in ("evidence", "tag") else 0 for name in places]
        assert found == pytest.approx(np.dot(a, e) / np.linalg.norm(a) / np.linalg.norm(e), abs=1e-6)


def test_chance_is_0_for_signed_noise_and_the_cosine_with_the_areas_for_noise_without_sign(planted):
    draw, count = np.random.default_rng(1), 200
    signed = agreement(make_case(planted, draw.normal(size=(count, SIZE, SIZE))))
    assert abs(signed.mean()) < 4 * signed.std() / count**0.5
    positive = agreement(make_case(planted, draw.random((count, SIZE, SIZE))))
    case = make_case(planted, np.ones((1, SIZE, SIZE)))
    areas = np.array([one.pixels[0].sum() for one in case.factors.values()])
    effects = np.array([1.0 if name in ("evidence", "tag") else 0.0 for name in case.factors])
    expected = areas @ effects / np.linalg.norm(areas) / np.linalg.norm(effects)
    assert positive.mean() == pytest.approx(expected, abs=0.01)


def test_an_image_without_effects_is_skipped_with_the_reason(planted):
    pixels = images(3)
    still = {name: one for name, one in factors(pixels).items() if name not in ("evidence", "tag")}
    case = make_case(planted, np.random.default_rng(0).random((3, 4, 4)), factors=still)
    agreement(case)
    assert case.skipped == dict.fromkeys(range(3), "no factor of the image has an effect on the prediction")


def test_an_image_that_lacks_a_factor_is_judged_by_the_others(planted):
    maps = np.random.default_rng(2).normal(size=(4, SIZE, SIZE))
    whole = make_case(planted, maps)
    without = dict(whole.factors)
    one = without["spot"]
    held = np.array([True, False, True, False])
    without["spot"] = dataclasses.replace(one, images=one.images[held], pixels=one.pixels & held[:, None, None])
    found = agreement(make_case(planted, maps, factors=without))
    np.testing.assert_allclose(found[held], agreement(whole)[held], atol=1e-6)
    assert (found[~held] != agreement(whole)[~held]).all()
    places = [
        pixels[1]
        for name, pixels in ((name, one.pixels) for name, one in whole.factors.items())
        if name not in ("spot", "background")
    ]
    a = [maps[1].astype(np.float32)[place].sum(dtype=float) for place in places]
    a.append(maps[1].astype(np.float32)[whole.factors["background"].pixels[1]].sum(dtype=float))
    expected = (a[0] + a[2]) / 2**0.5 / np.linalg.norm(a)  # evidence and tag have the same effect, the others none
    assert found[1] == pytest.approx(expected, abs=1e-6)


def test_explainers_share_the_passes(planted):
    case = make_case(planted, np.random.default_rng(0).random((4, 4, 4)))
    with counted(planted) as spent:
        agreement(case)
        detection(dataclasses.replace(case, maps=1 - case.maps))
        agreement(dataclasses.replace(case, maps=2 * case.maps))
    assert spent.total == 4 * 6


def spot_map(value, *, elsewhere=0.0, places=()):
    """`value` on the key patch, `elsewhere` on some other patches [(row, column)]."""
    one = np.zeros((1, 4, 4))
    one[0][KEY] = value
    for place in places:
        one[0][place] = elsewhere
    return one


@pytest.mark.parametrize(
    ("maps", "found"),
    [
        (spot_map(1.0), 1),
        (spot_map(1.0, elsewhere=0.9, places=[(0, 0), (3, 3)]), 1),
        (spot_map(1.0, elsewhere=1.0, places=[(0, 0)]), 0),  # 1 of 15 like places is as high, more than 5 %
        (spot_map(0.0), 0),
        (-spot_map(1.0), 0),
        (np.ones((1, 4, 4)), 0),
    ],
)
def test_a_tag_is_found_where_it_stands_out(planted, maps, found):
    assert detection(make_case(planted, maps)).tolist() == [found]


def test_more_of_the_like_places_may_be_higher_where_the_share_says_so(planted):
    maps = spot_map(1.0, elsewhere=2.0, places=[(0, 0), (0, 1)])
    assert detection(make_case(planted, maps), share=2 / 15).tolist() == [1]
    assert detection(make_case(planted, maps), share=1.9 / 15).tolist() == [0]


def test_the_evidence_is_no_like_place(planted):
    masks = np.zeros((1, SIZE, SIZE), bool)
    masks[0, 0:9, 0:8] = True  # all of one patch and a row of the next
    maps = spot_map(1.0, elsewhere=5.0, places=[(0, 0), (1, 0)])
    assert detection(make_case(planted, maps, masks=masks)).tolist() == [1]
    assert detection(make_case(planted, maps)).tolist() == [0]


def test_a_small_tag_is_compared_with_places_that_lie_alike_in_their_patches(planted):
    tag = np.zeros((1, SIZE, SIZE), bool)
    tag[0, 1:4, 1:4] = True
    given = factors(images(1))
    given["tag"] = dataclasses.replace(given["evidence"], pixels=tag)
    maps = np.zeros((1, SIZE, SIZE))
    maps[0, 1::8, 1::8] = 1.0  # every patch looks the same inside
    case = make_case(planted, maps, factors=given, masks=np.zeros_like(tag))
    assert detection(case).tolist() == [0]
    maps[0, 2, 2] = 0.1
    assert detection(make_case(planted, maps, factors=given, masks=np.zeros_like(tag))).tolist() == [1]


def test_chance_is_about_the_share(planted):
    count = 400
    found = detection(make_case(planted, np.random.default_rng(3).random((count, 4, 4))))
    assert found.mean() == pytest.approx(1 / 16, abs=4 * (1 / 16 / count) ** 0.5)


def test_predictions_that_do_not_hang_on_the_tag_are_skipped_with_the_reason(planted):
    pixels = images(3)
    case = make_case(planted, np.random.default_rng(0).random((3, 4, 4)))
    detection(case)
    assert case.skipped == {}
    with torch.no_grad():
        drop = planted(pixels).softmax(1)[:, 0] - 0.5
    detection(case, threshold=float(drop.sort().values[1]) + 1e-4)
    assert len(case.skipped) == 2
    assert set(case.skipped.values()) == {
        f"the prediction does not hang on the tag: without it the probability falls by "
        f"{float(drop.sort().values[1]) + 1e-4:g} at most"
    }
    with_tag = make_case(planted, np.zeros((3, 4, 4)), masks=np.ones((3, SIZE, SIZE), bool))
    detection(with_tag)
    assert set(with_tag.skipped.values()) == {"no place in the image is like the tag's"}
