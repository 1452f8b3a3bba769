"""The bootstrap and the ranks against closed forms and scipy."""

import numpy as np
import pytest
import scipy.stats

from unmask.statistics.boards import Explainer, board, join, null, pool, separates
from unmask.statistics.bootstrap import counts, interval, sums
from unmask.statistics.cells import Cell
from unmask.statistics.ranking import Ranking
from unmask.statistics.ranks import rank


def weights(units, resamples=4000, seed=0):
    return counts(np.random.default_rng(seed), units, resamples)


def cell(values):
    values = np.asarray(values, float)
    failed = (~np.isfinite(values)).sum(0)
    return Cell("d", "e", values, failed, np.zeros_like(failed))


def entries(*names):
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


def test_each_resample_has_the_size_of_the_sample():
    drawn = weights(30, 500)
    assert drawn.shape == (500, 30)
    assert (drawn.sum(1) == 30).all()
    assert drawn.var() == pytest.approx(1 - 1 / 30, rel=0.05)  # multinomial counts


def test_interval_agrees_with_normal_theory():
    values = np.random.default_rng(1).normal(2.0, 3.0, (400, 1))
    low, high = interval(sums(weights(400), values).means, 0.95)
    half = 1.959964 * values.std() / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(2).exponential(1.0, (40, 1))
    low, high = interval(sums(weights(40, 20000), values).means, 0.9)
    reference = scipy.stats.bootstrap(
        (values[:, 0],),
        np.mean,
        n_resamples=20000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx(tuple(reference), abs=0.01)


def test_coverage_of_a_known_mean():
    """300 simulations, n = 60: the percentile interval covers .942 in theory; 3 standard errors allowed."""
    rng, drawn = np.random.default_rng(4), weights(60, 1000)
    low, high = interval(sums(drawn, rng.normal(0.7, 1.0, (60, 300))).means, 0.95)
    assert abs(((low <= 0.7) & (high >= 0.7)).mean() - 0.942) < 3 * np.sqrt(0.942 * 0.058 / 300)


def test_a_constant_shift_has_a_difference_of_zero_width():
    values = np.random.default_rng(5).normal(0, 1, (25, 2))
    values[:, 1] = values[:, 0] + 0.25
    low, high = interval(sums(weights(25), values[:, [1]] - values[:, [0]]).means, 0.95)
    assert low[0] == pytest.approx(0.25, abs=1e-12)
    assert high[0] == pytest.approx(0.25, abs=1e-12)


def test_missing_scores_leave_the_mean_of_the_others():
    values = np.array([[1.0, 1.0], [2.0, np.nan], [6.0, 5.0]])
    made = sums(weights(3), values)
    assert made.mean.tolist() == [3.0, 3.0]
    assert made.n.tolist() == [3, 2]
    assert np.nanmin(made.means[:, 1]) == 1.0
    assert np.nanmax(made.means[:, 1]) == 5.0
    assert np.isnan(made.means[:, 1]).any()  # some resamples hold image 2 only


def test_all_missing_has_no_interval():
    low, high = interval(sums(weights(4), np.full((4, 1), np.nan)).means, 0.95)
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


def test_board_orders_ranks_and_counts():
    values, known = (
        np.random.default_rng(6).normal([0.5, 0.9, 0.1, 0.0], 0.01, (20, 4)),
        entries("a", "b", "random_x", "dead"),
    )
    values[:5, 0], values[:, 3] = np.nan, np.nan
    rows = board(pool(cell(values), weights(20), known), "lower", 0.95, known).rows
    assert [row["explainer"] for row in rows] == ["random_x", "a", "b", "dead"]
    assert [row["rank"] for row in rows[:3]] == [1, 2, 3]
    assert np.isnan(rows[3]["rank"])
    assert np.isnan(rows[3]["rank_low"])
    assert [(row["n"], row["failed"]) for row in rows] == [(20, 0), (15, 5), (20, 0), (0, 20)]
    assert [row["versus_random"] for row in rows] == [None, "worse", "worse", None]


def test_equal_explainers_share_every_rank():
    values = np.random.default_rng(7).normal(0, 1, (15, 3))
    values[:, 1] = values[:, 0]
    rows = {
        row["explainer"]: row
        for row in board(
            pool(cell(values), weights(15), entries("a", "b", "c")), "higher", 0.95, entries("a", "b", "c")
        ).rows
    }
    assert rows["a"]["rank"] == rows["b"]["rank"]
    assert rows["a"]["rank"] in (1.5, 2.5)
    assert (rows["a"]["rank_low"], rows["a"]["rank_high"]) == (1.5, 2.5)


def test_an_alias_is_shown_without_a_rank():
    values = np.repeat(np.array([[0.9, 0.9, 0.1]]), 6, 0)
    rows = board(
        pool(cell(values), weights(6), entries("a", "alias_a", "c")), "higher", 0.95, entries("a", "alias_a", "c")
    ).rows
    assert {row["explainer"]: row["rank"] for row in rows if row["rank"] == row["rank"]} == {"a": 1, "c": 2}
    assert {row["explainer"]: row["mean"] for row in rows}["alias_a"] == pytest.approx(0.9)


def test_controls_are_separated_only_when_the_oracle_wins():
    known, noise = entries("random_x", "oracle_x"), np.random.default_rng(8).normal(0, 0.1, (40, 2))
    for shift, direction, expected in ((0.5, "higher", True), (0.5, "lower", False), (0.0, "higher", False)):
        made = pool(cell(noise - noise.mean(0) + [0, shift]), weights(40), known)
        assert separates(made, direction, 0.95, known) is expected
    assert separates(pool(cell(noise[:, :1]), weights(40), entries("a")), "higher", 0.95, entries("a")) is None


def test_the_null_control():
    assert null(entries("random_pixel", "random_patch", "a")) == "random_patch"
    assert null(entries("a", "random_pixel")) == "random_pixel"
    assert null(entries("a")) is None


def test_pooling_weights_every_score_equally():
    known, drawn = entries("a"), weights(4)
    first, second = cell([[1.0], [1.0], [1.0], [1.0]]), cell([[5.0], [5.0], [np.nan], [np.nan]])
    assert join([pool(first, drawn, known), pool(second, drawn, known)], []).scores.mean[0] == pytest.approx(14 / 6)


def test_ranking_weights_categories_equally_and_failing_never_helps():
    known = entries("good", "fair", "dead")
    flat = np.ones((6, 1))

    def made(good, fair, dead):
        return board(pool(cell(flat * [good, fair, dead]), weights(6), known), "higher", 0.95, known)

    ranking = Ranking()
    for metric in ("m1", "m2", "m3"):
        ranking.add("crowded", metric, made(0.9, 0.5, 0.1))
    ranking.add("lone", "m4", made(0.1, 0.5, np.nan))
    rows = {(row["category"], row["explainer"]): row for row in ranking.rows(known, 0.95)}
    assert rows["all", "good"]["mean_rank"] == pytest.approx((1 + 2) / 2)
    assert rows["all", "fair"]["mean_rank"] == pytest.approx((2 + 1) / 2)
    assert rows["all", "dead"]["mean_rank"] == 3
    assert rows["all", "dead"]["missing"] == 1
    assert ("lone", "dead") not in rows
    assert rows["all", "good"]["rank"] == rows["all", "fair"]["rank"] == 1.5
