"""Faithfulness metrics against plain loops over one image and one subset at a time, and against closed forms."""

import itertools

import captum.metrics
import numpy as np
import pytest
import scipy.stats
import torch
from kinds_of_maps import COUNT, KINDS, case_of, fickle, maps_of
from planted_cases import GAIN, KEY, PATCH, SIZE, images, make_case, score

from unmask.metrics import _curves, _segments, _subsets

CELLS = [(kind, seed, removal) for kind in KINDS for seed, removal in [(0, "mean"), (1, "mask_token"), (2, "blur")]]
GRID = (4, 4)


def plain(case, i, gone):
    """Logits [C] of image i without the patches `gone`, by itself."""
    keep = torch.ones(16, dtype=torch.bool)
    keep[torch.tensor(list(gone), dtype=torch.int64)] = False
    with torch.no_grad():
        return case.model(case.removal.remove(case.images[i : i + 1], keep.reshape(1, *GRID)))[0].double()


def logit(case, i, gone):
    return plain(case, i, gone)[case.targets[i]].item()


def probability(case, i, gone):
    return plain(case, i, gone).softmax(0)[case.targets[i]].item()


def values(case, i):
    """The map's patches [16], by blocks of its pixels."""
    one = case.maps[i].astype(np.float64)
    return one.ravel() if one.shape == GRID else one.reshape(4, PATCH, 4, PATCH).sum((1, 3)).ravel()


def order(case, i):
    """Patches, most relevant first; ties as the case breaks them, which has a test of its own."""
    return np.argsort(-case.ranks(case.patch_maps)[i].ravel())


def loop(case, one):
    return [one(case, i) for i in range(len(case))]


def trapezoids(points):
    return sum((a + b) / 2 for a, b in itertools.pairwise(points)) / (len(points) - 1)


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_least_relevant_first_is_a_plain_loop(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)
    expected = loop(
        case,
        lambda case, i: trapezoids([probability(case, i, order(case, i)[::-1][:gone]) for gone in range(2, 17, 2)]),
    )
    np.testing.assert_allclose(score("pixel_flipping_lerf", case, step=2), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_insertion_is_a_plain_loop_that_adds_patches(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)

    def one(case, i):
        points = []
        for present in range(0, 17, 4):
            points.append(probability(case, i, set(range(16)) - set(order(case, i)[:present].tolist())))
        return trapezoids(points)

    np.testing.assert_allclose(score("insertion", case, step=4), loop(case, one), rtol=0, atol=1e-6)


def test_insertion_is_least_relevant_first_but_for_the_ends(tiny_vit):
    case = case_of(tiny_vit, "signed", 0, "mean")
    (points,) = _curves.curves(case, _curves.least_first(case), step=2)
    steps = points.shape[1] - 1
    whole = ((steps - 1) * score("pixel_flipping_lerf", case, step=2) + points[:, :2].mean(1)) / steps
    np.testing.assert_allclose(score("insertion", case, step=2), whole, rtol=1e-12)


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_region_perturbation_is_a_plain_loop(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)
    expected = loop(
        case,
        lambda case, i: np.mean(
            [logit(case, i, []) - logit(case, i, order(case, i)[:gone]) for gone in range(1, 6)]  # .3 of 16 patches
        ),
    )
    np.testing.assert_allclose(score("region_perturbation", case, share=0.3), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_road_is_a_plain_loop(kind, seed, removal, tiny_vit):
    case = case_of(fickle(tiny_vit), kind, seed, removal)
    expected = loop(
        case,
        lambda case, i: np.mean(
            [plain(case, i, order(case, i)[:k]).argmax() == case.targets[i] for k in range(2, 16, 2)]
        ),
    )
    np.testing.assert_array_equal(score("road", case, step=2), expected)
    assert len(set(expected)) > 1


def test_road_calls_a_tie_no_prediction(planted):
    case = make_case(planted, np.random.default_rng(0).random((4, *GRID)), removal="zero")
    ranks = case.ranks(case.patch_maps)[:, KEY[0], KEY[1]]  # without the key patch the two logits are equal
    np.testing.assert_allclose(score("road", case), np.minimum(16 - ranks, 15) / 15)


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_the_gains_are_ratios_to_the_random_orders_curves(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)
    score("pixel_flipping_gain", case, step=2, orders=3)
    mean = trapezoids(case.traces["random"].astype(np.float64).T[1:])
    most, least = score("pixel_flipping", case, step=2), score("pixel_flipping_lerf", case, step=2)
    np.testing.assert_allclose(score("pixel_flipping_gain", case, step=2, orders=3), 1 - most / mean, atol=1e-5)
    np.testing.assert_allclose(
        score("pixel_flipping_lerf_gain", case, step=2, orders=3), 1 - (1 - least) / (1 - mean), atol=1e-5
    )
    np.testing.assert_allclose(score("srg", case, step=2), least - most, rtol=1e-9)


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_monotonicity_correlation_and_estimate_are_correlations_over_single_patches(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)

    def estimate(case, i):
        fell = [logit(case, i, []) - logit(case, i, [patch]) for patch in range(16)]
        return scipy.stats.pearsonr(values(case, i), fell)[0]

    def monotonicity(case, i):
        changed = [(probability(case, i, []) - probability(case, i, [patch])) ** 2 for patch in range(16)]
        return scipy.stats.spearmanr(np.abs(values(case, i)), changed)[0]

    np.testing.assert_allclose(score("faithfulness_estimate", case), loop(case, estimate), rtol=0, atol=1e-5)
    # Patches that make no difference to the sixth digit may change places.
    np.testing.assert_allclose(score("monotonicity_correlation", case), loop(case, monotonicity), rtol=0, atol=0.02)


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_sensitivity_n_is_a_plain_loop_over_the_same_subsets(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)
    drawn = {n: _subsets.partitions(case, "sensitivity_n", 16 // n, 10).reshape(COUNT, 10, 16) for n in (8, 4)}

    def one(case, i):
        found = []
        for n, subsets in drawn.items():
            gone = [np.flatnonzero(subset) for subset in subsets[i]]
            assert {len(patches) for patches in gone} == {n}
            said = [values(case, i)[patches].sum() for patches in gone]
            fell = [logit(case, i, []) - logit(case, i, patches) for patches in gone]
            found.append(scipy.stats.pearsonr(said, fell)[0])
        return np.mean(found)

    np.testing.assert_allclose(score("sensitivity_n", case, sizes=2, samples=10), loop(case, one), rtol=0, atol=1e-5)


def test_random_subsets_are_uniform_and_leave_no_patch_out(tiny_vit):
    case = make_case(tiny_vit, np.zeros((400, *GRID)), images=images(1).expand(400, -1, -1, -1))
    removed = _subsets.partitions(case, "x", 4, 8).reshape(400, 8, 16)
    assert (removed.sum(2) == 4).all()
    assert (removed.sum(1) == 2).all()  # two permutations, each cut into four
    first = removed[:, 0]
    assert np.abs(first.mean(0) - 1 / 4).max() < 4 * (3 / 16 / 400) ** 0.5
    pairs = np.einsum("np,nq->pq", first, first)[np.triu_indices(16, 1)] / 400
    assert np.abs(pairs - 1 / 20).max() < 4.5 * (0.05 * 0.95 / 400) ** 0.5  # 4 / 16 * 3 / 15
    other = make_case(tiny_vit, np.zeros((3, *GRID)), seed=12)
    assert not np.array_equal(_subsets.partitions(other, "x", 4, 8), removed[:3].reshape(3, 8, *GRID))


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_infidelity_is_that_of_captum_over_the_squares_where_the_factor_is_positive(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)
    squares = [
        {4 * (top + y) + left + x for y in range(side) for x in range(side)}
        for side in (1, 2, 3)
        for top in range(5 - side)
        for left in range(5 - side)
    ]
    assert len(squares) == 16 + 9 + 4
    removed = torch.tensor([[patch in square for patch in range(16)] for square in squares])

    def one(case, i):
        drawn = iter(removed)

        def perturb(present):
            gone = next(drawn)[None].float()
            return gone, present - gone

        def model(present):
            return torch.tensor([[logit(case, i, (row == 0).nonzero()[:, 0].tolist())] for row in present])

        said = (removed.double() @ torch.from_numpy(values(case, i))).numpy()
        fell = np.array([logit(case, i, []) - logit(case, i, square) for square in squares])
        theirs = captum.metrics.infidelity(
            model,
            perturb,
            torch.ones(1, 16),
            torch.from_numpy(values(case, i))[None].float(),
            target=0,
            n_perturb_samples=len(squares),
            max_examples_per_batch=1,
            normalize=True,
        ).item()
        return theirs / (fell**2).mean() if (said * fell).sum() > 0 else 1.0

    np.testing.assert_allclose(score("infidelity", case), loop(case, one), rtol=0, atol=1e-4)


def test_infidelity_does_not_praise_a_map_of_the_wrong_sign(planted):
    known = np.zeros((3, *GRID))
    known[:, KEY[0], KEY[1]] = 5
    np.testing.assert_allclose(score("infidelity", make_case(planted, known, removal="zero")), 0, atol=1e-6)
    np.testing.assert_allclose(score("infidelity", make_case(planted, -known, removal="zero")), 1, atol=1e-12)


@pytest.mark.parametrize("groups", [4, 5, 16])
@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_saco_is_the_papers_algorithm(kind, seed, removal, groups, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)

    def one(case, i):
        sets = [[p for rank, p in enumerate(order(case, i)) if k <= rank * groups / 16 < k + 1] for k in range(groups)]
        salience = [values(case, i)[patches].mean() for patches in sets]
        fell = [probability(case, i, []) - probability(case, i, patches) for patches in sets]
        total = weights = 0.0
        for first, second in itertools.combinations(range(groups), 2):
            weight = salience[first] - salience[second]
            total += weight if fell[first] >= fell[second] else -weight
            weights += abs(weight)
        return total / weights

    np.testing.assert_allclose(score("saco", case, groups=groups), loop(case, one), rtol=0, atol=1e-5)


def test_saco_leaves_groups_that_matter_alike_out_of_the_balance(planted):
    maps = np.random.default_rng(0).random((400, *GRID))
    scores = score("saco", make_case(planted, maps, removal="zero"))  # 7 of 8 groups change nothing at all
    assert abs(scores.mean()) < 4 * scores.std() / 400**0.5
    assert scores.std() > 0.1


@pytest.mark.parametrize(("kind", "seed", "removal"), CELLS)
def test_irof_is_a_plain_loop_over_segments(kind, seed, removal, tiny_vit):
    case = case_of(tiny_vit, kind, seed, removal)
    labels = _segments.segments(case, 6).reshape(COUNT, 16)

    def one(case, i):
        sets = [np.flatnonzero(labels[i] == label) for label in range(6)]
        means = [values(case, i)[patches].mean() for patches in sets]
        if len(set(means)) < 6:
            return None  # ties, which are broken at random
        gone, points = [], [1.0]
        for label in np.argsort(means)[::-1]:
            gone += sets[label].tolist()
            points.append(probability(case, i, gone) / probability(case, i, []))
        return 1 - trapezoids(points)

    found, expected = score("irof", case, segments=6), loop(case, one)
    assert kind in ("one-hot", "ties") or None not in expected
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs is None or ours == pytest.approx(theirs, abs=1e-5)


def test_segments_are_connected_cover_the_image_and_follow_its_colours(tiny_vit):
    scene = torch.zeros(1, 3, SIZE, SIZE)
    scene[:, 0, :, : SIZE // 2] = 1  # the left half is red; a green patch in it, a blue one on the other side
    scene[:, :, 8:16, 8:16] = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    scene[:, 2, 16:24, 24:32] = 1
    case = make_case(tiny_vit, np.zeros((1, *GRID)), images=scene)
    labels = _segments.segments(case, 4)[0]
    assert set(labels.ravel()) == {0, 1, 2, 3}
    assert (labels == labels[1, 1]).sum() == 1
    assert (labels == labels[2, 3]).sum() == 1
    assert len(set(labels[:, :2].ravel())) == len(set(labels[:, 2:].ravel())) == 2
    noise = make_case(tiny_vit, np.zeros((COUNT, *GRID)))
    for count in (2, 7, 16):
        for labels in _segments.segments(noise, count):
            assert len(set(labels.ravel())) == count
            for label in range(count):
                assert scipy.ndimage.label(labels == label)[1] == 1  # no diagonal neighbours
    with pytest.raises(ValueError, match="17 segments are more than the 16 patches"):
        _segments.segments(noise, 17)
    with pytest.raises(ValueError, match="17 groups are more than the 16 patches"):
        score("saco", noise, groups=17)


@pytest.mark.parametrize("step", [3, 16, 5])
@pytest.mark.parametrize("engine", ["batched", "quantus"])
@pytest.mark.parametrize("name", ["pixel_flipping", "pixel_flipping_lerf", "srg", "insertion", "road"])
def test_a_step_that_does_not_divide_the_patches_is_refused(name, engine, step, tiny_vit):
    case = case_of(tiny_vit, "random", 0, "mean", engine=engine)
    with pytest.raises(ValueError, match=f"step {step} does not divide the 16 patches into two steps or more"):
        score(name, case, step=step)


def known_curve(count):
    """The key patch's probability [count] and logit [count]; without it they are .5 and 0."""
    row, column = (PATCH * part for part in KEY)
    brightness = images(count)[:, :, row : row + PATCH, column : column + PATCH].mean((1, 2, 3)).double().numpy()
    return 1 / (1 + np.exp(-GAIN * brightness)), GAIN * brightness


CHANCE = 400


def at_random(name, planted, maps=None, **options):
    """(mean - expected) in standard errors for maps that know nothing of the key patch."""
    maps = np.random.default_rng(7).random((CHANCE, *GRID)) if maps is None else maps
    return score(name, make_case(planted, maps, removal="zero"), **options)


def far_from(scores, expected):
    apart = scores - expected
    return abs(apart.mean()) / (apart.std() / len(apart) ** 0.5)


@pytest.mark.parametrize(
    "name",
    ["srg", "faithfulness_correlation", "faithfulness_estimate", "monotonicity_correlation", "sensitivity_n", "saco"],
)
def test_random_maps_score_nought_where_that_is_chance(name, planted):
    scores = at_random(name, planted)
    assert far_from(scores, 0) < 4
    assert scores.std() > 0.01


def test_random_maps_have_the_areas_of_a_random_order(planted):
    p, y = known_curve(CHANCE)
    steps = np.arange(17)
    gone = steps / 16  # the share of orders in which the key patch went by then
    curve = p[:, None] + (0.5 - p[:, None]) * gone
    area = np.trapezoid(curve[:, 1:], axis=1) / 15
    assert far_from(at_random("pixel_flipping", planted), area) < 4
    assert far_from(at_random("pixel_flipping_lerf", planted), area) < 4
    assert far_from(at_random("insertion", planted), np.trapezoid(curve, axis=1) / 16) < 4
    assert far_from(at_random("irof", planted), 1 - np.trapezoid(curve, axis=1) / 16 / p) < 4
    assert far_from(at_random("irof", planted, segments=5), (1 - 0.5 / p) / 2) < 4
    assert far_from(at_random("region_perturbation", planted), y * gone[1:5].mean()) < 4
    assert far_from(at_random("road", planted), 1 - gone[1:16].mean()) < 4


@pytest.mark.parametrize("name", ["pixel_flipping_gain", "pixel_flipping_lerf_gain"])
def test_random_maps_gain_about_nothing(name, planted):
    scores = at_random(name, planted, orders=32)  # of few orders, the mean of the ratio lies a little below
    assert far_from(scores, 0) < 4


def test_the_infidelity_of_a_map_without_information_is_that_of_a_constant_one(planted):
    squares = _subsets.squares(make_case(planted, np.zeros((1, *GRID))), (1, 2, 3))[0]
    size, hit = squares.sum((1, 2)), squares[:, KEY[0], KEY[1]]
    constant = 1 - (size * hit).sum() ** 2 / (size**2).sum() / hit.sum()  # the logit falls by the same, or not at all
    flat = at_random("infidelity", planted, maps=np.ones((CHANCE, *GRID)) + 1e-6 * np.eye(4))
    np.testing.assert_allclose(flat, constant, atol=1e-4)
    narrow = at_random("infidelity", planted, maps=1 + 0.02 * np.random.default_rng(0).normal(size=(CHANCE, *GRID)))
    assert narrow.mean() == pytest.approx(constant, abs=0.01)
    assert constant < 0.8


def test_maps_of_kinds_are_what_they_are_called():
    assert {len(np.unique(one)) for one in maps_of("ties", 0)} <= {2, 3}
    assert (maps_of("one-hot", 1).sum((1, 2)) == 1).all()
    assert maps_of("pixels", 2).shape == (COUNT, SIZE, SIZE)
    assert (maps_of("signed", 0) < 0).any()
