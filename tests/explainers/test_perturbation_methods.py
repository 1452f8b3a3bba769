"""Perturbation explainers against closed forms, all coalitions, naive loops, and the libraries: lime, shap, captum."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from scipy.cluster.hierarchy import fcluster, linkage

from unmask import passes, registry
from unmask.errors import UserError
from unmask.explain import planned
from unmask.models.vit import MEAN, Classifier
from unmask.patches import patch_sum, to_pixels

SHAPLEY = pytest.mark.parametrize("name", ["kernel_shap", "shapley_sampling"])
POOLINGS = pytest.mark.parametrize("pooling", ["avg", "token"])


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(4)
    images, weight = torch.rand(3, 3, 32, 32, generator=generator), torch.randn(3, 3, 32, 32, generator=generator)
    return images, torch.tensor([2, 0, 1]), weight


@pytest.fixture(scope="module")
def references():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(8))


@pytest.fixture(scope="module")
def pairwise(linear):
    """A model of single patches and of pairs, logit c a + c B c / 2 with c the patches' mean values."""

    class Pairwise(linear):
        def __init__(self):
            super().__init__(torch.zeros(1))
            generator = torch.Generator().manual_seed(2)
            self.single = torch.randn(3, 16, generator=generator)
            pairs = torch.randn(3, 16, 16, generator=generator).triu(1)
            self.pairs = pairs + pairs.mT

        def contents(self, images):
            return patch_sum(images.mean(1), self.grid).flatten(1) / 64

        def slopes(self, images, targets, share):
            """a + share * B c of the targets, [N, 4, 4]: a patch's worth where the others are there with that share."""
            others = torch.einsum("npq,nq->np", self.pairs[targets], self.contents(images))
            return (self.single[targets] + share * others).unflatten(1, self.grid)

        def forward(self, images):
            c = self.contents(images)
            return torch.einsum("kp,np->nk", self.single, c) + torch.einsum("np,kpq,nq->nk", c, self.pairs, c) / 2

    return Pairwise()


def contributions(images, weight, targets):
    """What each patch adds to a linear model's target logit over the mean colour: [N, 4, 4]."""
    return patch_sum((weight[targets] * (images - torch.tensor(MEAN).view(1, 3, 1, 1))).sum(1), (4, 4))


def small_vit(side, pooling="avg"):
    torch.manual_seed(0)
    shape = {"size": 8 * side, "patch": 8, "width": 32, "depth": 2, "heads": 2, "classes": 3, "pooling": pooling}
    model = Classifier(**shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)  # fresh weights make a network that is nearly linear
    return model.eval().requires_grad_(False)


def worth(model, image, target, present):
    """The target logit with the patches absent (mean colour) that the flat `present` [..., P] lacks, float64 [...]."""
    shape, size = present.shape[:-1], image.shape[-1]
    pixels = to_pixels(present.reshape(-1, *model.grid), (size, size)).unsqueeze(1)
    painted = torch.where(pixels, image, torch.tensor(MEAN).view(1, 3, 1, 1))
    with torch.no_grad():
        return model(painted)[:, target].double().reshape(shape)


def exact_shapley(model, image, target):
    """Shapley values [gh, gw] by definition: a patch's gain over each subset of the others, weighted by its size."""
    patches = model.grid[0] * model.grid[1]
    present = torch.tensor([[i >> p & 1 for p in range(patches)] for i in range(2**patches)]).bool()
    worths, values = worth(model, image, target, present), torch.zeros(patches, dtype=torch.float64)
    for patch in range(patches):
        others = [p for p in range(patches) if p != patch]
        for size in range(patches):
            for members in combinations(others, size):
                code = sum(1 << p for p in members)
                gain = worths[code + (1 << patch)] - worths[code]
                values[patch] += gain / (patches * comb(patches - 1, size))
    return values.reshape(model.grid)


# Closed forms


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lime", {"samples": 64, "alpha": 1e-6}),
        ("kernel_shap", {"samples": 60}),
        ("shapley_sampling", {"samples": 1}),
        ("occlusion", {}),
    ],
)
def test_a_linear_model_gives_the_contributions(name, options, linear, explain, batch):
    images, targets, weight = batch
    maps = explain(name, linear(weight), images, targets, **options)
    torch.testing.assert_close(maps, contributions(images, weight, targets), rtol=1e-3, atol=1e-3)


def test_patch_effect_of_a_linear_model_is_the_distance_to_the_mean_reference(linear, explain, batch, references):
    images, targets, weight = batch
    expected = patch_sum((weight[targets] * (images - references.mean(0))).sum(1), (4, 4))
    maps = explain("patch_effect", linear(weight), images, targets, references=references, samples=12)
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "options"), [("kernel_shap", {"samples": 100}), ("shapley_sampling", {"samples": 2})])
def test_pairs_share_their_interaction_exactly(name, options, pairwise, explain, batch):
    """The Shapley value of c a + c B c / 2 is c (a + B c / 2): pairing leaves no noise of interactions of two."""
    images, targets, _ = batch
    maps = explain(name, pairwise, images, targets, removal="zero", **options)
    own = pairwise.contents(images).unflatten(1, (4, 4))
    torch.testing.assert_close(maps, own * pairwise.slopes(images, targets, 0.5), rtol=1e-3, atol=1e-4)


def test_occlusion_and_patch_effect_take_the_whole_interaction(pairwise, explain, batch, references):
    images, targets, _ = batch
    slopes, own = pairwise.slopes(images, targets, 1.0), pairwise.contents(images).unflatten(1, (4, 4))
    maps = explain("occlusion", pairwise, images, targets, removal="zero")
    torch.testing.assert_close(maps, own * slopes, rtol=1e-3, atol=1e-4)
    usual = pairwise.contents(references).mean(0).reshape(4, 4)
    maps = explain("patch_effect", pairwise, images, targets, references=references, samples=6)
    torch.testing.assert_close(maps, (own - usual) * slopes, rtol=1e-3, atol=1e-4)


def test_lime_comes_to_banzhaf_values(pairwise, explain, batch):
    """They are c (a + B c / 2) too; the error falls with the root of the samples (5.7 here)."""
    images, targets, _ = batch
    expected = pairwise.contents(images).unflatten(1, (4, 4)) * pairwise.slopes(images, targets, 0.5)
    errors = {}
    for samples in (256, 8192):
        maps = explain("lime", pairwise, images, targets, removal="zero", samples=samples, kernel_width=10.0)
        errors[samples] = ((maps - expected).square().mean() / expected.square().mean()).sqrt()
    assert errors[8192] < 0.03
    assert errors[8192] < errors[256] / 3


# Axioms


@SHAPLEY
@POOLINGS
@pytest.mark.parametrize("samples", [2, 7, 60])
def test_values_sum_to_the_gain_of_all_patches(name, pooling, samples, vit, explain, batch):
    images, targets, _ = batch
    model = vit(pooling)
    ends = torch.tensor([[False], [True]]).expand(2, 16)
    gains = [worth(model, one, target, ends).diff() for one, target in zip(images, targets.tolist(), strict=True)]
    maps = explain(name, model, images, targets, samples=samples)
    torch.testing.assert_close(maps.double().sum((1, 2)), torch.cat(gains), rtol=1e-4, atol=1e-5)


@SHAPLEY
def test_patches_that_do_nothing_get_nothing_and_equal_patches_the_same(name, linear, explain):
    class Meeting(linear):
        """1 where patches 2, 5 and 11 are all bright: an interaction of three."""

        def forward(self, images):
            bright = patch_sum(images.mean(1), self.grid).flatten(1) / 64
            return (bright[:, 2] * bright[:, 5] * bright[:, 11]).unsqueeze(1)

    model, targets = Meeting(torch.zeros(1)), torch.zeros(1, dtype=torch.int64)
    samples = {"kernel_shap": 2000, "shapley_sampling": 200}[name]
    maps = explain(name, model, torch.ones(1, 3, 32, 32), targets, removal="zero", samples=samples).flatten()
    expected = torch.zeros(16)
    expected[[2, 5, 11]] = 1 / 3
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.03 if name == "kernel_shap" else 0.1)
    if name == "shapley_sampling":
        assert maps[expected == 0].abs().max() < 1e-6


# All coalitions


@POOLINGS
@pytest.mark.parametrize("side", [2, 3])
def test_kernel_shap_with_all_coalitions_is_exact(pooling, side, explain):
    model, images = small_vit(side, pooling), torch.rand(2, 3, 8 * side, 8 * side)
    expected = torch.stack([exact_shapley(model, image, target) for image, target in zip(images, (2, 0), strict=True)])
    with passes.counted(model) as counted:
        maps = explain("kernel_shap", model, images, torch.tensor([2, 0]), samples=2**9)
    assert counted.forward == 2 * 2 ** (side * side)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-4, atol=1e-4)


def test_kernel_shap_is_shaps(explain):
    from shap import KernelExplainer

    model, image = small_vit(3), torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))
    maps = explain("kernel_shap", model, image[None], torch.tensor([1]), samples=510)

    def function(z):
        return worth(model, image, 1, torch.tensor(z) > 0.5).numpy()

    expected = KernelExplainer(function, np.zeros((1, 9))).shap_values(np.ones((1, 9)), nsamples=510, silent=True)
    np.testing.assert_allclose(maps.flatten(), expected[0], rtol=1e-3, atol=1e-5)


@SHAPLEY
def test_few_samples_come_near_the_exact_values(name, explain):
    """40 estimates of a few samples: their mean is within its error of the exact values, and none leans to one side."""
    model, image = small_vit(3), torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))
    samples = {"kernel_shap": 100, "shapley_sampling": 4}[name]
    many, targets = image.expand(40, -1, -1, -1), torch.ones(40, dtype=torch.int64)
    maps = explain(name, model, many, targets, samples=samples).double().flatten(1)
    exact = exact_shapley(model, image, 1).flatten()
    error = maps.std(0) / 40**0.5
    assert ((maps.mean(0) - exact).abs() < 4 * error + 1e-5).all()
    assert torch.corrcoef(torch.stack([maps[0], exact]))[0, 1] > 0.9


# Naive loops and libraries


def test_lime_is_limes(vit, explain, batch):
    from lime.lime_base import LimeBase

    images, targets, _ = batch
    model, generator = vit("token"), torch.Generator().manual_seed(0)
    maps = explain("lime", model, images, targets, samples=200, alpha=1.0, kernel_width=0.25)
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    for image, target, one in zip(images, targets.tolist(), maps, strict=True):
        present = torch.rand(200, 4, 4, generator=generator).flatten(1) < 0.5
        present[0] = True
        labels, data = worth(model, image, target, present).numpy()[:, None], present.double().numpy()
        distances = 1 - data.sum(1) / np.maximum(np.linalg.norm(data, axis=1), 1e-12) / 4
        _, found, _, _ = base.explain_instance_with_data(data, labels, distances, 0, 16, feature_selection="none")
        expected = [coefficient for _, coefficient in sorted(found)]
        np.testing.assert_allclose(one.flatten(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_occlusion_with_windows_is_captums(window, stride, vit, explain, batch):
    images, targets, _ = batch
    model = vit("avg")
    baseline = torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(images)
    expected = Occlusion(model).attribute(
        images, (3, 8 * window, 8 * window), (3, 8 * stride, 8 * stride), baseline, targets
    )
    maps = explain("occlusion", model, images, targets, window=window, stride=stride)
    torch.testing.assert_close(to_pixels(maps, (32, 32)), expected[:, 0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_every_window_is_counted_and_every_patch_covered(window, vit, explain, batch):
    images, targets, _ = batch
    model, plugin = vit("avg"), registry.find("explainers", "occlusion")
    for stride in range(1, window + 1):
        given = {"window": window, "stride": stride}
        with passes.counted(model) as counted:
            maps = explain("occlusion", model, images, targets, **given)
        starts = sorted({min(start, 4 - window) for start in range(0, 4 + stride, stride)})
        assert counted.forward == 3 * (len(starts) ** 2 + 1)
        spec = type("Spec", (), {"plugin": plugin, "options": given})
        assert counted.forward == 3 * planned(spec, 16, 32).forward
        assert torch.isfinite(maps).all()


def test_windows_that_do_not_fit_are_a_users_mistake(vit, explain, batch):
    images, targets, _ = batch
    with pytest.raises(UserError, match=r"occlusion.window: 5 is more than the 4 patches a side"):
        explain("occlusion", vit("avg"), images, targets, window=5)
    with pytest.raises(UserError, match=r"occlusion.stride: 3 leaves patches between windows of 2"):
        explain("occlusion", vit("avg"), images, targets, window=2, stride=3)


def test_patch_effect_is_the_naive_loop(vit, explain, batch, references):
    images, targets, _ = batch
    model, generator, expected = vit("token"), torch.Generator().manual_seed(0), torch.zeros(3, 4, 4)
    for n, (image, target) in enumerate(zip(images, targets, strict=True)):
        for row in torch.randperm(6, generator=generator)[:4].tolist():
            for down in range(4):
                for across in range(4):
                    place = np.s_[:, 8 * down : 8 * down + 8, 8 * across : 8 * across + 8]
                    swapped = image.clone()
                    swapped[place] = references[row][place]
                    expected[n, down, across] += (model(image[None]) - model(swapped[None]))[0, target] / 4
    maps = explain("patch_effect", model, images, targets, references=references, samples=4)
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-5)


@POOLINGS
def test_vit_cx_by_hand(pooling, vit, explain, batch):
    """The clusters are scipy's, the rest is written out for one image after another."""
    images, targets, _ = batch
    model = vit(pooling)
    tokens = model.backbone._pos_embed(model.embed(images))
    tokens = model.backbone.blocks[0](tokens)
    tokens = model.backbone.blocks[1].norm1(tokens)[:, 1:] if pooling == "token" else model.backbone.blocks[1](tokens)
    maps = explain("vit_cx", model, images, targets, masks=10, keep=0.25)
    for image, target, features, one in zip(images, targets.tolist(), tokens.mT.numpy(), maps, strict=True):
        scaled = (features - features.min(1, keepdims=True)) / np.ptp(features, axis=1)[:, None]
        labels = fcluster(linkage(scaled, "complete", "cosine"), 10, "maxclust")
        assert len(set(labels)) == 10
        sums = np.stack([scaled[labels == label].sum(0) for label in set(labels)])
        present = sums >= np.sort(sums, 1)[:, -4][:, None]  # the four highest of sixteen
        impact = worth(model, image, target, torch.tensor(present)).numpy()
        with np.errstate(invalid="ignore"):
            expected = np.nan_to_num((impact - impact.mean()) @ present / present.sum(0))
        np.testing.assert_allclose(one.flatten(), expected, rtol=1e-3, atol=1e-5)


def test_vit_cx_has_no_more_masks_than_channels(vit, explain, batch):
    images, targets, _ = batch
    model = vit("avg")
    with passes.counted(model) as counted:
        explain("vit_cx", model, images, targets, masks=100)
    assert counted.forward == 3 * (32 + 1)
