"""Chance, ceiling and the places between them against closed forms and planted answers."""

import numpy as np
import pytest
import scipy.stats
from test_statistics import cell, entries, pool

from unmask.statistics.boards import board
from unmask.statistics.scale import Scale
from unmask.statistics.verdicts import Verdicts


def scale(values, direction, *names, resamples=4000):
    cells = values if isinstance(values, list) else [cell(values)]
    return Scale(Verdicts(pool(*cells, resamples=resamples), direction, 0.95, entries(*names)))


def planted(*offsets, images=30, noise=0.02, seed=0):
    """Scores that are an offset, an image's effect that all share, and noise."""
    rng = np.random.default_rng(seed)
    return np.array(offsets) + rng.normal(0, 1, (images, 1)) + rng.normal(0, noise, (images, len(offsets)))


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_chance_is_0_the_oracle_1_and_half_way_a_half(direction):
    sign = 1 if direction == "higher" else -1
    names = ("a", "b", "random_patch", "oracle")
    made = scale(sign * planted(0.5, 1.5, 0.0, 1.0, noise=1e-6), direction, *names)
    value, low, high = made.places
    assert value == pytest.approx([0.5, 1.5, 0.0, 1.0], abs=1e-5)
    assert (low[2], high[2], low[3], high[3]) == (0, 0, 1, 1)
    row = made.row()
    assert (row["chance_by"], row["ceiling_by"], row["reason"]) == ("random_patch", "oracle", None)
    assert row["span"] == pytest.approx(1, abs=1e-5)
    assert row["span_low"] <= row["span"] <= row["span_high"]
    assert row["ceiling"] - row["chance"] == pytest.approx(sign, abs=1e-5)
    assert row["n"] == 30


def test_the_interval_is_fiellers():
    """The ratio of two correlated normal means has exact confidence limits: the roots of a quadratic (Fieller 1954)."""
    n, rng = 400, np.random.default_rng(1)
    values = planted(0.4, 0.0, 1.0, images=n, noise=1.5, seed=2) + rng.normal(0, 0.3, (n, 1)) * [1, 0, 1]
    _, low, high = scale(values, "higher", "a", "random_patch", "oracle", resamples=20000).places
    top, bottom = values[:, 0] - values[:, 1], values[:, 2] - values[:, 1]
    (var_top, both), (_, var_bottom) = np.cov(top, bottom) / n
    t = scipy.stats.t(n - 1).ppf(0.975) ** 2
    square = bottom.mean() ** 2 - t * var_bottom
    middle = top.mean() * bottom.mean() - t * both
    roots = (middle + np.array([-1, 1]) * np.sqrt(middle**2 - square * (top.mean() ** 2 - t * var_top))) / square
    assert (low[0], high[0]) == pytest.approx(tuple(roots), abs=0.05 * (roots[1] - roots[0]))


def test_an_oracle_that_is_not_above_chance_gives_way_to_the_best_entry():
    made = scale(planted(0.5, 2.0, 0.0, -1.0), "higher", "a", "b", "random_patch", "oracle")
    assert made.row()["ceiling_by"] == "b"
    assert made.places[0] == pytest.approx([0.25, 1.0, 0.0, -0.5], abs=0.02)
    assert made.row()["controls_separated"] is False
    missing = planted(0.5, 2.0, 0.0, 0.0)
    missing[:, 3] = np.nan
    assert scale(missing, "higher", "a", "b", "random_patch", "oracle").row()["ceiling_by"] == "b"


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_divided_by_a_span_that_may_be_0(seed):
    made = scale(planted(0.0, 0.0, noise=1.0, seed=seed, images=12), "higher", "random_patch", "oracle", resamples=500)
    low = made.verdicts.pool.interval(0.95, 0)[0]
    apart = low[1] > 0
    assert (made.ceiling is not None) == apart
    if not apart:
        assert np.isnan(made.places).all()
        assert "random_patch" in made.row()["reason"]
        assert np.isnan([made.row()["ceiling"], made.row()["span"]]).all()


def test_equal_scores_have_no_scale():
    made = scale(np.ones((10, 3)), "higher", "a", "random_patch", "oracle", resamples=200)
    assert np.isnan(made.places).all()
    assert made.row()["reason"] == "nothing is better than random_patch: the interval of every difference holds 0"


def test_without_a_random_control_or_its_scores_there_is_no_scale():
    assert scale(planted(1, 0), "higher", "a", "oracle").row()["reason"] == "there is no random control"
    values = planted(1, 0)
    values[:, 1] = np.nan
    row = scale(values, "higher", "a", "random_patch").row()
    assert row["reason"] == "random_patch has no score"
    assert np.isnan(row["chance"])


def test_places_are_paired_and_pooled_by_scores():
    """An image that the entry lacks is left out of its own difference only; models add up with equal weights."""
    first, second = planted(0.5, 0.0, 1.0, noise=1e-6), planted(1.0, 0.0, 3.0, noise=1e-6, images=30)
    first[:10, 0] = np.nan
    one = [cell(first), cell(second)]
    value, _, _ = scale(one, "higher", "a", "random_patch", "oracle").places
    assert value[0] == pytest.approx((0.5 * 20 + 1.0 * 30) / 50 / 2.0, abs=1e-4)


def test_the_board_carries_the_places():
    made = board(pool(cell(planted(0.5, 0.0, 1.0))), "higher", 0.95, entries("a", "random_patch", "oracle"))
    rows = {row["explainer"]: row for row in made.rows}
    assert rows["a"]["rescaled"] == pytest.approx(0.5, abs=0.02)
    assert rows["a"]["rescaled_low"] < rows["a"]["rescaled"] < rows["a"]["rescaled_high"]


def test_the_intervals_of_places_cover_as_they_say():
    """Over 300 simulated boards of 20 images with noise as large as half of the span."""
    covered = 0
    for seed in range(300):
        values = planted(0.5, 0.0, 1.0, images=20, noise=0.5, seed=seed)
        _, low, high = scale(values, "higher", "a", "random_patch", "oracle", resamples=400).places
        covered += low[0] <= 0.5 <= high[0]
    assert 0.92 <= covered / 300 <= 0.98
