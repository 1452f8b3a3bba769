"""Signed ranks and Holm against scipy, statsmodels and cases by hand."""

import numpy as np
import pytest
import scipy.stats

from unmask.statistics.signed_rank import holm, signed_rank


@pytest.mark.parametrize("n", [1, 2, 5, 13, 20, 50])
def test_exact_p_values_are_those_of_scipy(n):
    differences = np.random.default_rng(n).normal(0.2, 1, (n, 40))
    p, _, counted = signed_rank(differences, 1.0)
    expected = scipy.stats.wilcoxon(differences, axis=0, method="exact").pvalue
    np.testing.assert_allclose(p, expected, rtol=1e-9)
    assert (counted == n).all()


@pytest.mark.parametrize("digits", [6, 0])
def test_many_images_take_the_normal_approximation_with_its_correction_for_ties(digits):
    differences = np.round(np.random.default_rng(1).normal(0.3, 3, (80, 30)), digits)
    held = [column[column != 0] for column in differences.T]
    assert min(map(len, held)) > 50
    expected = [scipy.stats.wilcoxon(column, method="asymptotic").pvalue for column in held]
    np.testing.assert_allclose(signed_rank(differences, 1.0)[0], expected, rtol=1e-9)


def test_ties_and_zeros_are_exact_too():
    """scipy does this by enumerating every sign of a small sample."""
    differences = np.random.default_rng(2).integers(-2, 4, (9, 30)).astype(float)
    every = scipy.stats.PermutationMethod(n_resamples=np.inf)
    for column, p in zip(differences.T, signed_rank(differences, 1.0)[0], strict=True):
        held = column[column != 0]
        assert p == pytest.approx(scipy.stats.wilcoxon(held, method=every).pvalue, rel=1e-9)


def test_by_hand():
    """1, 2, 3 up and 4 down: 6 of 10. Of the 16 patterns of signs 7 sum to 6 or more, so that p = 14/16; the other
    column is all up, as one pattern is."""
    p, effect, n = signed_rank(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [-4.0, 4.0]]), 1.0)
    assert p.tolist() == [14 / 16, 2 / 16]
    assert effect.tolist() == pytest.approx([0.2, 1.0])
    assert n.tolist() == [4, 4]


def test_missing_and_equal_scores():
    nothing, equal, one = np.full(3, np.nan), np.zeros(3), np.array([np.nan, 0.5, np.nan])
    p, effect, n = signed_rank(np.stack([nothing, equal, one], 1), 1.0)
    assert n.tolist() == [0, 3, 1]
    assert np.isnan(p[0])
    assert np.isnan(effect[0])
    assert p[1:].tolist() == [1.0, 1.0]
    assert effect[1:].tolist() == [0.0, 1.0]


def test_rounding_makes_no_difference():
    rng = np.random.default_rng(3)
    differences = np.where(rng.random((20, 1)) < 0.5, 0.25, -0.25) + rng.normal(0, 1e-14, (20, 1))
    exact = np.round(differences, 10)
    assert signed_rank(differences, 1.0)[0] == signed_rank(exact, 1.0)[0]
    assert signed_rank(rng.normal(0, 1e-14, (20, 1)), 1.0)[1] == 0


def test_holm_is_that_of_statsmodels():
    """The values are those of statsmodels 0.15."""
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005, 0.2, 0.04])
    expected = [0.05, 0.12, np.nan, 0.12, 0.03, 0.2, 0.12]
    np.testing.assert_allclose(holm(p), expected)
    assert np.isnan(holm(np.array([np.nan]))).all()
    many = np.random.default_rng(4).random(300) ** 4
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    np.testing.assert_allclose(holm(many), multitest.multipletests(many, method="holm")[1])


def test_holm_keeps_the_family_wise_error():
    """400 families of 45 true null hypotheses, whose tests hang together: at most 5 % err (3 standard errors)."""
    rng = np.random.default_rng(5)
    first, second = np.triu_indices(10, 1)
    wrong = 0
    for _ in range(400):
        scores = rng.normal(0, 1, (20, 10))
        wrong += holm(signed_rank(scores[:, first] - scores[:, second], 1.0)[0]).min() < 0.05
    assert wrong / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
