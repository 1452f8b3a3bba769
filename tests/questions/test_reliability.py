"""Reliability and agreement against the definitions, scipy, closed forms and simulated truth."""

import numpy as np
import pytest
import scipy.stats

from unmask.statistics.orders import View, halves, order, spearman_brown
from unmask.statistics.pools import Explainer
from unmask.statistics.reliability import agreement, alpha, groups, jackknife, split_half
from unmask.statistics.study import Measured, Study


def study(cubes, direction="higher", seed=0):
    """A study of one metric; `cubes` holds scores by domain [I, S, M, E]."""
    _, seeds, encoders, explainers = next(iter(cubes.values())).shape
    measured = Measured({"metric": "m", "removal": None, "category": "c", "direction": direction}, cubes)
    made = Study(
        [Explainer(f"e{i}", "gradient", False, False) for i in range(explainers)],
        [f"m{i}" for i in range(encoders)],
        ["scratch"] * encoders,
        np.full(encoders, np.nan),
        [f"p{i}f0" for i in range(seeds)],
        [measured],
        {domain: np.ones((1, *cube.shape[:2])) for domain, cube in cubes.items()},
        {},
        0.95,
        seed,
    )
    view = View(measured, list(cubes))
    return made, view, view.takes_part(made)


def planted(rng, images=20, explainers=12, spread=0.3, noise=1.0, models=1):
    offsets = np.linspace(-1, 1, explainers) * spread * np.sqrt(3)
    return offsets + rng.normal(0, noise, (images, 1, models, explainers))


def krippendorff(values):
    """Ordinal alpha by its definition: observed over expected disagreement of all pairs of values."""
    coders, units = values.shape
    levels, counts = np.unique(values, return_counts=True)

    def difference(c, k):
        c, k = sorted((c, k))
        between = (levels >= c) & (levels <= k)
        return (counts[between].sum() - (counts[levels == c][0] + counts[levels == k][0]) / 2) ** 2

    observed = np.mean(
        [
            difference(values[i, u], values[j, u])
            for u in range(units)
            for i in range(coders)
            for j in range(coders)
            if i != j
        ]
    )
    flat = values.ravel()
    expected = np.mean([difference(flat[i], flat[j]) for i in range(len(flat)) for j in range(len(flat)) if i != j])
    return 1 - observed / expected


def everyone(values):
    return np.ones((1, len(values)), bool)


@pytest.mark.parametrize("levels", [3, 100])
def test_alpha_is_krippendorffs_by_its_definition(levels):
    rng = np.random.default_rng(levels)
    values = rng.integers(0, levels, (6, 7)) + np.arange(7) * levels // 10
    assert alpha(values.astype(float), everyone(values))[0] == pytest.approx(krippendorff(values), abs=1e-12)


def test_alpha_of_rankings_follows_from_kendalls_w():
    rng = np.random.default_rng(0)
    m, k = 9, 6
    ranks = np.array([rng.permutation(k) + 1.0 for _ in range(m)])
    w = scipy.stats.friedmanchisquare(*ranks.T).statistic / (m * (k - 1))
    assert alpha(ranks, everyone(ranks))[0] == pytest.approx(1 - (m * k - 1) / (k * (m - 1)) * (1 - w), abs=1e-12)


def test_alpha_of_agreement_of_chance_and_of_nothing():
    rng = np.random.default_rng(1)
    same = np.tile(np.arange(5.0), (4, 1))
    assert alpha(same, everyone(same))[0] == 1
    random = np.mean([alpha(v, everyone(v))[0] for v in rng.permuted(np.tile(np.arange(8.0), (500, 6, 1)), axis=2)])
    assert random == pytest.approx(0, abs=0.02)
    assert np.isnan(alpha(np.ones((4, 5)), np.ones((1, 4), bool))[0])
    assert np.isnan(alpha(same, np.array([[True, False, False, False]]))[0])


def test_leaving_coders_out_is_having_fewer():
    rng = np.random.default_rng(2)
    ranks = np.array([rng.permutation(6) + 1.0 for _ in range(8)])
    kept = ~np.eye(8, dtype=bool)
    expected = [krippendorff(ranks[rows]) for rows in kept]
    np.testing.assert_allclose(alpha(ranks, kept), expected, atol=1e-12)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(3).normal(2, 3, 15)
    left = (values.sum() - values) / 14
    expected = scipy.stats.t.interval(0.95, 14, values.mean(), scipy.stats.sem(values))
    assert jackknife(values.mean(), [left], 0.95) == pytest.approx(expected)
    two = [(values[:9].sum() - values[:9]) / 8, (values[9:].sum() - values[9:]) / 5]
    half = scipy.stats.t(13).ppf(0.975) * np.hypot(scipy.stats.sem(values[:9]), scipy.stats.sem(values[9:]))
    assert jackknife(1.0, two, 0.95) == pytest.approx((1 - half, 1 + half))
    assert np.isnan(jackknife(1.0, [np.array([1.0])], 0.95)).all()


def test_every_scored_image_is_left_out_once():
    made, _, _ = study({"d": planted(np.random.default_rng(0), images=50)})
    scored = np.arange(50) % 7 > 0
    out = groups(made, "d", scored)
    assert out.shape == (20, 50)
    assert (out.sum(0) == scored).all()
    assert set(out.sum(1)) <= {2, 3}
    assert len(groups(made, "d", np.arange(50) < 5)) == 5


def test_split_half_reliability_step_by_step():
    """Means of halves, scipy's tau, Greiner's relation, Spearman-Brown; the direction does not matter."""
    cube = planted(np.random.default_rng(4), images=11, models=2)
    made, view, chosen = study({"d": cube})
    first, second = (half["d"] for half in halves(made, view))
    assert ((first + second) == 1).all()
    assert (first.sum(1) == 5).all()
    tau = []
    for one, other in zip(first, second, strict=True):
        means = [cube[half == 1].mean((0, 1, 2)) for half in (one, other)]
        tau.append(scipy.stats.kendalltau(*means).statistic)
    r = np.sin(np.pi / 2 * np.mean(tau))
    found = split_half(made, view, chosen)
    assert found.value == pytest.approx(2 * r / (1 + r))
    assert found.low < found.value < found.high
    assert order(made, view).reliability == pytest.approx(found.value)
    assert split_half(*study({"d": cube}, direction="lower")).value == pytest.approx(found.value)


@pytest.mark.parametrize(("images", "noise"), [(20, 0.3), (20, 1.0), (8, 1.0), (60, 2.0)])
def test_reliability_is_the_share_of_variance_that_is_no_noise(images, noise):
    """Of normal scores the reliability of means is s^2 / (s^2 + noise^2 / n)."""
    rng = np.random.default_rng(5)
    offsets = rng.normal(0, 0.3, 80)
    found = [
        split_half(*study({"d": offsets + rng.normal(0, noise, (images, 1, 1, 80))}, seed=i)).value for i in range(25)
    ]
    variance = offsets.var(ddof=1)
    assert np.mean(found) == pytest.approx(variance / (variance + noise**2 / images), abs=0.05)


def test_noise_has_no_reliability_and_no_agreement_and_certainty_has_all():
    rng = np.random.default_rng(6)
    noise = study({"d": rng.normal(0, 1, (20, 1, 1, 30))})
    assert split_half(*noise).value < 0.35
    found = agreement(*noise)
    assert abs(found.value) < 0.05
    assert found.low < 0 < found.high
    certain = study({"d": planted(rng, noise=1e-6)})
    assert split_half(*certain).value == agreement(*certain).value == 1


def test_agreement_is_averaged_over_models():
    rng = np.random.default_rng(7)
    cubes = {"a": planted(rng, models=2), "b": planted(rng, images=9, models=2)}
    found = agreement(*study(cubes, direction="lower"))
    each = [krippendorff(scipy.stats.rankdata(-cube[:, 0, m], axis=1)) for cube in cubes.values() for m in range(2)]
    assert found.value == pytest.approx(np.mean(each))


def test_too_little_is_not_a_number():
    rng = np.random.default_rng(8)
    two = study({"d": planted(rng, explainers=2)})
    assert np.isnan([split_half(*two).value, agreement(*two).value]).all()
    one = study({"d": planted(rng, images=1)})
    assert np.isnan([split_half(*one).value, agreement(*one).value]).all()
    nothing = study({"d": np.full((5, 1, 1, 4), np.nan)})
    assert np.isnan([split_half(*nothing).value, agreement(*nothing).value]).all()


def test_an_image_without_all_scores_does_not_count():
    cube = planted(np.random.default_rng(9), images=12)
    short = cube.copy()
    short[3, 0, 0, 2] = np.nan
    made, view, chosen = study({"d": short})
    assert chosen.all()
    rest = np.delete(cube, 3, 0)
    ranks = scipy.stats.rankdata(-rest[:, 0, 0], axis=1)
    assert agreement(made, view, chosen).value == pytest.approx(krippendorff(ranks))


@pytest.mark.parametrize(("noise", "models"), [(0.5, 1), (2.0, 3)])
def test_intervals_cover_what_such_samples_give(noise, models):
    """Nominal .95; the jackknife errs towards wide intervals."""
    rng, found = np.random.default_rng(10), []
    for i in range(80):
        made = study({"d": planted(rng, images=12, noise=noise, models=models)}, seed=i)
        found.append((split_half(*made), agreement(*made)))
    for which in range(2):
        values = [one[which] for one in found]
        mean = np.mean([one.value for one in values])
        assert np.mean([one.low <= mean <= one.high for one in values]) >= 0.88


def test_spearman_brown_of_tau():
    assert spearman_brown(1.0) == pytest.approx(1)
    assert spearman_brown(1 / 3) == pytest.approx(2 / 3)  # tau 1/3 is r 1/2
    assert spearman_brown(-0.5) == 0
