"""Localisation, concept and complexity metrics: closed forms, Quantus, scikit-learn, planted answers, chance levels."""

import numpy as np
import pytest
import quantus
import torch
from planted_cases import DIM, KEY, PATCH, SIZE, concepts, evidence, gallery, images, make_case, score
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from unmask.case import Gallery, fingerprint
from unmask.errors import Skip
from unmask.quantus_bridge import unchecked

GRID = (4, 4)
KINDS = ["normal", "ties", "patches", "rectified"]


def maps_of(kind, count, seed):
    """Maps as explainers make them: signed, of few levels, on patches, with the zeros that a ReLU leaves."""
    rng = np.random.default_rng(seed)
    if kind == "patches":
        return rng.normal(size=(count, *GRID)).astype(np.float32)
    values = rng.normal(size=(count, SIZE, SIZE))
    return {"normal": values, "ties": np.round(values), "rectified": np.maximum(values, 0)}[kind].astype(np.float32)


def random_masks(count, seed):
    """Blocks that cut through patches, of different sizes."""
    rng, masks = np.random.default_rng(seed), np.zeros((count, SIZE, SIZE), bool)
    for mask in masks:
        top, left = rng.integers(0, SIZE - 10, 2)
        mask[top : top + rng.integers(2, 10), left : left + rng.integers(2, 10)] = True
    return masks


def theirs(metric, case, maps, **more):
    with unchecked():
        return np.asarray(
            metric(
                model=None,
                x_batch=np.zeros((len(case), 1, SIZE, SIZE), np.float32),
                y_batch=case.targets.numpy(),
                a_batch=maps[:, None].astype(np.float64),
                s_batch=case.masks[:, None].astype(int),
                channel_first=True,
                **more,
            )
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_localisation_auc_is_that_of_scikit_learn_of_quantus_and_of_mann_and_whitney(planted, kind, seed):
    case = make_case(planted, maps_of(kind, 7, seed), masks=random_masks(7, seed))
    found, flat = score("localisation_auc", case), case.pixel_maps.reshape(7, -1)
    inside = case.masks.reshape(7, -1)
    expected = [roc_auc_score(mask, values) for mask, values in zip(inside, flat, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    pairs = [mannwhitneyu(values[mask], values[~mask]).statistic for mask, values in zip(inside, flat, strict=True)]
    np.testing.assert_allclose(found, pairs / (inside.sum(1) * (~inside).sum(1)), rtol=0, atol=1e-12)
    quantus_auc = quantus.AUC(abs=False, normalise=False, return_aggregate=False, disable_warnings=True)
    np.testing.assert_allclose(found, theirs(quantus_auc, case, case.pixel_maps), rtol=0, atol=1e-12)
    with_quantus = make_case(planted, case.maps, masks=case.masks, engine="quantus")
    np.testing.assert_allclose(found, score("localisation_auc", with_quantus), rtol=0, atol=1e-12)


def test_localisation_auc_by_hand(planted):
    maps, masks = np.zeros((4, SIZE, SIZE)), np.zeros((4, SIZE, SIZE), bool)
    masks[:2, 0, :4] = True
    maps[0, 0, :2] = 1  # two of four evidence pixels above all others, two tie with them
    maps[1, 1:] = 1  # 31 rows of the others above, 28 pixels of the first row tie
    masks[3] = True
    found = score("localisation_auc", make_case(planted, maps, masks=masks))
    assert found[0] == pytest.approx(0.5 + 0.5 * 0.5)
    assert found[1] == pytest.approx(0.5 * 28 / (SIZE**2 - 4))
    assert np.isnan(found[2:]).all()  # no evidence, nothing but evidence


@pytest.mark.parametrize("seed", range(3))
def test_top_k_intersection_counts_evidence_among_the_highest(planted, seed):
    case = make_case(planted, maps_of("normal", 6, seed), masks=random_masks(6, seed))
    found = score("top_k_intersection", case, share=0.05)
    k = round(0.05 * SIZE**2)
    highest = np.argsort(-case.maps.reshape(6, -1), axis=1)[:, :k]
    np.testing.assert_allclose(found, np.take_along_axis(case.masks.reshape(6, -1), highest, 1).mean(1), atol=1e-12)
    metric = quantus.TopKIntersection(k=k, abs=False, normalise=False, return_aggregate=False, disable_warnings=True)
    np.testing.assert_allclose(found, theirs(metric, case, case.maps), atol=1e-12)


def test_top_k_intersection_takes_ties_at_random_and_is_bounded_by_small_evidence(planted):
    masks = np.zeros((400, SIZE, SIZE), bool)
    masks[:, :2, :2] = True  # 4 of 20 pixels can be hit
    found = score("top_k_intersection", make_case(planted, masks.astype(float), masks=masks))
    np.testing.assert_allclose(found, 4 / 20)
    row, column = (PATCH * part for part in KEY)
    half = np.zeros_like(masks)
    half[:, row : row + PATCH, column : column + PATCH // 2] = True  # half of the one patch that the map is highest on
    coarse = np.zeros((400, *GRID))
    coarse[:, KEY[0], KEY[1]] = 1
    found = score("top_k_intersection", make_case(planted, coarse, masks=half))
    assert abs(found.mean() - 0.5) < 4 * found.std() / 20


@pytest.mark.parametrize("name", ["localisation_auc", "top_k_intersection", "distractor_avoidance", "concept_auc"])
def test_the_evidence_itself_scores_one_and_its_complement_zero(planted, name):
    case = make_case(planted, evidence(5))
    np.testing.assert_allclose(score(name, case), 1)
    np.testing.assert_allclose(score(name, make_case(planted, ~evidence(5))), 0)


@pytest.mark.parametrize("shape", [GRID, (SIZE, SIZE)])
@pytest.mark.parametrize(
    ("name", "chance"),
    [
        ("localisation_auc", 0.5),
        ("top_k_intersection", 100 / SIZE**2),
        ("distractor_avoidance", 100 / (100 + 9 + 44)),
        ("concept_auc", 0.5),
    ],
)
def test_chance_is_as_declared_at_either_resolution(planted, name, chance, shape):
    masks = np.zeros((600, SIZE, SIZE), bool)
    masks[:, 13:23, 11:21] = True  # cuts through patches
    case = make_case(planted, np.random.default_rng(1).random((600, *shape)), masks=masks)
    found = score(name, case)
    assert abs(found.mean() - chance) < 4 * found.std() / 600**0.5


def test_distractor_avoidance_by_hand(planted):
    maps = np.full((2, SIZE, SIZE), -5.0)
    maps[:, 2, 3:6] = 2  # 6 on three pixels of the spot
    maps[0, 26, 10:14] = 1  # 4 on the bar
    maps[:, 16, 8:13] = 6  # 30 on the key patch
    maps[:, 0, :] = 100  # on nothing that counts
    found = score("distractor_avoidance", make_case(planted, maps))
    assert found == pytest.approx([30 / 40, 30 / 36])
    assert np.isnan(score("distractor_avoidance", make_case(planted, -evidence(1).astype(float)))).all()


def test_overlapping_distractors_count_once(planted):
    both = {"spot": concepts(1)["spot"], "again": concepts(1)["spot"]}
    maps = np.ones((1, SIZE, SIZE))
    assert score("distractor_avoidance", make_case(planted, maps, concepts=both)) == pytest.approx(64 / (64 + 9))


@pytest.mark.parametrize("kind", KINDS)
def test_concept_auc_is_the_mean_over_the_concepts_that_an_image_shows(planted, kind):
    seen = {**concepts(5), "gone": np.zeros((5, SIZE, SIZE), bool)}
    seen["bar"][0] = False
    case = make_case(planted, maps_of(kind, 5, 0), concepts=seen)
    expected = []
    for i, values in enumerate(case.pixel_maps):
        areas = []
        for pixels in seen.values():
            if pixels[i].any():
                on = np.concatenate([values[case.masks[i]], values[pixels[i]]])
                areas.append(roc_auc_score(np.arange(len(on)) < case.masks[i].sum(), on))
        expected.append(np.mean(areas))
    np.testing.assert_allclose(score("concept_auc", case), expected, rtol=0, atol=1e-12)


def tiles_of(case, explained, number=0):
    """The four tiles [2, 2, 3, h, w] of an explained mosaic."""
    half = SIZE // 2
    return explained[number].reshape(3, 2, half, 2, half).permute(1, 3, 0, 2, 4)


def halved(pixels):
    return torch.nn.functional.avg_pool2d(pixels, 2)


def recording(calls, answer):
    def explainer(pixels, targets, **more):
        calls.append((pixels.clone(), targets.clone(), more.get("masks")))
        return answer(pixels)

    return explainer


def test_focus_explains_mosaics_of_two_images_of_the_class_and_two_of_others(planted):
    calls, case = [], make_case(planted, np.zeros((5, *GRID)))
    case.explainer = recording(calls, lambda pixels: pixels.mean(1))
    score("focus", case)
    [(explained, targets, masks)] = calls
    assert torch.equal(targets, case.targets)
    small = {index: halved(image[None])[0] for index, image in enumerate(case.gallery.images)}
    places = set()
    for i in range(5):
        own, partners, rivals = 0, [], []
        for place, tile in enumerate(tiles_of(case, explained, i).flatten(0, 1)):
            if torch.allclose(tile, halved(case.images[i : i + 1])[0], atol=1e-6):
                own += 1
                places.add(place)
            for index, other in small.items():
                if torch.allclose(tile, other, atol=1e-6):
                    (partners if case.gallery.targets[index] == 0 else rivals).append(index)
        assert (own, len(partners), len(set(rivals))) == (1, 1, 2)
    assert len(places) > 1  # in random order
    dim = torch.nn.functional.max_pool2d(explained, 2).amax(1) <= DIM
    assert masks.dtype == bool
    assert (masks.reshape(5, -1).sum(1) == 2 * (PATCH // 2) ** 2).all()  # the evidence of the class's tiles
    assert not (masks[:, ::2, ::2] & dim.numpy()).any()


@pytest.mark.parametrize("seed", range(3))
def test_focus_is_that_of_quantus(planted, seed):
    calls, case = [], make_case(planted, np.zeros((6, *GRID)), seed=seed)
    answers = torch.from_numpy(maps_of("normal", 6, seed) * 10.0 ** np.arange(-9, 3, 2)[:, None, None]).float()
    case.explainer = recording(calls, lambda pixels: answers)
    found = score("focus", case)
    bright = torch.stack([tiles_of(case, calls[0][0], i).flatten(0, 1).amax((1, 2, 3)) > DIM for i in range(6)])
    metric = quantus.Focus(
        abs=False,
        normalise=True,
        normalise_func_kwargs={"normalise_axes": [1, 2, 3]},
        return_aggregate=False,
        disable_warnings=True,
    )
    with unchecked():
        expected = metric(
            model=planted,
            x_batch=calls[0][0].numpy(),
            y_batch=case.targets.numpy(),
            a_batch=answers[:, None].numpy().astype(np.float64),
            custom_batch=bright.numpy(),
            channel_first=True,
        )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)
    assert found.std() > 0


def test_focus_of_a_map_that_knows_the_class_is_one_of_one_that_does_not_a_half(planted):
    for answer, expected in (
        (lambda pixels: (pixels.mean(1) > (DIM + 0.2) / 2).float(), 1),
        (lambda pixels: (pixels.mean(1) < (DIM + 0.2) / 2).float(), 0),
        (lambda pixels: torch.ones(len(pixels), *GRID), 0.5),
    ):
        case = make_case(planted, np.zeros((8, *GRID)), explainer=recording([], answer))
        np.testing.assert_allclose(score("focus", case, mosaics=2), expected, atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    noise = recording([], lambda pixels: torch.randn(len(pixels), *GRID, generator=generator))
    found = score("focus", make_case(planted, np.zeros((400, *GRID)), explainer=noise))
    assert abs(found.mean() - 0.5) < 4 * found.std() / 20


def test_focus_averages_different_mosaics_and_does_not_depend_on_the_mini_batch(planted):
    calls = []
    case = make_case(planted, np.zeros((6, *GRID)), explainer=recording(calls, lambda pixels: pixels[:, 0] ** 2))
    whole = score("focus", case, mosaics=3)
    assert len({fingerprint(explained) for explained, _, _ in calls}) == 3
    singles = []
    for i in range(6):
        one = make_case(planted, np.zeros((1, *GRID)), explainer=case.explainer, images=case.images[i : i + 1])
        singles.append(score("focus", one, mosaics=3)[0])
    np.testing.assert_allclose(singles, whole, rtol=1e-6)


def test_focus_without_a_partner_takes_the_image_twice_and_without_a_rival_is_skipped(planted):
    whole = gallery()
    alone = Gallery(whole.images[5:7], whole.targets[5:7], whole.masks[5:7])  # one of each class
    calls = []
    case = make_case(
        planted,
        np.zeros((1, *GRID)),
        images=whole.images[5:6],
        gallery=alone,
        explainer=recording(calls, lambda pixels: pixels.mean(1)),
    )
    score("focus", case)
    tiles = tiles_of(case, calls[0][0]).flatten(0, 1)
    for index, image in enumerate(alone.images):
        same = [torch.allclose(tile, halved(image[None])[0], atol=1e-6) for tile in tiles]
        assert sum(same) == 2, index
    only = Gallery(whole.images[:6], whole.targets[:6], whole.masks[:6])
    with pytest.raises(Skip, match="explained images of two classes"):
        score("focus", make_case(planted, np.zeros((1, *GRID)), gallery=only, explainer=case.explainer))


def test_focus_without_positive_relevance_is_undefined_for_that_image_alone(planted):
    answer = -np.ones((3, SIZE, SIZE), np.float32)
    answer[1] *= -1
    case = make_case(planted, np.zeros((3, *GRID)))
    case.explainer = recording([], lambda pixels: torch.from_numpy(answer))
    np.testing.assert_array_equal(np.isnan(score("focus", case)), [True, False, True])


def test_effective_complexity_counts_patches_above_a_share_of_the_largest(planted):
    maps = np.zeros((3, *GRID))
    maps[0, 0] = [1, 0.26, 0.25, 0.24]  # the threshold itself does not exceed it
    maps[1] = -7e-9 * maps[0]
    maps[2] = 1e6
    maps[2, 0, 0] = 0
    case = make_case(planted, maps)
    assert score("effective_complexity", case, threshold=0.25).tolist() == [2, 2, 15]
    assert score("effective_complexity", case).tolist() == [4, 4, 15]
    assert score("effective_complexity", case, threshold=0.5).tolist() == [1, 1, 15]


@pytest.mark.parametrize("seed", range(3))
def test_effective_complexity_is_quantuss_of_one_image_at_a_time(planted, seed):
    case = make_case(planted, maps_of("normal", 6, seed) * 10.0 ** np.arange(-3, 3)[:, None, None])
    metric = quantus.EffectiveComplexity(
        eps=0.1, abs=True, normalise=True, return_aggregate=False, disable_warnings=True
    )
    alone = []
    for i in range(6):
        maps = case.patch_maps[i : i + 1, None].astype(np.float64)
        x = np.zeros((1, 1, *GRID), np.float32)
        alone += metric(model=None, x_batch=x, y_batch=np.zeros(1), a_batch=maps, channel_first=True)
    np.testing.assert_array_equal(score("effective_complexity", case), alone)


def test_chance_of_effective_complexity_is_as_declared(planted):
    found = score("effective_complexity", make_case(planted, np.random.default_rng(0).random((500, *GRID))))
    largest = 16 / 17  # of 16 uniform values, on average; the threshold is a tenth of it
    assert abs(found.mean() - 16 * (1 - 0.1 * largest)) < 4 * found.std() / 500**0.5


def test_patches_needed_is_the_place_of_the_one_patch_that_decides(planted):
    places = np.arange(1, 17)
    maps = np.empty((16, 16))
    for i, place in enumerate(places):  # the key patch is the `place`th most relevant
        order = np.insert(np.delete(np.arange(16), KEY[0] * 4 + KEY[1]), place - 1, KEY[0] * 4 + KEY[1])
        maps[i, order] = np.arange(16.0, 0.0, -1) - 8.5  # signed: the order counts, not the magnitude
    case = make_case(planted, maps.reshape(16, *GRID), removal="zero")
    np.testing.assert_allclose(score("patches_needed", case), places / 16)
    np.testing.assert_allclose(score("patches_needed", case, step=4), np.ceil(places / 4) / 4)
    assert (score("patches_needed", case, tolerance=1.0) == 0).all()  # from .86 or so to a half: .54 nats
    found = score("patches_needed", make_case(planted, case.maps, removal="zero", engine="quantus"))
    np.testing.assert_allclose(found, places / 16)


@pytest.mark.parametrize("seed", range(3))
def test_patches_needed_is_a_plain_search_for_the_smallest_set(tiny_vit, seed):
    pixels = images(8, seed)
    with torch.no_grad():
        predicted = tiny_vit(pixels).argmax(1)
    case = make_case(tiny_vit, maps_of("normal", 8, seed), removal="zero", images=pixels, targets=predicted)
    expected = []
    for i in range(8):
        order = np.argsort(-case.patch_maps[i].ravel())
        likely = []
        for kept in range(17):
            keep = torch.zeros(1, 16, dtype=torch.bool)
            keep[0, order[:kept].copy()] = True
            with torch.no_grad():
                logits = tiny_vit(case.removal.remove(case.images[i : i + 1], keep.reshape(1, *GRID)))
            likely.append(logits.log_softmax(1)[0, predicted[i]].item())
        expected.append(next(kept for kept in range(17) if likely[kept] >= likely[16]) / 16)
    np.testing.assert_allclose(score("patches_needed", case, tolerance=0.0), expected)
    assert len(set(expected)) > 2


def test_chance_of_complexity_and_sparseness_is_as_declared(planted):
    case = make_case(planted, np.random.default_rng(0).random((2000, *GRID)))
    for name, limit, bias in (("complexity", np.log(16) - np.log(2) + 0.5, 0.02), ("sparseness", 1 / 3, 0.03)):
        found = score(name, case)  # the limits are those of many patches; sixteen are a little off
        assert abs(found.mean() - limit) < bias + 4 * found.std() / 2000**0.5


def test_chance_of_patches_needed_is_a_random_orders(planted):
    found = score("patches_needed", make_case(planted, np.random.default_rng(0).random((600, *GRID)), removal="zero"))
    assert abs(found.mean() - 17 / 32) < 4 * found.std() / 600**0.5  # the key patch's mean place, of 16
