"""The bootstrap, the ranks and the boards against closed forms and scipy."""

import numpy as np
import pytest
import scipy.stats

from unmask.statistics.boards import board
from unmask.statistics.bootstrap import Draws, counts, interval, sums, tails
from unmask.statistics.cells import Cell
from unmask.statistics.pairs import signs
from unmask.statistics.pools import Explainer, Pool, null
from unmask.statistics.ranks import best_shares, rank
from unmask.statistics.verdicts import Verdicts


def draws(units, resamples=4000, seed=0):
    """One pair of seeds: every unit is an image."""
    generator = np.random.default_rng(seed)
    return Draws(counts(generator, units, resamples), np.arange(units), signs(generator, units, resamples))


def cell(values, domain="d", skipped=False):
    values = np.asarray(values, float)
    lost = ~np.isfinite(values)
    return Cell(domain, "e", values, lost & (not skipped), lost.sum(0) * skipped)


def pool(*cells, resamples=4000):
    return Pool(list(cells), {one.domain: draws(len(one.values), resamples) for one in cells})


def entries(*names):
    """`random..` and `oracle..` are controls, `alias..` is an alias of a."""
    return [
        Explainer(
            n,
            "control" if n.startswith(("random", "oracle")) else "cam",
            n.startswith(("random", "oracle")),
            n.startswith("oracle"),
            "a" if n.startswith("alias") else None,
        )
        for n in names
    ]


def rows(values, direction, *names):
    return {row["explainer"]: row for row in board(pool(cell(values)), direction, 0.95, entries(*names)).rows}


def test_each_resample_has_the_size_of_the_sample():
    drawn = draws(30, 500).weights
    assert drawn.shape == (500, 30)
    assert (drawn.sum(1) == 30).all()
    assert drawn.var() == pytest.approx(1 - 1 / 30, rel=0.05)  # multinomial counts


def test_interval_agrees_with_normal_theory():
    values = np.random.default_rng(1).normal(2.0, 3.0, (400, 1))
    low, high = sums(draws(400), values).interval(0.95)
    half = scipy.stats.t(399).ppf(0.975) * values.std(ddof=1) / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_is_the_percentile_interval_of_scipy_at_an_expanded_level():
    values = np.random.default_rng(2).exponential(1.0, (40, 1))
    low, high = sums(draws(40, 20000), values).interval(0.9)
    reference = scipy.stats.bootstrap(
        (values[:, 0],),
        np.mean,
        n_resamples=20000,
        confidence_level=1 - 2 * float(tails(0.9, 40)),
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx(tuple(reference), abs=0.01)


def test_the_level_is_expanded_as_hesterberg_has_it():
    """With 20 images the tails of 95 % are .0159; with many they are .025, as percentiles have them."""
    assert tails(0.95, 20) == pytest.approx(0.0159, abs=5e-5)
    assert tails(0.95, 10**6) == pytest.approx(0.025, abs=1e-6)
    assert tails(0.95, 60, 3) == pytest.approx(scipy.stats.norm.cdf(-np.sqrt(60 / 57) * scipy.stats.t(57).ppf(0.975)))
    assert np.isnan(tails(0.95, 1)), "one image has no interval"


def test_a_constant_shift_has_a_difference_of_zero_width():
    values = np.random.default_rng(5).normal(0, 1, (25, 2))
    values[:, 1] = values[:, 0] + 0.25
    low, high = sums(draws(25), values[:, [1]] - values[:, [0]]).interval(0.95)
    assert low[0] == pytest.approx(0.25, abs=1e-12)
    assert high[0] == pytest.approx(0.25, abs=1e-12)


def test_missing_scores_leave_the_mean_of_the_others():
    values = np.array([[1.0, 1.0], [2.0, np.nan], [6.0, 5.0]])
    made = sums(draws(3), values)
    assert made.mean.tolist() == [3.0, 3.0]
    assert made.n.tolist() == [3, 2]
    assert np.nanmin(made.means[:, 1]) == 1.0
    assert np.nanmax(made.means[:, 1]) == 5.0
    assert np.isnan(made.means[:, 1]).any()  # some resamples hold image 2 only


def test_all_missing_has_no_interval():
    low, high = sums(draws(4), np.full((4, 1), np.nan)).interval(0.95)
    assert np.isnan(low[0])
    assert np.isnan(high[0])


@pytest.mark.parametrize(("direction", "expected"), [("higher", [3, 4, 1.5, 1.5]), ("lower", [1, 4, 2.5, 2.5])])
def test_ranks_follow_the_direction_and_nan_is_last(direction, expected):
    assert rank(np.array([0.3, np.nan, 0.9, 0.9]), direction).tolist() == expected


def test_rounding_does_not_break_ties():
    assert rank(np.array([0.1 + 0.2, 0.3, 0.0]), "higher").tolist() == [1.5, 1.5, 3]


def test_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="direction"):
        rank(np.array([1.0]), "down")


def test_intervals_of_ranks_are_values_that_occur():
    ranks = np.repeat([[1.0], [2.5]], 50, axis=0)
    assert [bound[0] for bound in interval(ranks, 0.95, 20, method="inverted_cdf")] == [1.0, 2.5]


def test_seeds_of_an_image_count_as_one_image():
    """Three seeds with the same scores of 10 images: as wide an interval as one, with three times as many scores."""
    values, one = np.random.default_rng(9).normal(0, 1, (10, 1)), draws(10)
    three = Draws(np.tile(one.weights, 3), np.tile(one.image, 3), one.signs)
    single, triple = sums(one, values), sums(three, np.tile(values, (3, 1)))
    assert (single.images[0], triple.images[0], single.n[0], triple.n[0]) == (10, 10, 10, 30)
    np.testing.assert_allclose(single.interval(0.95), triple.interval(0.95))


def test_shares_of_being_best_add_up_and_equals_share():
    ranks = np.array([[1, 2, 3, 4], [2.5, 2.5, 1, 4], [1, 3, 2, 4]])
    shares = best_shares(ranks, np.array([True, True, False, True]))
    assert shares[[0, 1, 3]].tolist() == pytest.approx([2.5 / 3, 0.5 / 3, 0])
    assert np.isnan(shares[2])


def test_board_orders_ranks_and_counts():
    values = np.random.default_rng(6).normal([0.5, 0.9, 0.1, 0.0], 0.01, (20, 4))
    values[:5, 0], values[:, 3] = np.nan, np.nan
    made = rows(values, "lower", "a", "b", "random_x", "dead")
    assert list(made) == ["random_x", "a", "b", "dead"]
    assert [row["rank"] for row in made.values()][:3] == [1, 2, 3]
    assert np.isnan([made["dead"][key] for key in ("rank", "rank_low", "p_best")]).all()
    assert [(row["n"], row["failed"]) for row in made.values()] == [(20, 0), (15, 5), (20, 0), (0, 20)]
    assert [row["versus_random"] for row in made.values()] == [None, "worse", "worse", None]
    assert [row["beats"] for row in made.values()] == [None, "none", "none", None]
    assert [row["tie_group"] for row in made.values()] == [None, 1, 2, None]
    assert [made[name]["p_best"] for name in ("a", "b")] == [1, 0]
    assert np.isnan(made["random_x"]["p_best"])


def test_what_beats_the_controls():
    values = np.random.default_rng(7).normal([0.5, 0.9, 0.5, 0.0], 0.01, (20, 4))
    made = rows(values, "higher", "a", "b", "oracle_x", "random_x")
    assert (made["a"]["beats"], made["b"]["beats"]) == ("random_x", "oracle_x random_x")
    assert made["b"]["controls_separated"] is True


def test_equal_explainers_share_every_rank():
    values = np.random.default_rng(7).normal(0, 1, (15, 3))
    values[:, 1] = values[:, 0]
    made = rows(values, "higher", "a", "b", "c")
    assert made["a"]["rank"] == made["b"]["rank"]
    assert made["a"]["rank"] in (1.5, 2.5)
    assert (made["a"]["rank_low"], made["a"]["rank_high"]) == (1.5, 2.5)
    assert made["a"]["p_best"] == made["b"]["p_best"]
    assert made["a"]["tie_group"] == made["b"]["tie_group"]


def test_an_alias_is_shown_without_a_rank_or_a_test():
    values = np.random.default_rng(8).normal([0.9, 0.9, 0.1, 0.0], 0.01, (12, 4))
    values[:, 1] = values[:, 0]
    made = rows(values, "higher", "a", "alias_a", "c", "random_x")
    assert {name: row["rank"] for name, row in made.items() if row["rank"] == row["rank"]} == {
        "a": 1,
        "c": 2,
        "random_x": 3,
    }
    assert made["alias_a"]["mean"] == pytest.approx(0.9, abs=0.02)
    assert [made["alias_a"][key] for key in ("tie_group", "beats", "versus_random")] == [None, None, None]
    assert made["a"]["p_best"] == 1


def test_controls_are_separated_only_when_the_oracle_wins():
    known, noise = entries("random_x", "oracle_x"), np.random.default_rng(8).normal(0, 0.1, (40, 2))
    for shift, direction, expected in ((0.5, "higher", True), (0.5, "lower", False), (0.0, "higher", False)):
        made = pool(cell(noise - noise.mean(0) + [0, shift]))
        assert Verdicts(made, direction, 0.95, known).controls_separated is expected
    assert Verdicts(pool(cell(noise[:, :1])), "higher", 0.95, entries("a")).controls_separated is None


def test_a_verdict_needs_the_interval_too():
    """Seeds that disagree widen the interval; the signs of the images alone would call the difference real."""
    values = np.array([1.0, 1.0, -0.5]).repeat(20)[:, None] * [1, 0] + np.random.default_rng(1).normal(0, 0.01, (60, 2))
    seeds, image = counts(np.random.default_rng(2), 3, 2000), np.tile(np.arange(20), 3)
    one = draws(20, 2000)
    drawn = Draws(seeds[:, np.arange(60) // 20] * one.weights[:, image], image, one.signs)
    made = Verdicts(Pool([cell(values)], {"d": drawn}), "higher", 0.95, entries("a", "b"))
    assert made.p[1, 0] < 0.05
    assert made.words(1)[0] == "undecided"


def test_the_null_control():
    assert null(entries("random_pixel", "random_patch", "a")) == 1
    assert null(entries("a", "random_pixel")) == 1
    assert null(entries("a")) is None


def test_scores_of_a_domain_weigh_equally_and_so_do_domains():
    first, second = cell([[1.0], [1.0], [1.0], [1.0]]), cell([[5.0], [5.0], [np.nan], [np.nan]])
    assert pool(first, second).scores.mean[0] == pytest.approx(14 / 6)
    other = pool(first, cell([[5.0], [5.0]], "other")).scores
    assert other.mean[0] == pytest.approx((1 + 5) / 2)
    assert (other.n[0], other.images[0], other.domains[0]) == (6, 6, 2)
    assert pool(first, cell([[np.nan]], "other")).scores.mean[0] == 1


def test_a_resample_without_the_scores_of_a_domain_has_the_mean_of_the_others():
    """Three of five images of the second domain have no score; the mean of its scores is 5, whichever are drawn."""
    rare = cell([[5.0], [5.0], [np.nan], [np.nan], [np.nan]], "other")
    means = pool(cell([[1.0], [1.0]]), rare, resamples=300).scores.means[:, 0]
    assert set(means.tolist()) == {1.0, 3.0}
    assert (means == 1).mean() == pytest.approx(0.6**5, abs=0.05)


@pytest.mark.parametrize("method", ["linear", "inverted_cdf"])
def test_bounds_are_numpys_quantiles_of_the_resamples_that_hold_a_score(method):
    rng = np.random.default_rng(0)
    resampled = rng.normal(size=(777, 12)).round(1)  # with ties
    resampled[rng.random((777, 12)) < np.linspace(0, 0.9, 12)] = np.nan
    resampled[:, 5] = np.nan
    if method == "inverted_cdf":  # as places between chance and ceiling have
        resampled[3, 0] = np.inf
    images, domains = np.arange(4, 16), np.repeat([1, 3], 6)
    low, high = interval(resampled, 0.95, images, domains, method)
    for i, (n, d) in enumerate(zip(images, domains, strict=True)):
        tail = float(tails(0.95, n, d))
        held = resampled[:, i][~np.isnan(resampled[:, i])]
        expected = np.quantile(held, [tail, 1 - tail], method=method) if len(held) else [np.nan, np.nan]
        np.testing.assert_array_equal([low[i], high[i]], expected)
    alone, _ = interval(resampled, 0.95, 1)
    assert np.isnan(alone).all(), "one image has no interval"


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_ranks_are_scipys_with_ties_and_the_missing_last(direction):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=(40, 9)), rng.integers(0, 4, (40, 9)), np.full((2, 9), np.nan)])
    values[rng.random(values.shape) < 0.1] = np.nan
    before = values.copy()
    cost = np.where(np.isnan(values), np.inf, -values if direction == "higher" else values)
    np.testing.assert_array_equal(rank(values, direction), scipy.stats.rankdata(cost, axis=-1))
    np.testing.assert_array_equal(values, before)
    almost = np.array([1.0, 1.0 + 1e-14, 0.0])
    assert rank(almost, direction).tolist() == ([1.5, 1.5, 3] if direction == "higher" else [2.5, 2.5, 1])
