"""MetaQuantus's criteria against plain loops over their definitions, and metrics whose criteria are known."""

import numpy as np
import pytest
import scipy.stats

from unmask.statistics.consistency import consistency

MODELS, TESTS, REPEATS, EXPLAINERS, IMAGES = 2, 2, 3, 4, 7


def scores(seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, (MODELS, EXPLAINERS, IMAGES))
    shape = (MODELS, TESTS, REPEATS, EXPLAINERS, IMAGES)
    minor = base[:, None, None] + rng.normal(0.1, 0.4, shape)
    disrupted = base[:, None, None] + rng.normal(-0.5, 1, shape)
    images = (MODELS, TESTS, REPEATS, IMAGES)
    return base, minor, disrupted, rng.random(images) < 0.8, rng.random(images) < 0.7


def by_definition(base, minor, disrupted, stayed, changed, direction):
    """For one model and test: [R, L, N] and [R, N]."""
    found = {"iac_nr": [], "iac_ar": [], "iec_nr": [], "iec_ar": []}
    better = np.greater if direction == "higher" else np.less
    for k in range(len(minor)):
        kept, upset = stayed[k], changed[k]
        p = [scipy.stats.wilcoxon(minor[k, e, kept], base[e, kept]).pvalue for e in range(EXPLAINERS)]
        found["iac_nr"].append(np.mean(p))
        p = [scipy.stats.wilcoxon(disrupted[k, e, upset], base[e, upset]).pvalue for e in range(EXPLAINERS)]
        found["iac_ar"].append(1 - np.mean(p))
        before, after = (scipy.stats.rankdata(one[:, kept], axis=0) for one in (base, minor[k]))
        found["iec_nr"].append((before == after).mean())
        found["iec_ar"].append(better(base[:, upset], disrupted[k][:, upset]).mean())
    return {name: np.mean(values) for name, values in found.items()}


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_the_criteria_are_their_definitions(direction):
    base, minor, disrupted, stayed, changed = scores()
    found = consistency(base, minor, disrupted, stayed, changed, direction)
    for m in range(MODELS):
        for t in range(TESTS):
            expected = by_definition(base[m], minor[m, t], disrupted[m, t], stayed[m, t], changed[m, t], direction)
            assert {name: found[name][m, t] for name in expected} == pytest.approx(expected)
            assert found["mc"][m, t] == pytest.approx(np.mean(list(expected.values())))


def test_a_metric_as_it_should_be_and_the_same_read_in_the_wrong_direction():
    base = scores()[0]
    same = np.broadcast_to(base[:, None, None], (MODELS, TESTS, REPEATS, EXPLAINERS, IMAGES))
    everywhere = np.ones((MODELS, TESTS, REPEATS, IMAGES), bool)
    worse = same - np.linspace(1, 2, IMAGES)
    right = consistency(base, same, worse, everywhere, everywhere, "higher")
    least = 2 / 2**IMAGES
    assert right["mc"] == pytest.approx(np.full((MODELS, TESTS), 1 - least / 4))
    wrong = consistency(base, same, worse, everywhere, everywhere, "lower")
    assert (right["iec_ar"] == 1).all()
    assert (wrong["iec_ar"] == 0).all(), "a metric whose direction is not read takes falling scores for better ones"
    for name in ("iac_nr", "iac_ar", "iec_nr"):
        np.testing.assert_array_equal(right[name], wrong[name])


def test_a_metric_that_says_the_same_whatever_it_is_given():
    base = scores()[0]
    same = np.broadcast_to(base[:, None, None], (MODELS, TESTS, REPEATS, EXPLAINERS, IMAGES))
    everywhere = np.ones((MODELS, TESTS, REPEATS, IMAGES), bool)
    found = consistency(base, same, same, everywhere, everywhere, "higher")
    assert [found[name][0, 0] for name in ("iac_nr", "iac_ar", "iec_nr", "iec_ar", "mc")] == [1, 0, 1, 0, 0.5]


def test_a_metric_of_noise():
    rng = np.random.default_rng(1)
    models, shape = 40, (40, 2, 5, EXPLAINERS, 8)
    everywhere = np.ones((40, 2, 5, 8), bool)
    found = consistency(
        rng.random((models, EXPLAINERS, 8)), rng.random(shape), rng.random(shape), everywhere, everywhere, "higher"
    )
    assert [found[name].mean() for name in ("iac_nr", "iac_ar", "iec_nr", "iec_ar")] == pytest.approx(
        [0.5, 0.5, 1 / EXPLAINERS, 0.5], abs=0.06
    )


def test_only_images_count_whose_prediction_did_as_it_should():
    base, minor, disrupted, stayed, changed = scores()
    found = consistency(base, minor, disrupted, stayed, changed, "higher")
    minor, disrupted = minor.copy(), disrupted.copy()
    minor[~np.broadcast_to(stayed[..., None, :], minor.shape)] = 1e6
    disrupted[~np.broadcast_to(changed[..., None, :], minor.shape)] = -1e6
    again = consistency(base, minor, disrupted, stayed, changed, "higher")
    for name, values in found.items():
        np.testing.assert_array_equal(values, again[name])
    nobody = consistency(base, minor, disrupted, stayed, np.zeros_like(changed), "higher")
    assert np.isnan(nobody["iac_ar"]).all()
    assert np.isnan(nobody["iec_ar"]).all()
    assert np.isnan(nobody["mc"]).all()
    np.testing.assert_array_equal(nobody["iac_nr"], found["iac_nr"])


def test_an_explainer_without_scores_is_left_out_and_one_without_a_score_costs_the_image():
    base, minor, disrupted, stayed, changed = scores()
    lost = [one.copy() for one in (base, minor, disrupted)]
    for one in lost:
        one[..., 3, :] = np.nan
    found = consistency(*lost, stayed, changed, "higher")
    expected = consistency(base[:, :3], minor[..., :3, :], disrupted[..., :3, :], stayed, changed, "higher")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values)
    gap = minor.copy()
    gap[..., 1, 2] = np.nan
    without = stayed.copy()
    without[..., 2] = False
    found = consistency(base, gap, disrupted, stayed, changed, "higher")["iec_nr"]
    np.testing.assert_allclose(found, consistency(base, minor, disrupted, without, changed, "higher")["iec_nr"])
