"""Friedman, Kendall's W and detectable differences against scipy, statsmodels, scikit-posthocs and published tables."""

import numpy as np
import pytest
import scipy.stats

from unmask.statistics.friedman import concordance, detectable, friedman, nemenyi, weighted_concordance

TIED = np.array([[7, 5, 4, 2], [2, 0, 0, 0], [1, 7, 5, 8], [4, 5, 8, 6], [5, 4, 5, 8], [2, 7, 6, 0]], float)


@pytest.mark.parametrize("values", [TIED, np.random.default_rng(0).normal(0, 1, (30, 7))])
def test_statistic_and_p_are_those_of_scipy(values):
    statistic, p, w = friedman(scipy.stats.rankdata(values, axis=1))
    expected = scipy.stats.friedmanchisquare(*values.T)
    assert statistic == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue)
    n, k = values.shape
    assert w == pytest.approx(expected.statistic / (n * (k - 1)))


def test_concordance_of_agreeing_and_opposed_images():
    one = np.arange(1.0, 6.0)
    assert concordance(np.stack([one] * 4)) == pytest.approx(1)
    assert concordance(np.stack([one, one[::-1]])) == pytest.approx(0)
    assert np.isnan(concordance(one[None]))
    assert np.isnan(concordance(np.ones((3, 4)))), "images of one value only say nothing"


def test_resamples_are_no_more_concordant_than_the_sample():
    """An image drawn twice does not agree with itself; W of resampled rows would be .05 higher here."""
    rng = np.random.default_rng(1)
    ranks = scipy.stats.rankdata(rng.normal(0, 1, (20, 6)) + np.arange(6) * 0.3, axis=1)
    assert weighted_concordance(ranks, np.ones((1, 20)))[0] == pytest.approx(concordance(ranks))
    drawn = rng.multinomial(20, np.full(20, 1 / 20), 4000).astype(float)
    found = weighted_concordance(ranks, drawn)
    assert found.mean() == pytest.approx(concordance(ranks), abs=0.005)
    assert np.mean([concordance(np.repeat(ranks, one.astype(int), 0)) for one in drawn[:300]]) > found.mean() + 0.02


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsar(k, q):
    """Table 5a of Demsar (2006)."""
    assert nemenyi(k, 30, 0.95) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 30)), abs=1e-3)


def test_the_critical_difference_is_that_of_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    values = np.random.default_rng(2).normal(0, 1, (12, 4)) + np.arange(4) * 0.6
    ranks = scipy.stats.rankdata(values, axis=1).mean(0)
    apart = np.abs(ranks[:, None] - ranks) > nemenyi(4, 12, 0.95)
    assert (apart == (posthocs.posthoc_nemenyi_friedman(values).to_numpy() < 0.05)).all()
    assert 0 < apart.sum() < 12


@pytest.mark.parametrize(("n", "expected"), [(4, 2.1279493), (20, 0.6604417), (60, 0.3677043)])
def test_detectable_differences_are_those_of_statsmodels(n, expected):
    """`TTestPower().solve_power(nobs=n, alpha=.05, power=.8)` of statsmodels 0.15, for a standard deviation of 1."""
    assert detectable(1.0, n, 0.05) == pytest.approx(expected, rel=1e-4)
    assert detectable(0.5, n, 0.05) == pytest.approx(expected / 2, rel=1e-4)


@pytest.mark.parametrize("n", [4, 20, 60])
def test_strict_levels_have_their_power_too(n):
    """By the noncentral t distribution; statsmodels 0.15 stops its search early here, at a power of .56 for n = 20."""
    alpha = 0.05 / 595
    limit = scipy.stats.t(n - 1).ppf(1 - alpha / 2)
    assert scipy.stats.nct.sf(limit, n - 1, detectable(1.0, n, alpha) * np.sqrt(n)) == pytest.approx(0.8, abs=1e-6)


def test_a_detectable_difference_is_detected_as_often_as_it_says():
    rng, n = np.random.default_rng(3), 12
    samples = rng.normal(detectable(2.0, n, 0.05), 2.0, (n, 4000))
    found = (scipy.stats.ttest_1samp(samples, 0, axis=0).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 / 4000))
    assert np.isnan(detectable(1.0, 1, 0.05))
