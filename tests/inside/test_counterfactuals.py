"""The fewest patches whose removal changes a decision: against all sets there are, and on planted models."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from unmask import inside, plan, registry
from unmask.config import ModelId
from unmask.errors import UserError
from unmask.files import read_arrays, read_table, write_arrays, write_json
from unmask.internals.counterfactuals import COLUMNS, OUTCOMES, counterfactual_rows, margins
from unmask.internals.decisions import limits
from unmask.internals.flipping import Limits, most_sets, search, together
from unmask.layout import Layout
from unmask.models.vit import Classifier, Normalise

FULL = Limits(largest=8, candidates=9, refinements=10_000, exhaustive=8)
USUAL = Limits(largest=8, candidates=4, refinements=64)
MEAN = registry.find("removals", "mean")


def every(patches):
    """All sets of absent patches, none of them everything, the small ones first."""
    return [set(one) for size in range(1, patches) for one in combinations(range(patches), size)]


def found(function, limits, patches=9):
    """Search with a margin that is a function of the set of absent patches."""

    def ask(rows, absent):
        return np.array([function(set(np.flatnonzero(one).tolist())) for one in absent], float)

    sets, tried = together([search(patches, function(set()), limits)], ask)
    return sets[0], tried[0]


def random_margin(seed):
    """Effects of single patches, of pairs and of triples, so that greedy can be led astray."""
    rng = np.random.default_rng(seed)
    one, two = rng.normal(0.15, 0.3, 9), np.triu(rng.normal(0, 0.5, (9, 9)), 1)
    return lambda absent: 1.0 - one[sorted(absent)].sum() - two[np.ix_(sorted(absent), sorted(absent))].sum()


@pytest.mark.parametrize("seed", range(12))
def test_exhaustive_search_finds_a_smallest_set_and_says_so(seed):
    margin = random_margin(seed)
    smallest = next((len(one) for one in every(9) if margin(one) < 0), None)
    sets, _ = found(margin, FULL)
    assert (sets.smallest is None) == (smallest is None)
    if smallest is not None:
        assert len(sets.smallest) == smallest
        assert sets.proven
        assert margin(set(sets.smallest)) < 0


def test_the_usual_search_is_never_larger_than_greedy_and_mostly_as_small_as_can_be():
    sizes = []
    for seed in range(60):
        margin = random_margin(seed)
        smallest = next((len(one) for one in every(9) if margin(one) < 0), None)
        sets, tried = found(margin, USUAL)
        assert tried <= most_sets(9, USUAL)
        if sets.smallest is not None:
            assert margin(set(sets.smallest)) < 0
            assert smallest <= len(sets.smallest)
            assert sets.greedy is None or len(sets.smallest) <= len(sets.greedy)
            assert not sets.proven or len(sets.smallest) == smallest
            sizes.append((smallest, len(sets.smallest), len(sets.greedy or range(8))))
        assert sets.never == (all(margin(set(range(9)) - {left}) >= 0 for left in range(9)) and sets.smallest is None)
    best, refined, greedy = np.array(sizes).T
    assert len(sizes) > 40
    assert refined.sum() < greedy.sum(), "refining pays"
    assert (refined == best).mean() > 0.9


def test_of_additive_effects_the_largest_are_taken_until_the_margin_is_spent():
    effects = np.array([0.1, 0.5, -0.2, 0.3, 0.0, 0.45, 0.05, 0.2, 0.15])
    for whole in (0.4, 0.7, 1.1, 1.3, 1.5):
        sets, _ = found(lambda absent, whole=whole: whole - effects[sorted(absent)].sum(), USUAL)
        order = np.argsort(-effects)
        size = next(k for k in range(1, 9) if effects[order[:k]].sum() > whole)
        assert sets.greedy == tuple(order[:size])
        assert sets.smallest == tuple(sorted(order[:size].tolist()))


def test_a_patch_that_led_greedy_astray_is_left_out_again():
    worth = {frozenset(): 0, frozenset("A"): 0.6, frozenset("B"): 0.5, frozenset("C"): 0.5, frozenset("AB"): 0.8,
             frozenset("AC"): 0.8, frozenset("BC"): 1.05, frozenset("ABC"): 1.2}  # fmt: skip
    sets, _ = found(lambda absent: 1 - worth[frozenset("ABC"[patch] for patch in absent if patch < 3)], USUAL)
    assert len(sets.greedy) == 3
    assert sets.smallest == (1, 2)
    assert sets.proven, "no single patch does"


def test_two_patches_that_only_count_together_are_found_by_trying_all_pairs():
    def margin(absent):
        return -1.0 if {3, 7} <= absent else 1.0

    assert found(margin, Limits(2, 2, 64, exhaustive=2))[0].smallest == (3, 7)
    blind, _ = found(margin, Limits(2, 2, 64))
    assert (blind.smallest, blind.never) == (None, False), "removing all but one of the others changes the decision"


def test_what_no_removal_changes_is_told_from_what_takes_more():
    never, tried = found(lambda absent: 1.0, USUAL)
    assert (never.smallest, never.never, never.proven) == (None, True, False)
    assert tried == sum(range(2, 10)) + 9 == most_sets(9, Limits(8, 4, 0))
    more, _ = found(lambda absent: 4.5 - len(absent), Limits(3, 9, 64))
    assert (more.smallest, more.never) == (None, False)
    assert len(found(lambda absent: 4.5 - len(absent), USUAL)[0].smallest) == 5


def test_a_margin_of_0_is_not_another_decision():
    assert found(lambda absent: 1.0 - len(absent & {4, 5}), USUAL)[0].smallest == (4, 5)


def test_margins_are_against_the_highest_other_class():
    answers = np.array([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]])
    assert margins(answers, np.array([1, 2])).tolist() == [1.0, -5.0]


class Planted(nn.Module):
    """Class 1 while enough of the weighted patches are white; class 2 where the last patch alone is gone."""

    arch, grid, mask_token, pretraining = "vit", (3, 3), None, None

    def __init__(self, weights, threshold):
        super().__init__()
        self.normalise, self.threshold = Normalise(), threshold
        self.weights = torch.tensor(weights)

    def forward(self, images):
        white = images.mean(1).unflatten(1, (3, 8)).unflatten(3, (3, 8)).mean((2, 4)).flatten(1) > 0.9
        score = (white * self.weights).sum(1)
        return torch.stack([torch.full_like(score, self.threshold), score, 0.1 + 0.2 * ~white[:, -1]], 1)


def test_a_planted_decision_is_flipped_by_the_planted_patches():
    model = Planted([0.0, 3.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0], 2.5)
    images = torch.ones(2, 3, 24, 24)
    images[1, :, :8, 8:16] = 0.0  # without the patch of weight 3 it is class 0 from the start
    masks = np.zeros((2, 24, 24), bool)
    masks[0, 3:5, 10:12] = masks[0, 20:22, 0:3] = True
    first, second = counterfactual_rows([MEAN], model, images, ["a", "b"], masks, USUAL)
    assert (first["decision"], first["outcome"], first["new_class"]) == (1, "flipped", 0)
    assert (first["patches"], first["size"], first["greedy_size"], first["proven"]) == ("1", 1, 1, True)
    assert (first["margin"], first["new_margin"]) == pytest.approx((2.5, -0.5))
    assert (first["evidence"], first["evidence_everywhere"]) == (1.0, pytest.approx(2 / 9))
    assert (second["decision"], second["outcome"], second["reason"]) == (0, "never", OUTCOMES["never"])
    assert "evidence" not in second


def test_the_recorded_class_is_that_of_the_image_without_the_set():
    torch.manual_seed(3)
    model = Classifier(size=24, patch=8, width=24, depth=1, heads=2, classes=3).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    images = torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    rows = counterfactual_rows([MEAN], model, images, list("abcdef"), None, FULL)
    removal = MEAN.load()
    sets = every(9)
    keep = torch.ones(len(sets), 9, dtype=torch.bool)
    for row, absent in zip(keep, sets, strict=True):
        row[list(absent)] = False
    flipped = 0
    for image, row in zip(images, rows, strict=True):
        decision = int(model(image[None]).argmax())
        answers = model(removal.remove(model, image.expand(len(sets), -1, -1, -1), keep.unflatten(1, (3, 3)))).argmax(1)
        smallest = next((len(one) for one, new in zip(sets, answers.tolist(), strict=True) if new != decision), None)
        assert (row["decision"], row.get("size")) == (decision, smallest)
        if smallest:
            flipped += 1
            assert row["new_class"] == answers[sets.index(set(map(int, row["patches"].split())))]
    assert flipped > 2


def test_images_searched_together_are_those_searched_alone():
    margins_of = [random_margin(seed) for seed in range(5)]

    def ask(rows, absent):
        return np.array(
            [margins_of[row](set(np.flatnonzero(one).tolist())) for row, one in zip(rows, absent, strict=True)]
        )

    sets, tried = together([search(9, 1.0, USUAL) for _ in margins_of], ask)
    assert list(zip(sets, tried, strict=True)) == [found(margin, USUAL) for margin in margins_of]


BROKEN = '''"""A removal that gives what is not finite."""
META = {"kind": "removals", "summary": "none", "architectures": ["vit"]}


def remove(model, images, keep):
    return images / 0
'''


def run(config, encoder):
    which = {"domain": "defect", "encoder": encoder, "pretrain_seed": 0, "finetune_seed": 0}
    inside.run(config, **which)
    return Layout(config.results).inside(ModelId(**which))


@pytest.fixture(scope="module")
def config(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("plugins") / "broken.py"
    path.write_text(BROKEN)
    given = {"images": 5, "removals": ["mean", "mask_token", "broken"], "largest": 6}
    config = made(what=["counterfactuals"], plugins=[path], counterfactuals=given)
    add_scenes(config)
    return config


def add_scenes(config):
    """Evidence in one corner, and distractors, beside the prepared images."""
    path = Layout(config.results).domain("defect") / "test.safetensors"
    arrays = read_arrays(path)
    masks = np.zeros(arrays["images"].shape[:3], bool)
    masks[arrays["labels"] > 0, 4:12, 4:12] = True
    speck = np.zeros_like(masks)
    speck[::2, 20:22, 20:22] = True
    write_arrays(path, {**arrays, "masks": masks, "shortcut": np.zeros_like(masks), "concepts/speck": speck})
    write_json(path.parent / "card.json", {"classes": ["none", "hole", "stain"]})


def test_the_stage_writes_a_row_per_removal_and_image_or_a_reason(config):
    half, scratch = (read_table(run(config, name) / "counterfactuals.parquet") for name in ("half", "scratch"))
    for removal in ("mean", "mask_token"):
        rows = half[half["removal"] == removal]
        assert rows["image_id"].nunique() == len(rows) == 5
        assert set(rows["outcome"]) <= set(OUTCOMES)
        assert (rows["outcome"] == "flipped").any()
        some = rows[rows["outcome"] == "flipped"]
        assert (some["new_class"] != some["decision"]).all()
        assert (some["size"] <= some["greedy_size"]).all()
        assert (rows["largest"] == 6).all()
    broken = half[half["removal"] == "broken"]
    assert broken["status"].tolist() == ["failed"]
    assert "not finite" in broken["reason"].iloc[0]
    row = scratch[scratch["removal"] == "mask_token"].iloc[0]
    assert row["status"] == "skipped"
    assert "mask token" in row["reason"]


def test_the_same_job_writes_the_same_bytes(config):
    path = run(config, "half") / "counterfactuals.parquet"
    before = path.read_bytes()
    run(config, "half")
    assert path.read_bytes() == before


def test_the_plan_bounds_the_passes(made, capsys):
    config = made(encoders=("half",), what=["counterfactuals"])
    run(config, "half")
    said = capsys.readouterr().out
    spent = sum(int(text.split(",")[0].split("}")[0]) for text in said.split("'forward': ")[1:])
    assert 0 < spent <= plan._inside(config, {"defect": {"test": 12, "train": 20}}).forward


def test_without_the_family_the_table_is_empty_and_keeps_its_types(made):
    config = made(encoders=("scratch",), what=["rank"])
    written = read_table(run(config, "scratch") / "counterfactuals.parquet")
    assert len(written) == 0
    assert list(written.columns) == list(COLUMNS)


def test_an_unknown_removal_is_named(made):
    with pytest.raises(UserError, match=r"inside\.counterfactuals\.removals: unknown removal 'means'"):
        made(counterfactuals={"removals": ["means"]})
    assert limits(made()["inside"]["counterfactuals"]).exhaustive == 1
