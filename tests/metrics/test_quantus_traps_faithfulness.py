"""What Quantus 0.6 gets wrong about faithfulness on RGB images, ViTs or numpy 2.4, and that no score of ours falls in.

Where a metric of ours replaces Quantus's or is left out, a test shows what Quantus's does: should it be mended one day,
that test fails, and Quantus's can come back.
"""

from pathlib import Path

import numpy as np
import pytest
import quantus
import torch
from kinds_of_maps import COUNT, GRID, case_of, fickle, maps_of, predicted
from planted_cases import KEY, Planted, images, make_case, score

from unmask import registry
from unmask.quantus_bridge import COMMON, in_token_space

METRICS = {
    name: plugin for name, plugin in registry.available("metrics").items() if plugin.meta["category"] == "faithfulness"
}
ENGINES = ["batched", "quantus"]
DOCS = Path(__file__).parents[2] / "docs" / "faithfulness.md"


def in_pixel_space(metric, model, maps, count=COUNT, batch=COUNT, **given):
    """Quantus as its documentation shows it: RGB images, maps of one channel."""
    return metric(
        model=model,
        x_batch=images(count).numpy(),
        y_batch=given.get("targets", predicted(model)[:count]).numpy(),
        a_batch=maps[:count, None].copy(),
        channel_first=True,
        batch_size=batch,
        softmax=True,
    )


def pixels(kind="pixels", seed=0):
    return maps_of(kind, seed).astype(np.float32)


@pytest.mark.parametrize(("metric", "error"), [(quantus.ROAD, IndexError), (quantus.IROF, AssertionError)])
def test_road_and_irof_fail_on_colour_images_and_ours_do_not(metric, error, tiny_vit):
    with pytest.raises(error):
        in_pixel_space(metric(**COMMON), tiny_vit, pixels())
    for engine in ENGINES:
        scores = score(metric.__name__.lower(), case_of(fickle(tiny_vit), "pixels", 0, "mean", engine=engine))
        assert np.isfinite(scores).all()
        assert len(set(scores)) > 1


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_road_and_sensitivity_n_forget_all_but_the_first_mini_batch_and_ours_judge_every_image(tiny_vit):
    case = case_of(tiny_vit, "signed", 0, "mean")

    class Whole(torch.nn.Module):
        """Logits of the first images with all their patches: enough to count whom a metric judges."""

        def forward(self, z):
            return torch.from_numpy(case.logits(np.ones((COUNT, *GRID), bool))[: len(z)].copy())

    targets = case.targets.numpy().copy()
    targets[2:] = (targets[2:] + 1) % 4  # of five images, the first two are predicted right
    given = {"x_batch": np.ones((COUNT, 1, *GRID), np.float32), "a_batch": case.patch_maps[:, None], "y_batch": targets}
    given |= {"model": Whole().eval(), "softmax": False, "channel_first": True, "batch_size": 2}
    nothing = {"perturb_func": lambda arr, **_: arr}
    assert quantus.ROAD(percentages=[50], abs=False, **nothing, **COMMON)(**given) == {50: 1.0}
    metric = quantus.SensitivityN(features_in_step=1, perturb_baseline=0.0, abs=False, **COMMON)
    assert np.shape(metric(**given)) == (12,)  # not an image's each, but a step's: .8 of 16, over the first two images
    model = fickle(tiny_vit)
    for name in ("road", "sensitivity_n"):
        scores = score(name, case_of(model, "signed", 0, "mean"))
        assert scores.shape == (COUNT,)
        # The last image's score depends on its own map.
        maps = maps_of("signed", 0)
        maps[-1] = -maps[-1]
        changed = score(name, case_of(model, "signed", 0, "mean", maps=maps))
        np.testing.assert_array_equal(changed[:-1], scores[:-1])
        assert changed[-1] != scores[-1]


@pytest.mark.parametrize("engine", ENGINES)
def test_road_remembers_no_size_of_an_earlier_call(engine, planted, tiny_vit):
    model = fickle(tiny_vit)
    before = score("road", case_of(model, "random", 0, "mean", engine=engine))
    score("road", make_case(planted, np.random.default_rng(0).random((2, *GRID)), removal="zero", engine=engine))
    np.testing.assert_array_equal(score("road", case_of(model, "random", 0, "mean", engine=engine)), before)


def test_monotonicity_is_true_of_every_map_and_left_out(tiny_vit):
    metric = quantus.Monotonicity(features_in_step=1, perturb_baseline=0.0, abs=False, normalise=False, **COMMON)
    for seed in range(3):
        case = case_of(tiny_vit, "signed", seed, "mean")
        assert all(in_token_space(metric, case, case.patch_maps, softmax=True))
        assert all(in_token_space(metric, case, -case.patch_maps, softmax=True))
    assert "monotonicity" not in METRICS


def test_monotonicity_done_right_is_true_of_hardly_any_map(tiny_vit):
    rising = []
    for seed in range(20):
        case = case_of(tiny_vit, "signed", seed, "mean")
        score("pixel_flipping", case)
        rising += (np.diff(case.traces["pixel_flipping"][:, ::-1]) >= 0).all(axis=1).tolist()
    assert np.mean(rising) < 0.05


def test_sufficiency_depends_on_the_mini_batch_and_is_left_out(tiny_vit):
    model, maps = fickle(tiny_vit), np.linspace(0, 1, COUNT)[:, None, None] + 0.1 * pixels()
    metric = {"threshold": 0.6, "return_aggregate": False, "disable_warnings": True}
    whole, halves = (in_pixel_space(quantus.Sufficiency(**metric), model, maps, batch=size) for size in (COUNT, 2))
    assert not np.allclose(whole, halves)
    assert "sufficiency" not in METRICS


def test_selectivity_is_pixel_flippings_curve_and_is_not_scored_twice(tiny_vit):
    case = case_of(tiny_vit, "signed", 0, "mean")
    score("pixel_flipping", case)
    metric = quantus.Selectivity(patch_size=1, perturb_baseline=0.0, abs=False, normalise=False, **COMMON)
    curves = in_token_space(metric, case, case.patch_maps, softmax=True)
    np.testing.assert_allclose(case.traces["pixel_flipping"][:, 1:], curves, rtol=0, atol=1e-6)
    assert not {"selectivity", "deletion"} & set(METRICS)


def test_what_is_left_out_has_its_reason_in_the_docs():
    text = DOCS.read_text()
    for name in ("monotonicity", "sufficiency", "selectivity", "deletion"):
        assert f"| `{name}` |" in text
    for name in METRICS:
        assert f"| `{name}` |" in text


def test_region_perturbation_is_labelled_lower_but_returns_the_fall(planted):
    assert quantus.RegionPerturbation.score_direction.value == "lower"
    known = np.zeros((3, *GRID))
    known[:, KEY[0], KEY[1]] = 1
    best, worst = (make_case(planted, sign * known, removal="zero", engine="quantus") for sign in (1, -1))
    assert (score("region_perturbation", best) > score("region_perturbation", worst)).all()
    assert METRICS["region_perturbation"].meta["direction"] == "higher"


@pytest.mark.parametrize("name", ["irof", "infidelity", "sensitivity_n", "saco"])
def test_own_metrics_have_the_direction_of_quantus_too(name):
    theirs = {"irof": quantus.IROF, "infidelity": quantus.Infidelity, "sensitivity_n": quantus.SensitivityN}.get(name)
    assert METRICS[name].meta["direction"] == (theirs.score_direction.value if theirs else "higher")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", METRICS)
def test_no_area_needs_np_trapz(name, engine, tiny_vit, monkeypatch):
    monkeypatch.delattr(np, "trapz", raising=False)
    assert np.isfinite(score(name, case_of(tiny_vit, "signed", 0, "mean", engine=engine))).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", METRICS)
def test_an_image_is_not_normalised_by_another(name, engine, tiny_vit):
    maps = maps_of("signed", 0)
    before = score(name, case_of(tiny_vit, "signed", 0, "mean", engine=engine, maps=maps.astype(np.float32)))
    maps[0] *= 1e4
    after = score(name, case_of(tiny_vit, "signed", 0, "mean", engine=engine, maps=maps.astype(np.float32)))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_is_filled_with_the_colours_of_another_image(name, tiny_vit):
    batch = images(COUNT)
    before = score(name, case_of(tiny_vit, "signed", 0, "mean", images=batch))
    batch[1:] = 1 - batch[1:]
    after = score(name, case_of(tiny_vit, "signed", 0, "mean", images=batch))
    np.testing.assert_allclose(after[0], before[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", METRICS)
def test_numpys_global_generator_is_not_asked(name, engine, tiny_vit):
    found = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        found.append(score(name, case_of(tiny_vit, "ties", 0, "mean", engine=engine)))
    np.testing.assert_array_equal(*found)


class Watched:
    """A removal that notes how many patches are gone at each pass."""

    def __init__(self, removal):
        self.id, self._removal, self.gone = removal.id, removal, []

    def remove(self, images, keep):
        self.gone += (~keep).flatten(-2).sum(-1).flatten().tolist()
        return self._removal.remove(images, keep)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["signed", "pixels"])
def test_a_step_is_whole_patches_and_not_channel_values(engine, kind, tiny_vit):
    def gone(name, **options):
        case = case_of(tiny_vit, kind, 0, "mean", engine=engine)
        case.removal = Watched(case.removal)
        score(name, case, **options)
        counts, times = np.unique(case.removal.gone, return_counts=True)
        return dict(zip(counts.tolist(), (times / COUNT).tolist(), strict=True))

    assert gone("pixel_flipping", step=2) == dict.fromkeys(range(0, 17, 2), 1)
    assert gone("road", step=4) in ({0: 1, 4: 1, 8: 1, 12: 1, 16: 1}, {4: 1, 8: 1, 12: 1})
    assert gone("faithfulness_correlation", runs=7, share=0.25) == {0: 1, 4: 7}
    assert gone("faithfulness_estimate") == gone("monotonicity_correlation") == {0: 1, 1: 16}


class Steep(Planted):
    """So sure of the other class that the target's probability is below Quantus's eps for some images only."""

    def forward(self, images):
        logits = super().forward(images)
        return logits * torch.tensor([-6.4, 1.0])


def test_monotonicity_correlation_divides_by_no_probability(planted):
    model = Steep().eval()
    case = make_case(model, maps_of("signed", 0), removal="zero")
    chances = torch.from_numpy(case.logits(np.ones((COUNT, *GRID), bool)).copy()).softmax(1)[:, 0]
    assert (chances < 1e-5).any()
    assert (chances > 1e-5).any()
    with pytest.raises(ValueError, match="cannot assign"):
        score("monotonicity_correlation", make_case(model, maps_of("signed", 0), removal="zero", engine="quantus"))
    assert np.isfinite(score("monotonicity_correlation", case)).all()


def test_infidelity_takes_every_square_by_itself(tiny_vit):
    """Quantus's removes one block after another, so that turning image and map by 180 degrees gives another score."""

    class Turned(torch.nn.Module):
        arch, grid, mask_token, normalise = tiny_vit.arch, tiny_vit.grid, None, tiny_vit.normalise

        def forward(self, images):
            return tiny_vit(images.flip(-1, -2))

    def both(of):
        maps = maps_of("signed", 0)
        case = case_of(tiny_vit, "signed", 0, "mean", maps=maps.astype(np.float32))
        turned = make_case(
            Turned().eval(),
            maps[:, ::-1, ::-1],
            removal="mean",
            images=case.images.flip(-1, -2),
            targets=case.targets,
        )
        return of(case), of(turned)

    metric = quantus.Infidelity(
        perturb_baseline=0.0, perturb_patch_sizes=[1], n_perturb_samples=1, abs=False, normalise=False, **COMMON
    )
    theirs = both(lambda case: in_token_space(metric, case, case.patch_maps, softmax=False))
    assert not np.allclose(*theirs, rtol=0.01)
    np.testing.assert_allclose(*both(lambda case: score("infidelity", case)), rtol=0, atol=1e-5)
