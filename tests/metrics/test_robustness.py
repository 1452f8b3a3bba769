"""Robustness: closed forms, Quantus with nothing looked up, and what metrics and explainers have in common."""

import numpy as np
import pytest
import quantus
import torch
from planted_cases import SIZE, images, make_case, score

from unmask import registry
from unmask.case import Shared
from unmask.metrics import _noise, continuity
from unmask.passes import counted
from unmask.quantus_bridge import COMMON

NOISE = {
    "max_sensitivity": quantus.MaxSensitivity,
    "avg_sensitivity": quantus.AvgSensitivity,
    "local_lipschitz": quantus.LocalLipschitzEstimate,
    "relative_input_stability": quantus.RelativeInputStability,
    "relative_output_stability": quantus.RelativeOutputStability,
    "relative_representation_stability": quantus.RelativeRepresentationStability,
}
GRID, PATCHES = (4, 4), 16


def grey(images, targets, **_):
    return images.mean(1)


def gradient(model):
    def explain(images, targets, model=model, **_):
        leaf = images.clone().requires_grad_()
        logits = model(leaf).gather(1, targets[:, None]).sum()
        return (torch.autograd.grad(logits, leaf)[0] * images).sum(1)

    return explain


def rectified(model):
    """Patch maps, half of whose values are 0."""
    explain = gradient(model)
    return lambda *asked, **more: torch.nn.functional.avg_pool2d(explain(*asked, **more), SIZE // 4).clamp(min=0)


KINDS = {"pixels": gradient, "patches with zeros": rectified, "grey": lambda model: grey}


def case_of(model, kind, *, count=4, seed=11, shared=None):
    explain, targets = KINDS[kind](model), torch.arange(count) % 4
    maps = explain(images(count), targets).numpy()
    return make_case(model, maps, explainer=explain, seed=seed, shared=shared, targets=targets)


def options(name):
    return {key: value for key, value in registry.find("metrics", name).options.items() if key in ("samples", "radius")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", NOISE)
def test_scores_are_those_of_quantus_when_it_explains_and_predicts_each_sample_itself(name, kind, seed, tiny_vit):
    case = case_of(tiny_vit, kind, seed=seed)
    steps = iter(_noise.perturbed(case, 5, 0.05).flatten(2).numpy())
    relative = name.startswith("relative")
    settings = {"normalise": name == "local_lipschitz"}
    if relative:
        settings = {"normalise": True, "normalise_func": quantus.normalise_func.normalise_by_max, "eps_min": 0.01}
    if name == "relative_representation_stability":
        settings["layer_names"] = ["backbone.fc_norm"]
    theirs = NOISE[name](
        nr_samples=5,
        perturb_func=lambda arr, **_: next(steps),
        abs=False,
        return_nan_when_prediction_changes=False,
        **{**COMMON, **settings},
    )

    def view(maps):
        maps = maps.repeat_interleave(SIZE // maps.shape[-1], 1).repeat_interleave(SIZE // maps.shape[-1], 2)
        if relative:  # a patch's sum in one of its pixels, which is then all that Quantus sees of the patch
            sums = maps.reshape(len(maps), 4, 8, 4, 8).sum((2, 4))
            maps = torch.zeros_like(maps)
            maps[:, ::8, ::8] = sums
        return maps[:, None].numpy()

    expected = theirs(
        model=tiny_vit,
        x_batch=case.images.numpy(),
        y_batch=case.targets.numpy(),
        a_batch=view(torch.from_numpy(case.maps.copy())),
        explain_func=lambda model, inputs, targets, **_: view(
            case.explainer(torch.from_numpy(inputs), torch.as_tensor(targets))
        ),
        softmax=False,
        channel_first=True,
        batch_size=4,
    )
    np.testing.assert_allclose(score(name, case), expected, rtol=1e-4)


def test_sensitivities_and_lipschitz_estimate_by_hand(planted):
    case = make_case(planted, images(3).mean(1).numpy(), explainer=grey)
    noise = _noise.perturbed(case, 4, 0.1).numpy() - case.images.numpy()  # [samples, N, 3, H, W]
    moved, original = noise.mean(2), case.images.mean(1).numpy()

    def length(values):
        return np.linalg.norm(values.reshape(*values.shape[:-2], -1), axis=-1)

    ratio = length(moved) / length(original)
    given = {"samples": 4, "radius": 0.1}
    np.testing.assert_allclose(score("max_sensitivity", case, **given), ratio.max(0), rtol=1e-4)
    np.testing.assert_allclose(score("avg_sensitivity", case, **given), ratio.mean(0), rtol=1e-4)
    again = original + moved
    change = length(again / again.max((-2, -1), keepdims=True) - original / original.max((-2, -1), keepdims=True))
    distance = np.linalg.norm(noise.reshape(4, 3, -1), axis=-1)
    np.testing.assert_allclose(score("local_lipschitz", case, **given), (change / distance).max(0), rtol=1e-4)


def test_relative_stabilities_by_hand(tiny_vit):
    case = case_of(tiny_vit, "patches with zeros", count=3)
    noisy = _noise.perturbed(case, 5, 0.05)
    seen = []
    handle = tiny_vit.backbone.fc_norm.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        logits = [tiny_vit(batch).double().numpy() for batch in (case.images, *noisy)]
    handle.remove()
    inner = [out.double().numpy() for out in seen]
    pixels = [batch.double().numpy().reshape(3, -1) for batch in (case.images, *noisy)]
    maps = [64 * case.explainer(batch, case.targets).double().numpy().reshape(3, -1) for batch in (case.images, *noisy)]
    maps = [one / one.max(1, keepdims=True) for one in maps]
    assert (maps[0] == 0).any()

    def share(before, after):
        return np.linalg.norm((before - after) / np.where(before == 0, 0.01, before), axis=1)

    for name, distance in {
        "relative_input_stability": [share(pixels[0], after) for after in pixels[1:]],
        "relative_output_stability": [np.linalg.norm(logits[0] - after, axis=1) for after in logits[1:]],
        "relative_representation_stability": [share(inner[0], after) for after in inner[1:]],
    }.items():
        expected = np.max([share(maps[0], after) / far for after, far in zip(maps[1:], distance, strict=True)], axis=0)
        np.testing.assert_allclose(score(name, case), expected, rtol=1e-3)


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_the_representation_is_what_the_head_reads(pooling):
    from unmask.contract import network
    from unmask.quantus_bridge import Answers

    model = network(pooling)
    case = make_case(model, np.random.default_rng(0).random((3, *GRID)), explainer=grey)
    answers = Answers(case, _noise.perturbed(case, 2, 0.05))
    read = []
    answers.last.register_forward_hook(lambda module, given, out: read.append(out))
    logits = answers(case.images)
    np.testing.assert_allclose(model.backbone.head(read[0]), logits, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(model(case.images), logits, atol=1e-5)


def test_one_set_of_explanations_serves_all_and_leaves_every_score_to_the_bit(tiny_vit):
    alone = {name: score(name, case_of(tiny_vit, "pixels")) for name in NOISE}
    shared = Shared(tiny_vit)
    cases = {name: case_of(tiny_vit, "pixels", shared=shared) for name in NOISE}
    with counted(tiny_vit) as spent:
        together = {name: score(name, case) for name, case in cases.items()}
    assert spent.backward == 4 * 5
    assert spent.forward == 4 * (1 + 5)
    for name in NOISE:
        np.testing.assert_array_equal(together[name], alone[name])


def test_the_next_explainer_meets_the_same_noisy_images_and_their_logits_cost_it_nothing(tiny_vit):
    shared, met = Shared(tiny_vit), {}
    for kind in ("pixels", "grey"):
        case = case_of(tiny_vit, kind, shared=shared)
        explain = case.explainer
        case.explainer = lambda images, targets, kind=kind, explain=explain: (
            met.setdefault(kind, images),
            explain(images, targets),
        )[1]
        with counted(tiny_vit) as spent:
            for name in NOISE:
                score(name, case)
        shared.forget("explanation")
    assert spent.total == 0  # the second, which needs no pass to explain
    torch.testing.assert_close(met["pixels"], met["grey"], rtol=0, atol=0)


def test_metrics_share_by_default(tiny_vit):
    assert len({tuple(options(name).items()) for name in NOISE}) == 1


def test_noise_is_symmetric_unclipped_and_the_same_however_many_samples_and_images_there_are(planted):
    case = make_case(planted, np.zeros((40, *GRID)))
    noise = (_noise.perturbed(case, 3, 0.1) - case.images).numpy()
    assert noise.shape == (3, 40, 3, SIZE, SIZE)
    assert abs(noise.mean()) < 4 * 0.1 / 3**0.5 / noise.size**0.5
    assert noise.min() < -0.0999
    assert noise.max() > 0.0999
    assert noise.std() == pytest.approx(0.1 / 3**0.5, rel=1e-2)
    assert (_noise.perturbed(case, 1, 0.1) > 1).any()
    fewer = make_case(planted, np.zeros((5, *GRID)))
    torch.testing.assert_close(
        _noise.perturbed(fewer, 2, 0.1) - fewer.images, torch.from_numpy(noise[:2, :5]), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        _noise.perturbed(case, 3, 0.2) - case.images, torch.from_numpy(2 * noise), rtol=0, atol=1e-6
    )
    assert not np.array_equal(noise[0], noise[1])


def shifts(pictures, step):
    """By hand: numpy's roll, and the border repeated over what came round."""
    moved = np.roll(pictures, step, axis=-1)
    if step > 0:
        moved[..., :step] = pictures[..., :1]
    else:
        moved[..., step:] = pictures[..., -1:]
    return moved


def test_continuity_by_hand(planted):
    case = make_case(planted, images(3).mean(1).numpy(), explainer=grey)
    pictures, expected = case.images.double().numpy(), []
    for step in (-2, -1, 1, 2):
        moved = shifts(pictures, step)
        one, other = (p.mean(1).reshape(3, -1) for p in (pictures, moved))
        change = np.abs(one / one.sum(1, keepdims=True) - other / other.sum(1, keepdims=True)).sum(1)
        expected.append(change / np.linalg.norm((pictures - moved).reshape(3, -1), axis=1))
    np.testing.assert_allclose(score("continuity", case), np.max(expected, 0), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_continuity_is_that_of_quantus_with_the_same_shifts(kind, seed, tiny_vit, monkeypatch):
    case = case_of(tiny_vit, kind, seed=seed)
    steps = iter((-2, -1, 1, 2))
    theirs = quantus.Continuity(
        nr_steps=4,
        abs=False,
        normalise=True,
        normalise_func=lambda a: a / np.abs(a).sum((1, 2, 3), keepdims=True),
        **{key: value for key, value in COMMON.items() if key != "normalise_func_kwargs"},
    )
    monkeypatch.setattr(
        quantus.metrics.robustness.continuity, "batched_translation", lambda arr, *_, **__: shifts(arr, next(steps))
    )
    side = SIZE // case.maps.shape[-1]
    expected = theirs(
        model=tiny_vit,
        x_batch=case.images.numpy(),
        y_batch=case.targets.numpy(),
        a_batch=None,
        explain_func=lambda model, inputs, targets, **_: (
            case.explainer(torch.from_numpy(inputs), torch.as_tensor(targets))[:, None]
            .repeat_interleave(side, 2)
            .repeat_interleave(side, 3)
            .numpy()
        ),
        softmax=False,
        channel_first=True,
        batch_size=4,
    )
    np.testing.assert_allclose(score("continuity", case), expected, rtol=1e-4)


def test_a_translation_repeats_the_border_and_one_that_moves_nothing_does_not_count(planted):
    row = torch.arange(4.0).expand(1, 3, 4, 4)
    assert continuity.translated(row, 1)[0, 0, 0].tolist() == [0, 0, 1, 2]
    assert continuity.translated(row, -2)[0, 0, 0].tolist() == [2, 3, 3, 3]
    pictures = images(2)
    pictures[1] = 0.5
    scores = score("continuity", make_case(planted, np.ones((2, *GRID)), explainer=grey, images=pictures))
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
