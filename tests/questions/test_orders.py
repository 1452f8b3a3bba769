"""Kendall's tau and its interval; which explainers and rows can be compared."""

import numpy as np
import pytest
import scipy.stats

from unmask.statistics.bootstrap import counts
from unmask.statistics.complete import comparable, complete, image_means, mean_known, pair_means
from unmask.statistics.kendall import signs, tau_b, tau_interval


def test_tau_is_that_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (20, 9)).astype(float), rng.normal(0, 1, (20, 9))
    expected = [scipy.stats.kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(tau_b(signs(first), signs(second)), expected)


def test_tau_of_equal_reversed_and_constant_rankings():
    up = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert tau_b(signs(up), signs(up * 10)) == 1
    assert tau_b(signs(up), signs(-up)) == -1
    assert np.isnan(tau_b(signs(up), signs(up * 0)))
    assert (signs(np.array([0.1 + 0.2, 0.3])) == 0).all(), "rounding does not break ties"


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_interval_covers_the_tau_of_such_samples(noise):
    """100 samples of 20 images and 12 explainers under two metrics of related rankings; nominal .95."""
    rng, n = np.random.default_rng(4), 20
    true = rng.normal(0, 1, 12)
    other = true + rng.normal(0, 1, 12)
    spread = noise / np.sqrt(n)
    many = [one + rng.normal(0, spread, (4000, 12)) for one in (true, other)]
    mean = tau_b(signs(many[0]), signs(many[1])).mean()
    held = 0
    for _ in range(100):
        drawn = np.vstack([np.ones((1, n)), counts(rng, n, 400)])
        found = [drawn @ (one + rng.normal(0, noise, (n, 12))) for one in (true, other)]
        tau = tau_b(signs(found[0]), signs(found[1]))
        low, high = tau_interval(tau, 0.95, n, 1)
        assert -1 <= low <= tau[0] <= high <= 1
        held += low <= mean <= high
    assert held >= 88


def cube():
    """Two images, one pair of seeds, two models, three explainers; the third is skipped on the second model."""
    values = np.arange(12.0).reshape(2, 1, 2, 3) ** 2
    values[:, 0, 1, 2] = np.nan
    return values


def test_an_explainer_skipped_on_a_model_is_left_out_not_the_model():
    assert comparable([cube()]).tolist() == [True, True, False]
    assert comparable([cube()[:, :, :1]]).tolist() == [True, True, True]
    assert comparable([cube()[:, :, :1], cube()]).tolist() == [True, True, False]
    empty = np.full((4, 1, 1, 3), np.nan)
    assert comparable([cube()[:, :, :1], empty]).tolist() == [True, True, True], "nobody was scored there"
    assert not comparable([empty]).any()


def test_a_few_failures_cost_rows_not_the_explainer():
    values = np.ones((20, 1, 1, 2))
    values[:2, ..., 1] = np.nan
    assert comparable([values]).all()
    assert np.isfinite(complete(values, np.array([True, True]))[..., 0]).sum() == 18
    values[2, ..., 1] = np.nan
    assert comparable([values]).tolist() == [True, False]


def test_image_means_take_complete_rows():
    both = image_means(complete(cube(), np.array([True, True, False])))
    np.testing.assert_allclose(both, [[(0 + 9) / 2, (1 + 16) / 2], [(36 + 81) / 2, (49 + 100) / 2]])
    every = image_means(complete(cube(), np.array([True, True, True])))
    np.testing.assert_allclose(every[0], [0, 1, 4])


def test_pairs_are_compared_where_both_have_scores():
    found = pair_means(cube())
    np.testing.assert_allclose(found[0, 0, 1], ((0 - 1) + (9 - 16)) / 2)
    np.testing.assert_allclose(found[0, 0, 2], 0 - 4)
    np.testing.assert_allclose(found, -found.transpose(0, 2, 1))
    only = cube()
    only[0, ..., 0] = np.nan
    assert np.isnan(pair_means(only)[0, 0, 1])


def test_means_over_what_is_known():
    found = mean_known([np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])])
    np.testing.assert_allclose(found, [2, 5, np.nan])
