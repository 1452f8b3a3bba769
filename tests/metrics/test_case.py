"""What a metric is given beside maps: logits of subsets, draws, other networks, and values that are computed once."""

import copy

import numpy as np
import pytest
import torch
from planted_cases import images, make_case

from unmask import case as case_module
from unmask.case import Shared
from unmask.passes import counted

GRID = (4, 4)


def subsets(count, many, seed=0):
    return np.random.default_rng(seed).random((count, many, *GRID)) < 0.6


@pytest.mark.parametrize("operator", ["mean", "blur", "mask_token", "token_drop"])
@pytest.mark.parametrize("size", [1, 4, 7, 64])
def test_logits_are_a_plain_loop_over_subsets_for_any_batch(tiny_vit, operator, size, monkeypatch):
    monkeypatch.setattr(case_module, "batch_size", lambda device: size)
    case, keep = make_case(tiny_vit, np.zeros((3, *GRID)), removal=operator), subsets(3, 5)
    with torch.no_grad():
        loop = [
            [
                tiny_vit(case.removal.remove(case.images[i : i + 1], torch.from_numpy(keep[i, k])[None]))[0].numpy()
                for k in range(5)
            ]
            for i in range(3)
        ]
    found = case.logits(keep)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(loop), rtol=0, atol=1e-5)
    np.testing.assert_allclose(case.logits(torch.from_numpy(keep[:, 2])), np.array(loop)[:, 2], rtol=0, atol=1e-5)


def test_the_same_subsets_cost_the_next_explainer_nothing_and_it_is_charged_all_the_same(tiny_vit):
    shared, keep = Shared(tiny_vit), subsets(3, 5)
    first, second = (make_case(tiny_vit, np.full((3, *GRID), v), removal="mean", shared=shared) for v in (0, 1))
    with counted(tiny_vit) as spent:
        one, two = first.logits(keep), second.logits(keep.copy())
    assert spent.total == 15
    assert shared.saved_passes == 15
    assert one is two
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 0
    with counted(tiny_vit) as spent:
        make_case(tiny_vit, np.zeros((3, *GRID)), removal="zero", shared=shared).logits(keep)
        make_case(tiny_vit, np.zeros((3, *GRID)), removal="mean", shared=shared, images=images(3, 9)).logits(keep)
        first.logits(~keep)
    assert spent.total == 45


def test_what_was_not_asked_for_the_longest_is_let_go_when_memory_is_full(tiny_vit):
    each = 3 * 2 * 4 * 4  # bytes of the logits of 3 images, 2 subsets, 4 classes
    shared = Shared(tiny_vit, memory=3 * each)
    case = make_case(tiny_vit, np.zeros((3, *GRID)), removal="mean", shared=shared)
    drawn = subsets(3, 2, 1)
    for seed in range(2, 8):  # explainers with curves of their own and draws in common
        case.logits(drawn)
        case.logits(subsets(3, 2, seed))
    assert len(shared._known) == 3
    assert shared._size == 3 * each

    def spent(keep):
        with counted(tiny_vit) as passes:
            case.logits(keep)
        return passes.total

    assert [spent(subsets(3, 2, seed)) for seed in (7, 6)] == [0, 0]
    assert spent(drawn) == 0
    assert spent(subsets(3, 2, 5)) == 6


def test_a_value_larger_than_the_memory_is_handed_out_and_explanations_are_forgotten(tiny_vit):
    shared = Shared(tiny_vit, memory=1)
    case = make_case(tiny_vit, np.zeros((3, *GRID)), removal="mean", shared=shared, explainer=lambda x, y: x.mean(1))
    assert case.logits(subsets(3, 2)).shape == (3, 2, 4)
    case.explain(case.images, case.targets)
    shared.forget("explanation")
    assert not shared._known
    assert shared._size == 0


def test_draws_are_the_same_for_every_explainer_and_differ_by_purpose_and_cell(tiny_vit):
    first, second = (make_case(tiny_vit, np.full((2, *GRID), v)) for v in (0, 1))
    assert first.rng("a").random() == second.rng("a").random()
    other = make_case(tiny_vit, np.zeros((2, *GRID)), seed=12)
    assert (
        len({first.rng("a").random(), first.rng("b").random(), first.rng("a", 1).random(), other.rng("a").random()})
        == 4
    )


def test_another_network_is_explained_apart_from_the_models_own_and_its_passes_are_charged(tiny_vit):
    asked = []

    def explainer(inputs, targets, model=tiny_vit):
        asked.append(model)
        return model(inputs)[:, :1, None].detach().expand(-1, *GRID)

    other = copy.deepcopy(tiny_vit)
    with torch.no_grad():
        next(p for n, p in other.named_parameters() if n.endswith("head.weight")).mul_(2)
    case = make_case(tiny_vit, np.zeros((2, *GRID)), explainer=explainer)
    inputs, targets = case.images, case.targets
    with counted(tiny_vit) as spent:
        own, others = case.explain(inputs, targets), case.explain(inputs, targets, other)
        again = case.explain(inputs, targets, copy.deepcopy(other))  # the same weights: the same network
    assert not np.array_equal(own, others)
    np.testing.assert_array_equal(others, again)
    assert asked == [tiny_vit, other]
    assert spent.total + case.shared.saved_passes == 2 + 2 + 2
    with torch.no_grad():
        other.normalise.mean.add_(0.1)  # a buffer
    assert not np.array_equal(case.explain(inputs, targets, other), others)
