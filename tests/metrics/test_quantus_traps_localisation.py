"""Traps of Quantus 0.6 that localisation, concept and complexity metrics could fall into: that they are there, and that
we are not in them."""

import itertools
import warnings

import numpy as np
import pytest
import quantus
from planted_cases import KEY, SIZE, evidence, make_case, score
from quantus.metrics.base import Metric

from unmask import registry
from unmask.quantus_bridge import COMMON, of_map, unchecked

GRID = (4, 4)
METRICS = {
    name: plugin
    for name, plugin in registry.available("metrics").items()
    if plugin.meta["category"] in ("localisation", "complexity") and "removal" not in plugin.meta["needs"]
}
OF_MASKS = [name for name, plugin in METRICS.items() if "masks" in plugin.meta["needs"]]
OF_RANKS = ("pointing_game", "relevance_rank_accuracy", "top_k_intersection")
PLAIN = {"return_aggregate": False, "disable_warnings": True}


def bare(metric, maps, masks=None, grid=(SIZE, SIZE)):
    """Quantus as it is, without our bridge, on maps [N, h, w]."""
    with unchecked(), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(
            metric(
                model=None,
                x_batch=np.zeros((len(maps), 1, *grid), np.float32),
                y_batch=np.zeros(len(maps), int),
                a_batch=maps[:, None],
                s_batch=None if masks is None else masks[:, None].astype(int),
                channel_first=True,
            )
        )


def ask(name, planted, maps, **changes):
    return score(name, make_case(planted, maps, explainer=lambda images, targets, **_: images.mean(1), **changes))


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, SIZE, SIZE))


@pytest.mark.parametrize("name", OF_MASKS)
def test_an_empty_mask_is_no_hit(planted, name):
    masks = evidence(3)
    masks[1] = False
    assert bare(quantus.PointingGame(**PLAIN), noise(3), masks)[1] == 1  # the trap
    found = ask(name, planted, noise(3), masks=masks)
    if "gallery" not in METRICS[name].meta["needs"]:  # which judges mosaics, whose tiles have their own evidence
        assert np.isnan(found[1])
    assert np.isfinite(found[[0, 2]]).all()


def test_attribution_localisation_does_not_weight_by_the_size_of_the_mini_batch(planted):
    maps, masks = noise(32), evidence(32)
    weighted = {
        count: bare(quantus.AttributionLocalisation(weighted=True, **PLAIN), maps[:count], masks[:count])[0]
        for count in (3, 8, 32)
    }
    assert weighted[3] > 5 * weighted[8] > 25 * weighted[32]  # the trap
    found = [ask("attribution_localisation", planted, maps[:count])[0] for count in (1, 3, 8, 32)]
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_relevance_mass_of_a_signed_map_stays_between_nothing_and_all(planted):
    maps = noise(40, seed=3)
    beyond = bare(quantus.RelevanceMassAccuracy(normalise=False, **PLAIN), maps, evidence(40))
    assert beyond.min() < 0  # the trap
    assert beyond.max() > 1
    found = ask("relevance_mass_accuracy", planted, maps)
    assert (found > 0).all()
    assert (found < 1).all()


@pytest.mark.parametrize("name", METRICS)
def test_an_images_map_is_not_scaled_by_that_of_another(planted, name):
    maps = noise(3).reshape(3, 4, 8, 4, 8).mean((2, 4))  # on the patch grid
    larger = maps * np.array([1, 1, 1e6])[:, None, None]
    both = [bare(quantus.EffectiveComplexity(eps=0.1, **PLAIN), some, grid=GRID) for some in (maps, larger)]
    assert both[0][0] != both[1][0]  # the trap
    np.testing.assert_array_equal(ask(name, planted, maps)[:2], ask(name, planted, larger)[:2])


def test_the_default_threshold_of_effective_complexity_calls_every_map_dense(planted):
    maps = np.exp(-np.multiply.outer([0.1, 4, 8], np.linspace(0, 1, 16))).reshape(3, *GRID)  # from flat to steep
    assert (bare(quantus.EffectiveComplexity(**PLAIN), maps, grid=GRID) == 16).all()  # the trap
    found = ask("effective_complexity", planted, maps)
    assert found.tolist() == [16, 9, 5]


@pytest.mark.parametrize("metric", [quantus.Complexity, quantus.Sparseness])
def test_what_is_handed_over_is_a_copy(planted, metric):
    maps = np.abs(noise(2))
    theirs = maps.copy()
    bare(metric(abs=False, normalise=False, **PLAIN), theirs)
    assert not np.array_equal(theirs, maps)  # the trap
    ours, case = maps.copy(), make_case(planted, maps)
    of_map(metric(abs=False, normalise=False, **COMMON), case, ours)
    np.testing.assert_array_equal(ours, maps)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_handed_one_channel_and_a_mask_of_zeros_and_ones(planted, name, monkeypatch):
    maps = np.random.default_rng(0).random((2, 3, SIZE, SIZE))
    with pytest.raises((IndexError, ValueError)):  # the trap: three channels crash
        quantus.RelevanceRankAccuracy(abs=False, normalise=False, **PLAIN)(
            model=None,
            x_batch=maps,
            y_batch=np.zeros(2, int),
            a_batch=maps.copy(),
            s_batch=evidence(2)[:, None].astype(int),
            channel_first=True,
        )
    seen, call = [], Metric.__call__

    def spied(self, **arguments):
        seen.append(arguments)
        return call(self, **arguments)

    monkeypatch.setattr(Metric, "__call__", spied)
    ask(name, planted, noise(4), engine="quantus")
    for arguments in seen:
        assert arguments["a_batch"].shape[:2] == (4, 1)
        assert arguments["softmax"] is False
        if arguments["s_batch"] is not None:
            assert arguments["s_batch"].shape == (4, 1, SIZE, SIZE)
            assert set(np.unique(arguments["s_batch"])) == {0, 1}
    assert bool(seen) == ("quantus" in METRICS[name].meta)


@pytest.mark.parametrize("name", [name for name in METRICS if "gallery" not in METRICS[name].meta["needs"]])
def test_a_map_of_zeros_has_no_score_alone_or_in_company(planted, name):
    zeros = np.zeros((2, *GRID))
    trap = bare(quantus.Sparseness(abs=True, normalise=True, **PLAIN), zeros, grid=GRID)
    np.testing.assert_allclose(trap, 0, atol=1e-9)  # the trap: a score, and the worst there is
    company = np.stack([zeros[0], noise(1)[0, :4, :4]])
    if name not in (*OF_RANKS, "localisation_auc", "concept_auc"):
        assert np.isnan(ask(name, planted, zeros)).all()
        assert np.isnan(ask(name, planted, company)[0])
    else:  # of the order alone: that of a constant map is chance
        ties = ask(name, planted, np.zeros((600, *GRID)))
        chance = 0.5 if name.endswith("auc") else evidence(1).mean()
        assert abs(ties.mean() - chance) <= 4 * ties.std() / 600**0.5


@pytest.mark.parametrize("name", METRICS)
def test_a_negative_or_constant_map_does_not_cost_the_others_theirs(planted, name):
    maps = np.stack([noise(1)[0], -np.ones((SIZE, SIZE)), noise(1, seed=1)[0]])
    with pytest.raises(AssertionError):  # the trap: one such map raises for the whole call
        quantus.Sparseness(**PLAIN)(
            model=None,
            x_batch=np.zeros((1, 1, SIZE, SIZE)),
            y_batch=np.zeros(1, int),
            a_batch=maps[1:2, None].copy(),
            channel_first=True,
        )
    for bad in (maps, maps[1:]):
        assert np.isfinite(ask(name, planted, bad)[-1])


def test_ties_are_not_broken_by_where_they_lie(planted):
    """A map that is zero but for one pixel, evidence at the top or at the bottom: raster order would decide."""
    maps = np.zeros((400, SIZE, SIZE))
    maps[:, 15, 15] = 1
    found, theirs = {}, {}
    for place in (slice(0, 4), slice(SIZE - 4, SIZE)):
        masks = np.zeros((400, SIZE, SIZE), bool)
        masks[:, place] = True
        metric = quantus.RelevanceRankAccuracy(abs=False, normalise=False, **PLAIN)
        theirs[place.start] = bare(metric, maps[:1].copy(), masks[:1])[0]
        for name in ("relevance_rank_accuracy", "top_k_intersection"):
            found[name, place.start] = ask(name, planted, maps, masks=masks).mean()
    assert abs(theirs[0] - theirs[SIZE - 4]) > 0.1  # the trap
    for one, other in itertools.pairwise(found.values()):
        assert one == pytest.approx(other, abs=0.02)


def test_a_patch_that_is_half_evidence_is_half_a_hit(planted):
    maps, masks = np.zeros((400, *GRID)), evidence(400)
    maps[:, KEY[0], KEY[1]] = 1
    masks[:, ::2] = False  # every other row of the one patch that is highest
    pixels = np.repeat(np.repeat(maps, 8, 1), 8, 2)
    assert bare(quantus.PointingGame(abs=False, normalise=False, **PLAIN), pixels, masks).all()  # the trap
    found = ask("pointing_game", planted, maps, masks=masks)
    assert abs(found.mean() - 0.5) < 4 * found.std() / 20


def test_small_values_are_not_drowned_by_what_is_added_to_a_denominator(planted):
    maps = evidence(2) * np.array([1, 1e-12])[:, None, None]
    metric = quantus.AttributionLocalisation(abs=True, normalise=False, **PLAIN)
    assert bare(metric, maps, evidence(2))[1] < 0.1  # the trap
    np.testing.assert_allclose(ask("attribution_localisation", planted, maps), 1, atol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_more_images_than_a_mini_batch_of_quantus_get_a_score_each(planted, name):
    maps = noise(70)
    found = ask(name, planted, maps)
    assert found.shape == (70,)
    assert np.isfinite(found).all()
    shuffled = ask(name, planted, maps[::-1], images=make_case(planted, maps).images.flip(0))
    if name not in OF_RANKS:  # which draw among ties by row
        np.testing.assert_allclose(shuffled[::-1], found, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in METRICS if "quantus" in METRICS[name].meta])
def test_nothing_is_left_to_the_defaults_of_quantus(planted, name, monkeypatch):
    made, module = [], METRICS[name].load()
    theirs = getattr(quantus, METRICS[name].meta["quantus"])

    def recorded(**arguments):
        made.append(arguments)
        return theirs(**arguments)

    monkeypatch.setattr(module, theirs.__name__, recorded)
    ask(name, planted, noise(3), engine="quantus")
    assert made
    for arguments in made:
        assert {"abs", "normalise"} <= set(arguments)
        assert arguments["normalise_func_kwargs"] == {"normalise_axes": [1, 2, 3]}
        assert arguments["return_aggregate"] is False
        assert arguments["disable_warnings"] is True
