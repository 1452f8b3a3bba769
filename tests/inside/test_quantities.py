"""Every quantity on inputs of known values, and against its definition written out."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import normalized_mutual_info_score

from unmask.errors import Skip
from unmask.internals import (
    attention,
    attribution,
    catalogue,
    cka,
    frequency,
    mask_token,
    missingness,
    norms,
    probes,
    rank,
)
from unmask.models.vit import Classifier

GRID = (3, 4)
PATCHES = 12


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n=2, heads=3, tokens=PATCHES, sharpness=2.0):
    return (sharpness * torch.randn(n, heads, tokens, tokens, generator=generator())).softmax(-1)


IDENTITY = torch.eye(PATCHES).expand(2, 2, -1, -1).double()
UNIFORM = torch.full((2, 2, PATCHES, PATCHES), 1 / PATCHES, dtype=torch.float64)
ONE_KEY = torch.zeros(2, 2, PATCHES, PATCHES, dtype=torch.float64).index_fill_(3, torch.tensor([5]), 1.0)


def places():
    return np.array([(row, column) for row in range(GRID[0]) for column in range(GRID[1])], float)


def test_the_distance_of_identity_attention_is_0_and_of_uniform_attention_the_mean_separation():
    assert attention.distance(IDENTITY, GRID).abs().max() == 0
    apart = np.linalg.norm(places()[:, None] - places()[None], axis=-1)
    assert attention.distance(UNIFORM, GRID).numpy() == pytest.approx(apart.mean())


def test_the_distance_is_its_definition_written_out():
    maps = drawn()
    apart = np.linalg.norm(places()[:, None] - places()[None], axis=-1)
    for image in range(2):
        for head in range(3):
            expected = np.mean([(maps[image, head, i].numpy() * apart[i]).sum() for i in range(PATCHES)])
            assert attention.distance(maps.double(), GRID)[image, head].item() == pytest.approx(expected, rel=1e-5)


def test_entropy_is_0_for_one_key_and_1_for_all_alike():
    assert attention.entropy(IDENTITY).abs().max() == 0
    assert attention.entropy(ONE_KEY).abs().max() == 0
    assert attention.entropy(UNIFORM).numpy() == pytest.approx(1)
    maps = drawn().double()
    expected = scipy_entropy(maps.numpy(), axis=-1).mean(-1) / np.log(PATCHES)
    assert attention.entropy(maps).numpy() == pytest.approx(expected)


def test_heads_that_do_the_same_do_not_diverge_and_others_do_by_their_mean_kl():
    assert attention.head_divergence(UNIFORM).abs().max() == pytest.approx(0, abs=1e-12)
    maps = drawn().double()
    for head in range(3):
        others = [
            scipy_entropy(maps[0, head].numpy(), maps[0, other].numpy(), axis=-1).mean()
            for other in range(3)
            if other != head
        ]
        assert attention.head_divergence(maps)[0, head].item() == pytest.approx(np.mean(others))
    with pytest.raises(ValueError, match="two heads"):
        attention.head_divergence(maps[:, :1])


def test_a_weight_of_0_leaves_the_divergence_finite():
    maps = torch.stack([torch.eye(PATCHES), torch.eye(PATCHES).roll(1, 0)]).unsqueeze(0).double()
    found = attention.head_divergence(maps)
    assert found.isfinite().all()
    assert (found > 80).all()


def test_mutual_information_is_0_under_collapse_and_1_where_every_query_has_its_own_key():
    assert attention.mutual_information(IDENTITY).numpy() == pytest.approx(1)
    assert attention.mutual_information(UNIFORM).abs().max() == pytest.approx(0, abs=1e-12)
    assert attention.mutual_information(ONE_KEY).abs().max() == 0
    shared = drawn()[:, :, :1].expand(-1, -1, PATCHES, -1).double()
    assert attention.mutual_information(shared).abs().max() == pytest.approx(0, abs=1e-9)


def test_mutual_information_is_scikit_learns_for_attention_that_chooses():
    keys = np.array([0, 0, 0, 1, 1, 5, 5, 5, 5, 7, 8, 8])
    maps = torch.zeros(1, 1, PATCHES, PATCHES, dtype=torch.float64)
    maps[0, 0, torch.arange(PATCHES), torch.from_numpy(keys)] = 1
    expected = normalized_mutual_info_score(np.arange(PATCHES), keys, average_method="geometric")
    assert attention.mutual_information(maps).item() == pytest.approx(expected)


def test_class_tokens_are_left_out_and_have_quantities_of_their_own():
    maps = drawn(tokens=PATCHES + 1)
    among = attention.patches_only(maps, 1)
    assert among.shape == (2, 3, PATCHES, PATCHES)
    assert among.sum(-1).numpy() == pytest.approx(1)
    assert attention.class_self_attention(maps).numpy() == pytest.approx(maps[:, :, 0, 0].numpy())
    row = maps[:, :, 0, 1:].double().numpy()
    expected = scipy_entropy(row, axis=-1) / np.log(PATCHES)  # scipy divides by the sum itself
    assert attention.class_entropy(maps, 1).numpy() == pytest.approx(expected)
    assert attention.class_entropy(torch.full((1, 1, 5, 5), 0.2), 1).item() == pytest.approx(1)


def test_a_checkerboard_is_all_high_frequency_a_constant_none_and_white_noise_even():
    side = torch.arange(8)
    board = ((-1.0) ** (side[:, None] + side[None])).reshape(1, 64, 1).expand(1, 64, 5)
    assert frequency.high_frequency(board, (8, 8)).item() == pytest.approx(np.log((64 + 1e-6) / 1e-6), rel=1e-6)
    assert frequency.high_frequency(torch.ones(1, 64, 5), (8, 8)).item() == pytest.approx(-np.log((64 + 1e-6) / 1e-6))
    noise = torch.randn(40, 64, 200, generator=generator())
    assert frequency.high_frequency(noise, (8, 8)).mean().item() == pytest.approx(0, abs=0.05)


def test_smoothing_lowers_the_high_frequency_and_a_single_token_has_none():
    noise = torch.randn(6, 30, 8, generator=generator())
    maps = noise.transpose(1, 2).reshape(6, 8, 5, 6)
    smooth = (maps + maps.roll(1, 2) + maps.roll(1, 3) + maps.roll((1, 1), (2, 3))) / 4
    smooth = smooth.flatten(2).transpose(1, 2)
    assert (frequency.high_frequency(smooth, (5, 6)) < frequency.high_frequency(noise, (5, 6))).all()
    expected = np.fft.fft2(maps.double().numpy())
    expected = np.log(np.abs(expected[..., 2, 3]) + 1e-6) - np.log(np.abs(expected[..., 0, 0]) + 1e-6)
    assert frequency.high_frequency(noise, (5, 6)).numpy() == pytest.approx(expected.mean(1))
    with pytest.raises(Skip, match="1 x 1"):
        frequency.high_frequency(torch.ones(2, 1, 4), (1, 1))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_effective_rank_of_k_equal_directions_is_k(k):
    axes = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64, generator=generator())).Q[:, :k]
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(k) * 3
    points = torch.zeros(2 * k, k, dtype=torch.float64)
    points[torch.arange(2 * k), torch.arange(k).repeat_interleave(2)] = signs
    tokens = (points @ axes.T).repeat(4, 1).unflatten(0, (4, 2 * k)) + 5
    assert rank.effective_rank(tokens).numpy() == pytest.approx(k)
    assert rank.effective_rank(torch.ones(3, 4, 5)).abs().max() == 0


def effective_rank(tokens, weights=None):
    """By numpy, of images with weights."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    weights = np.repeat(np.ones(len(tokens)) if weights is None else weights, tokens.shape[1])
    centred = flat - np.average(flat, axis=0, weights=weights)
    sigma = np.linalg.svd(np.sqrt(weights)[:, None] * centred, compute_uv=False)
    return np.exp(scipy_entropy(sigma))


def test_the_effective_rank_is_numpys_and_an_images_influence_the_derivative_to_its_weight():
    tokens = torch.randn(100, 9, 6, dtype=torch.float64, generator=generator())
    tokens = tokens * torch.linspace(0.1, 2, 6) + torch.randn(100, 1, 6, generator=generator(1))
    values, tokens = rank.effective_rank(tokens).numpy(), tokens.numpy()
    whole = effective_rank(tokens)
    assert values.mean() == pytest.approx(whole)
    for image in (0, 7):
        step = 1e-5 * np.eye(100)[image]
        slope = (effective_rank(tokens, 1 + step) - effective_rank(tokens, 1 - step)) / 2e-5
        assert values[image] == pytest.approx(whole + 100 * slope, rel=1e-5)
    without = np.array([effective_rank(np.delete(tokens, i, 0)) for i in range(100)])
    assert values.std() == pytest.approx(99 * without.std(), rel=0.1), "the jackknife's variance"


def grams(*features):
    return np.stack([x @ x.T for x in (f.reshape(len(f), -1) for f in features)])


def test_cka_is_1_for_the_same_features_rotated_moved_and_scaled():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 8))
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + 7
    assert cka.influence(grams(x), grams(x, turned)).mean(-1) == pytest.approx(1)


def test_cka_of_unrelated_features_is_0_however_many_there_are():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 60, 400))  # the plain estimate would be about .9
    found = [cka.influence(grams(a), grams(b)).mean() for a, b in zip(x[:, :40], y[:, :40], strict=True)]
    assert np.mean(found) == pytest.approx(0, abs=0.02)
    # Orthogonal designs: what one set of features tells of images, the other does not.
    images = np.array([(i, j) for i in range(6) for j in range(6)], float)
    assert cka.influence(grams(images[:, :1]), grams(images[:, 1:])).mean() == pytest.approx(0, abs=0.04)


def written_out(k, m):
    """HSIC_1 and CKA of Song et al. (2012) and Nguyen et al. (2021), matrix by matrix."""

    def hsic(k, m):
        n, ones = len(k), np.ones(len(k))
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        middle = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
        return (np.trace(k @ m) + middle - 2 / (n - 2) * ones @ k @ m @ ones) / (n * (n - 3))

    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_and_its_influences_are_the_jackknifes_written_out():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 20))
    layers = grams(x, x[:, :5] ** 2, x[:, :3] + rng.normal(size=(12, 3)))
    found = cka.influence(layers, layers[1:])
    assert found.shape == (3, 2, 12)
    for a, k in enumerate(layers):
        for b, m in enumerate(layers[1:]):
            whole = written_out(k, m)
            rest = [np.delete(np.arange(12), i) for i in range(12)]
            without = np.array([written_out(k[np.ix_(r, r)], m[np.ix_(r, r)]) for r in rest])
            assert found[a, b] == pytest.approx(whole + 11 * (without.mean() - without))
            assert found[a, b].mean() == pytest.approx(whole)


def test_cka_of_a_layer_that_does_not_vary_is_unknown_and_of_four_images_an_error():
    x = np.random.default_rng(0).normal(size=(9, 4))
    assert np.isnan(cka.influence(grams(x), grams(np.ones((9, 4)) * 0))).all()
    with pytest.raises(ValueError, match="needs 5 images"):
        cka.influence(grams(x[:4]), grams(x[:4]))


def test_tokens_of_high_norm_are_the_planted_ones():
    tokens = torch.randn(50, 16, 32, generator=generator())
    tokens[7, 3] *= 20
    tokens[7, 4] *= 20
    found = norms.high_norms(tokens)
    assert found[7].item() == pytest.approx(2 / 16)
    assert found.sum().item() == pytest.approx(2 / 16)
    assert norms.high_norms(torch.ones(4, 4, 3)).sum() == 0


def test_masked_tokens_of_the_same_cloud_are_1_apart_and_moved_ones_further():
    tokens = torch.randn(30, 200, 16, generator=generator())
    keep = torch.rand(30, 200, generator=generator(1)) < 0.5
    assert mask_token.separation(tokens, keep).mean().item() == pytest.approx(1, abs=0.01)
    moved = torch.where(keep[..., None], tokens, tokens + 8)
    within = 2 * 16
    expected = ((8**2 * 16 + within) / within) ** 0.5
    assert mask_token.separation(moved, keep).mean().item() == pytest.approx(expected, rel=0.02)


def test_the_distance_of_masked_tokens_is_its_definition_written_out():
    tokens = torch.randn(1, 9, 4, generator=generator()).double()
    keep = torch.tensor([[True] * 5 + [False] * 4])
    seen, hidden = tokens[0, :5].numpy(), tokens[0, 5:].numpy()
    between = np.mean([((a - b) ** 2).sum() for a in hidden for b in seen])
    within = np.mean([((a - b) ** 2).sum() for i, a in enumerate(seen) for j, b in enumerate(seen) if i != j])
    assert mask_token.separation(tokens, keep).item() == pytest.approx((between / within) ** 0.5)


def test_probes_read_a_planted_direction_and_guess_without_one():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    features = rng.normal(size=(400, 12))
    told = features + 4 * np.eye(12)[labels]
    for probe in (lambda *a: probes.nearest_neighbours(*a, 20), probes.linear):
        assert probe(told[:300], labels[:300], told[300:], labels[300:]).mean() > 0.9
        assert probe(features[:300], labels[:300], features[300:], labels[300:]).mean() == pytest.approx(0.25, abs=0.12)
    nearest = probes.nearest_neighbours(told[:5], labels[:5], told[:5], labels[:5], 20)
    assert set(nearest) <= {0.0, 1.0}, "more neighbours than images are all images"


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_heads_agree_with_an_attribution_that_is_their_own_map(pooling):
    model = Classifier(size=32, patch=8, width=12, depth=1, heads=2, classes=3, pooling=pooling).eval()
    maps = drawn(4, 2, 16 + model.prefix)
    read = maps[:, :, 0, 1:] if pooling == "token" else maps.mean(2)
    own = read[:, 0].reshape(4, 4, 4)
    assert attribution.agreement(maps, -3 * own, model)[:, 0].numpy() == pytest.approx(1, abs=1e-6)
    other = torch.randn(4, 4, 4, generator=generator(3)).abs()
    expected = [np.corrcoef(r.numpy(), o.flatten().numpy())[0, 1] for r, o in zip(read[:, 1], other, strict=True)]
    assert attribution.agreement(maps, other, model)[:, 1].numpy() == pytest.approx(expected, abs=1e-5)
    even = torch.full_like(maps, 1 / maps.shape[-1])
    assert attribution.agreement(even, other, model).abs().max() == 0


def test_subsets_are_nested_of_the_right_size_and_never_empty():
    keep = missingness.subsets(np.random.default_rng(0), 5, 2, (4, 4))
    assert keep.shape == (5, 5, 2, 4, 4)
    assert (~keep).sum((-1, -2)).float().mean((0, 2)).tolist() == missingness.counts(16) == [0, 4, 8, 12, 14]
    assert (keep[:, 1:] <= keep[:, :-1]).all()
    assert missingness.counts(4) == [0, 1, 2, 3, 3]


def test_entropies_of_answers():
    even, sure = torch.full((1, 4), 0.25), torch.tensor([[1.0, 0, 0, 0]])
    assert missingness.prediction_entropy(even).item() == pytest.approx(1)
    assert missingness.prediction_entropy(sure).item() == 0
    assert missingness.class_entropy(torch.arange(8)[:, None] % 4, 4).mean().item() == pytest.approx(1)
    assert missingness.class_entropy(torch.zeros(8, 1, dtype=torch.long), 4).mean().item() == 0
    skewed = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])[:, None]
    expected = scipy_entropy([5, 2, 1]) / np.log(4)
    assert missingness.class_entropy(skewed, 4).mean().item() == pytest.approx(expected)


def test_measures_of_unchanged_and_of_changed_answers():
    whole = torch.tensor([[0.7, 0.3], [0.2, 0.8]]).double()
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).double()
    labels = torch.tensor([0, 0])
    same = missingness.measures(whole[:, None], features[:, None], whole, features, labels)
    assert same["unchanged_prediction"].tolist() == [1, 1]
    assert same["feature_distance"].tolist() == [0, 0]
    assert same["accuracy"].tolist() == [1, 0]
    flipped = missingness.measures(whole.flip(1)[:, None], 2 * features[:, None], whole, features, labels)
    assert flipped["unchanged_prediction"].tolist() == [0, 0]
    assert flipped["feature_distance"].tolist() == [1, 1]
    assert flipped["accuracy"].tolist() == [0, 1]


def test_what_can_be_asked_for_is_what_the_config_knows():
    from unmask.config import SCHEMA

    known = SCHEMA["properties"]["inside"]["properties"]["what"]
    assert known["items"]["enum"] == known["default"] == list(catalogue.FAMILIES)
    tables = catalogue.QUANTITIES, catalogue.MISSINGNESS, catalogue.COUNTERFACTUALS, catalogue.SURROGATES
    families = {quantity.family for table in tables for quantity in table.values()}
    without = {
        "cka",
        "pictures",
        "causes",
        "dissection",
        "concepts",
        "visualisation",
        "factors",
    }  # values by layer and image
    assert families | without == set(catalogue.FAMILIES)
