"""Randomisation: which weights go, that Quantus says the same of the same networks, and what the controls get."""

import copy
import itertools

import numpy as np
import pytest
import quantus
import torch
from planted_cases import SIZE, images, make_case, score
from quantus.helpers.model.pytorch_model import PyTorchModel
from scipy.stats import spearmanr

from unmask import registry
from unmask.case import Shared
from unmask.contract import network
from unmask.errors import Skip
from unmask.metrics import _networks
from unmask.models.vit import Classifier
from unmask.passes import counted
from unmask.quantus_bridge import COMMON
from unmask.seeds import numpy_global

GATES = [name for name, plugin in registry.available("metrics").items() if plugin.meta.get("gate")]
GRID = (4, 4)


def gradient(model):
    def explain(images, targets, model=model, **_):
        leaf = images.clone().requires_grad_()
        logits = model(leaf).gather(1, targets[:, None]).sum()
        return (torch.autograd.grad(logits, leaf)[0] * images).sum(1)

    return explain


def by_patch(model):
    explain = gradient(model)
    return lambda *asked, **more: torch.nn.functional.avg_pool2d(explain(*asked, **more), SIZE // 4)


KINDS = {"pixels": gradient, "patches": by_patch}


def case_of(model, kind="pixels", *, count=4, **changes):
    explain, targets = KINDS[kind](model), torch.arange(count) % 4
    return make_case(
        model, explain(images(count), targets).numpy(), **{"explainer": explain, "targets": targets, **changes}
    )


def patch_sums(maps):
    side = maps.shape[-1] // 4
    return maps.reshape(len(maps), 4, side, 4, side).sum((2, 4)).reshape(len(maps), 16)


def enlarged(maps):
    """Maps [N, h, w] as Quantus wants them: [N, 1, SIZE, SIZE]."""
    side = SIZE // maps.shape[-1]
    return maps[:, None].repeat(side, 2).repeat(side, 3)


def summed(maps):
    return enlarged(patch_sums(maps).reshape(len(maps), *GRID))


@pytest.fixture(scope="module")
def scaled_vit():
    """A fresh ViT with a class token, mask token and layer scale, and every norm and bias as it begins."""
    torch.manual_seed(0)
    model = Classifier(size=SIZE, patch=8, width=24, depth=3, heads=2, classes=4, pooling="token")
    model.mask_token = torch.nn.Parameter(torch.zeros(1, 1, 24))
    for block in model.backbone.blocks:
        for name in ("ls1", "ls2"):
            scale = torch.nn.Module()
            scale.gamma = torch.nn.Parameter(torch.full((24,), 0.1))
            scale.forward = lambda x, scale=scale: x * scale.gamma
            setattr(block, name, scale)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["avg", "token", "resnet"])
def test_units_name_every_weight_once_from_the_head_down_to_the_embedding(kind):
    model = network(kind)
    units = _networks.units(model)
    names = list(itertools.chain(*units))
    weights = {name for name, _ in model.named_parameters()}
    statistics = {name for name, _ in model.named_buffers() if "running" in name}
    assert sorted(names) == sorted(weights | statistics)
    if kind == "resnet":
        assert units[0] == ["backbone.fc.weight", "backbone.fc.bias"]
        assert [unit[0].rpartition(".conv1")[0] for unit in units[1:-1]] == [
            f"backbone.layer{i}.0" for i in (4, 3, 2, 1)
        ]
        assert {"backbone.conv1.weight", "backbone.bn1.running_var"} <= set(units[-1])
    else:
        norm = "backbone.norm.weight" if kind == "token" else "backbone.fc_norm.weight"
        assert {norm, "backbone.head.weight"} <= set(units[0])
        assert [unit[0].split(".")[2] for unit in units[1:-1]] == ["1", "0"]
        last = {"backbone.pos_embed", "backbone.patch_embed.proj.weight", "mask_token"}
        assert last | ({"backbone.cls_token"} if kind == "token" else set()) == set(units[-1]) - {
            "backbone.patch_embed.proj.bias"
        }


def test_units_of_many_blocks_go_by_number_and_not_by_spelling():
    model = Classifier(size=16, patch=8, width=4, depth=12, heads=1, classes=2)
    blocks = [unit[0].split(".")[2] for unit in _networks.units(model)[1:-1]]
    assert blocks == [str(i) for i in range(11, -1, -1)]


def test_the_cascade_adds_units_and_ends_with_every_weight_of_chance(scaled_vit):
    case = make_case(scaled_vit, np.zeros((1, *GRID)))
    known = dict(scaled_vit.named_parameters())
    units = _networks.units(scaled_vit)
    for steps, ends in {1: [5], 2: [2, 5], 5: [1, 2, 3, 4, 5], 9: [1, 2, 3, 4, 5]}.items():
        networks = _networks.cascade(case, steps)
        assert len(networks) == len(ends)
        for made, end in zip(networks, ends, strict=True):
            gone = set(itertools.chain(*units[:end]))
            for name, tensor in made.named_parameters():
                assert torch.equal(tensor, known[name]) == (name not in gone), name
    assert gone == set(known)


def test_draws_keep_each_tensors_mean_and_deviation_and_no_two_tensors_share_them(tiny_vit):
    made = _networks.cascade(make_case(tiny_vit, np.zeros((1, *GRID))), 1)[-1]
    known = dict(tiny_vit.named_parameters())
    normalised = {}
    for name, tensor in made.named_parameters():
        if tensor.numel() > 200:
            assert tensor.std().item() == pytest.approx(known[name].std().item(), rel=0.15)
            assert abs((tensor.mean() - known[name].mean()).item()) < 4 * tensor.std().item() / tensor.numel() ** 0.5
        normalised[name] = ((tensor - known[name].mean()) / known[name].std(correction=0)).flatten()[:24]
    for one, other in itertools.combinations(normalised.values(), 2):
        size = min(len(one), len(other))
        assert not torch.allclose(one[:size], other[:size], atol=0.1)


def test_batch_norms_statistics_are_of_chance_too_and_stay_variances():
    model = network("resnet")
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.1)
    made = _networks.cascade(make_case(model, np.zeros((1, *GRID))), 1)[-1]
    for (name, was), (_, now) in zip(model.named_buffers(), made.named_buffers(), strict=True):
        if "running" in name:
            assert not torch.equal(was, now)
        if "running_var" in name:
            assert sorted(was.tolist()) == pytest.approx(sorted(now.tolist()))
        if "normalise" in name:
            assert torch.equal(was, now)
    with torch.no_grad():
        assert torch.isfinite(made(torch.rand(2, 3, SIZE, SIZE))).all()


def test_a_twin_shares_tensors_counts_no_pass_twice_and_what_is_set_on_it_stays_there():
    model = network("avg")
    with counted(model) as spent:
        made = _networks.twin(model)
        inputs = torch.rand(2, 3, SIZE, SIZE)
        with torch.no_grad():
            made(inputs)
            made.pretraining.network.encoder.normalise(inputs)
    assert spent.total == 0
    pairs = [(model, made), (model.pretraining.network, made.pretraining.network)]
    for one, other in pairs:
        assert one is not other
        for was, now in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert was.data_ptr() == now.data_ptr()
    state = copy.deepcopy(model.state_dict())
    made = _networks.shifted(model, 0.5)
    _networks.cascade(make_case(model, np.zeros((1, *GRID))), 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    with torch.no_grad():
        torch.testing.assert_close(made(inputs + 0.5), model(inputs), rtol=1e-4, atol=1e-5)
        ours, theirs = made.pretraining.network, model.pretraining.network
        masked = torch.rand(2, *GRID) < 0.5
        torch.testing.assert_close(
            ours.reconstruct(inputs + 0.5, masked), theirs.reconstruct(inputs, masked), rtol=1e-4, atol=1e-5
        )


def test_networks_are_made_once_for_all_gates_and_explainers_and_no_global_generator_moves(tiny_vit):
    shared = Shared(tiny_vit)
    before = torch.get_rng_state()
    one, other = (_networks.cascade(make_case(tiny_vit, np.full((1, *GRID), v), shared=shared), 3) for v in (0, 1))
    assert all(a is b for a, b in zip(one, other, strict=True))
    assert _networks.cascade(make_case(tiny_vit, np.zeros((1, *GRID)), shared=shared), 1)[-1] is one[-1]
    for name in GATES:
        score(name, case_of(tiny_vit, shared=shared))
    assert torch.equal(before, torch.get_rng_state())
    alone = _networks.cascade(make_case(tiny_vit, np.zeros((1, *GRID))), 1)[-1]
    for was, now in zip(one[-1].parameters(), alone.parameters(), strict=True):
        assert torch.equal(was, now)


def test_networks_drive_out_nothing_that_metrics_share(tiny_vit):
    shared = Shared(tiny_vit, memory=1000)
    case = make_case(tiny_vit, np.zeros((1, *GRID)), shared=shared)
    small = shared.get(("small",), lambda: np.zeros(100))
    made = _networks.cascade(case, 3)
    assert shared.get(("small",), lambda: None) is small
    assert all(one is other for one, other in zip(made, _networks.cascade(case, 3), strict=True))


def test_a_model_without_weights_is_skipped(planted):
    with pytest.raises(Skip, match="no weights"):
        score("mprt", make_case(planted, np.zeros((1, *GRID)), explainer=lambda images, targets, **_: images.mean(1)))


def ours(case, steps):
    """Quantus's interface to a model whose layers are our units."""

    class Units(PyTorchModel):
        random_layer_generator_length = steps

        def get_random_layer_generator(self, order="top_down", seed=42):
            yield from ((f"step {k}", made) for k, made in enumerate(_networks.cascade(case, steps)))

    return Units


def arguments(case, view):
    return {
        "model": case.model,
        "x_batch": case.images.numpy(),
        "y_batch": case.targets.numpy(),
        "a_batch": view(case.explainer(case.images, case.targets).numpy()),
        "explain_func": lambda model, inputs, targets, **_: view(
            case.explainer(torch.from_numpy(inputs), torch.as_tensor(targets), model=model).numpy()
        ),
        "softmax": False,
        "channel_first": True,
        "batch_size": len(case),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mprt_is_that_of_quantus_with_the_same_networks(kind, seed, tiny_vit, monkeypatch):
    case = case_of(tiny_vit, kind, seed=seed)
    monkeypatch.setattr(quantus.helpers.utils, "PyTorchModel", ours(case, 3))
    metric = quantus.MPRT(
        similarity_func=quantus.similarity_func.correlation_spearman, abs=True, normalise=False, **COMMON
    )
    layers = metric(**arguments(case, summed))
    assert list(layers) == ["original", "step 0", "step 1", "step 2"]
    mine = score("mprt", case, steps=3)
    np.testing.assert_allclose(case.traces["mprt"].T, [layers[f"step {k}"] for k in range(3)], atol=1e-5)
    np.testing.assert_allclose(mine, layers["step 2"], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_efficient_mprt_is_that_of_quantus_with_the_same_networks_and_bins(kind, seed, tiny_vit, monkeypatch):
    case = case_of(tiny_vit, kind, seed=seed)
    monkeypatch.setattr(quantus.helpers.utils, "PyTorchModel", ours(case, 1))
    metric = quantus.EfficientMPRT(
        abs=False, normalise=False, complexity_func_kwargs={"n_bins": SIZE if kind == "pixels" else 4}, **COMMON
    )
    expected = metric(**{**arguments(case, enlarged), "softmax": True})
    np.testing.assert_allclose(score("efficient_mprt", case), expected)


def test_smooth_mprt_is_a_plain_loop_over_noisy_images_and_both_networks(tiny_vit):
    case = case_of(tiny_vit)
    random = _networks.cascade(case, 1)[-1]
    draws = [case.rng("smooth", k).standard_normal((4, 3, SIZE, SIZE)) for k in range(2)] + [0]
    explain, expected = gradient(tiny_vit), []
    for i in range(4):
        picture = case.images[i].numpy()
        spread = 0.2 * (picture.max() - picture.min())
        both = []
        for model in (tiny_vit, random):
            noisy = [
                torch.from_numpy((picture + spread * (d[i] if k < 2 else 0)).astype(np.float32))
                for k, d in enumerate(draws)
            ]
            maps = [explain(one[None], case.targets[i : i + 1], model=model) for one in noisy]
            both.append(np.abs(patch_sums(torch.stack(maps).mean(0).numpy()))[0])
        expected.append(spearmanr(*both).statistic)
    np.testing.assert_allclose(score("smooth_mprt", case, samples=3, noise=0.2), expected, atol=1e-5)
    np.testing.assert_allclose(score("smooth_mprt", case, samples=1), score("mprt", case), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_logit_is_that_of_quantus_for_the_same_classes(kind, seed, tiny_vit, monkeypatch):
    case, asked = case_of(tiny_vit, kind, seed=seed), []
    explain = case.explainer
    case.explainer = lambda images, targets, **more: (asked.append(targets), explain(images, targets, **more))[1]
    mine = score("random_logit", case)
    assert torch.equal(asked[0], case.targets)
    others = asked[1]
    metric = quantus.RandomLogit(
        similarity_func=quantus.similarity_func.correlation_spearman,
        num_classes=4,
        abs=False,
        normalise=False,
        **COMMON,
    )
    place = (others - (others > case.targets).long()).numpy()  # among the classes other than the target
    monkeypatch.setattr(np.random, "randint", lambda *_: place)
    with numpy_global(0):
        expected = metric(**arguments(case, summed))
    np.testing.assert_allclose(mine, expected, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_other_class_is_any_but_the_target_each_as_likely(classes, tiny_vit):
    asked = []

    def explain(images, targets, **_):
        asked.append(targets)
        return images.mean(1)

    count = 600
    model = copy.copy(tiny_vit)
    model.classes = classes
    targets = torch.arange(count) % classes
    score("random_logit", make_case(model, np.ones((count, *GRID)), explainer=explain, targets=targets))
    step = (asked[1] - targets) % classes
    counts = np.bincount(step.numpy(), minlength=classes)
    assert counts[0] == 0
    expected = count / (classes - 1)
    assert (np.abs(counts[1:] - expected) < 4 * expected**0.5).all() or classes == 2


def test_a_constant_map_of_the_random_network_is_unlike_any_and_one_that_is_no_number_has_no_score(tiny_vit):
    own, random = np.random.default_rng(0).random((3, SIZE, SIZE), dtype=np.float32), np.ones((3, SIZE, SIZE))
    random[1] = np.nan

    def explain(images, targets, model=None, **_):
        return torch.tensor(own if model is None else random, dtype=torch.float32)

    case = make_case(tiny_vit, own, explainer=explain)
    assert score("mprt", case).tolist()[::2] == [0, 0]
    assert score("efficient_mprt", case).tolist()[::2] == [-1, -1]
    assert np.isnan(score("mprt", case)[1])
    assert np.isnan(score("efficient_mprt", case)[1])


@pytest.mark.parametrize("name", GATES)
def test_controls_that_know_no_network_do_not_pass_even_where_they_draw(name, tiny_vit):
    drawn = torch.rand(64, 16, generator=torch.Generator().manual_seed(3))

    def luck(images, targets, model=None, paired=False, **_):
        assert paired
        return drawn[: len(images)].reshape(-1, *GRID)

    def edges(images, targets, **_):
        return (images.mean(1)[:, :, 1:] - images.mean(1)[:, :, :-1]).abs() @ torch.ones(SIZE - 1, SIZE)

    ((side, level),) = registry.find("metrics", name).meta["pass"].items()
    for explain in (luck, edges):
        scores = score(name, make_case(tiny_vit, np.random.default_rng(0).random((4, *GRID)), explainer=explain))
        assert (scores >= level if side == "below" else scores <= level).all()
        if name != "smooth_mprt":
            np.testing.assert_allclose(scores, 0 if name == "efficient_mprt" else 1, atol=1e-6)
