"""Concepts on planted answers: units, vectors, maximised images and factors that are known beforehand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from unmask.internals import dissection, factors, observe, tcav, visualisation
from unmask.internals.concepts import Concepts
from unmask.internals.describe import Options, describe
from unmask.internals.known import Concept, concepts, without_evidence
from unmask.internals.measure import Found, Labelled, mean_tokens
from unmask.internals.rendered import Shown, rendered
from unmask.models.vit import Classifier
from unmask.seeds import numpy_generator
from unmask.statistics import resampled
from unmask.statistics import tcav as judge

A, B = Concept("evidence", "a"), Concept("distractor", "b")


def rng(*parts):
    return numpy_generator(0, "test", *parts)


class Planted(nn.Module):
    """Tokens are mean colours of patches; what is `read` of their mean is the first logit, minus it the second."""

    arch, prefix, pooling, mask_token, pretraining, grid = "vit", 0, "avg", None, None, (4, 4)

    def __init__(self, read=(5.0, 0.0, 0.0)):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.norm_pre, self.backbone.norm = nn.Identity(), nn.Identity()
        self.backbone.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.backbone.forward_head = lambda tokens: torch.stack(
            [tokens.mean(1) @ self.read, -tokens.mean(1) @ self.read], 1
        )
        self.register_buffer("read", torch.tensor(read))

    def forward(self, images):
        tokens = self.backbone.norm_pre(nn.functional.avg_pool2d(images, 4).flatten(2).transpose(1, 2))
        return self.backbone.forward_head(self.through(tokens))

    @property
    def entrance(self):
        return self.backbone.norm_pre

    def through(self, tokens, start=0):
        for block in self.backbone.blocks[start:]:
            tokens = block(tokens)
        return tokens


def coloured(count, seed, labelled=True):
    """Noisy images 16 x 16 whose red and whose green are each high in half of them; a third concept is drawn by lot."""
    draw = np.random.default_rng(seed)
    high = draw.random((count, 3)) < 0.5
    images = draw.random((count, 16, 16, 3)) * 0.6
    images[..., :2] += 0.3 * high[:, None, None, :2]
    everywhere = {
        Concept("distractor", name): np.broadcast_to(high[:, place, None, None], images.shape[:3])
        for place, name in enumerate(("red", "green", "lot"))
    }
    labels = draw.integers(0, 2, count)
    pixels = torch.from_numpy(images).float().permute(0, 3, 1, 2).contiguous()
    return Labelled(pixels, labels if labelled else None, everywhere)


def described(model, families=("concepts",), **options):
    test, train = coloured(40, 1), coloured(400, 2)
    seen, grids = observe.observe(model, test.images)
    found = Found(tokens=seen.tokens, grids=grids, means=mean_tokens(model, train.images))
    return describe(
        model,
        "after",
        test,
        train,
        found,
        families,
        classes=["yes", "no"],
        ids=[str(i) for i in range(40)],
        rng=rng,
        options=Options(**{"steps": 8, "factors": 2, **options}),
    )


def judged(made):
    all_of = Concepts()
    all_of.add(made)
    table = all_of.tables()["tcav"]
    found = judge.accuracies(table, 0.95)
    return {(row["layer"], row["name"]): row for row in found}, {
        (row["layer"], row["name"], row["target"]): row for row in judge.scores(table, found, 0.95)
    }


# --- what is known ---------------------------------------------------------------------------------------------------


def test_concepts_are_the_evidence_by_class_distractors_and_the_tag():
    pixels = np.zeros((4, 8, 8), bool)
    pixels[1:3, 2:4, 2:4] = True
    arrays = {"masks": pixels, "shortcut": np.zeros_like(pixels), "concepts/b": ~pixels, "images": None}
    labels = np.array([0, 1, 2, 0])
    found = concepts(arrays, labels, ["none", "a", "c"])
    assert list(found) == [Concept("evidence", "a"), Concept("evidence", "c"), Concept("distractor", "b")]
    assert found[Concept("evidence", "a")].any((1, 2)).tolist() == [False, True, False, False]
    assert without_evidence(found, labels).tolist() == [True, False, False, True]


# --- units -----------------------------------------------------------------------------------------------------------


def planted_unit(images=40, units=5):
    draw = np.random.default_rng(0)
    tokens, pixels = draw.normal(size=(images, 16, units)), np.zeros((images, 16, 16), bool)
    tokens[:, :, 3] = 0.0
    for i in range(0, images, 2):
        patch = draw.integers(16)
        tokens[i, patch, 3] = 1.0
        row, column = 4 * (patch // 4), 4 * (patch % 4)
        pixels[i, row : row + 4, column : column + 4] = True
    return torch.from_numpy(tokens).float(), pixels


def test_a_planted_unit_is_found_with_an_iou_of_one():
    tokens, pixels = planted_unit()
    found = dissection.dissect(tokens, (4, 4), {A: pixels, B: np.roll(pixels, 5, 0)}, rng())
    assert found.iou[0, 3] == pytest.approx(1)
    assert found.best[0] == 3
    assert (found.iou[0, [0, 1, 2, 4]] < 0.1).all()
    assert found.counts[0].sum(1).tolist() == [pixels.sum(), pixels.sum()]
    assert found.chance_iou[0].max() < 0.5, "the same masks on other images"


def test_the_iou_is_that_of_counting_pixel_by_pixel():
    draw = np.random.default_rng(3)
    tokens, pixels = torch.from_numpy(draw.normal(size=(30, 9, 4))).float(), draw.random((30, 10, 10)) < 0.3
    found = dissection.dissect(tokens, (3, 3), {A: pixels}, rng())
    for unit in range(4):
        values = tokens[:, :, unit].numpy()
        threshold = np.sort(values.ravel())[::-1][max(1, int(0.005 * values.size)) - 1]
        common = total = 0
        for image in range(30):
            for y in range(10):
                for x in range(10):
                    lit = values[image, 3 * (y * 3 // 10) + x * 3 // 10] >= threshold
                    common += lit & pixels[image, y, x]
                    total += lit | pixels[image, y, x]
        assert found.iou[0, unit] == pytest.approx(common / total)


def test_a_unit_that_likes_a_place_is_no_better_than_chance():
    tokens, pixels = torch.zeros(40, 16, 2), np.zeros((40, 16, 16), bool)
    tokens[:, 5, 0] = 1
    pixels[:, 4:8, 4:8] = True
    found = dissection.dissect(tokens, (4, 4), {A: pixels}, rng())
    assert found.iou[0, 0] == pytest.approx(1)
    assert (found.chance_iou == found.iou[0, 0]).all()
    assert found.iou[0, 1] == 0, "a unit that is always off marks nothing"


def test_detectors_of_a_kind_are_counted_once():
    iou = np.array([[0.5, 0.1, 0.0], [0.3, 0.0, 0.0], [0.04, 0.0, 0.9]])
    known = [Concept("evidence", "a"), Concept("evidence", "c"), B]
    found = dict(zip(dissection.groups(known), dissection.detectors(iou, known).tolist(), strict=True))
    assert found == {
        ("evidence", "a"): 2, ("evidence", "c"): 1, ("distractor", "b"): 1,
        ("evidence", None): 2, ("distractor", None): 1,
    }  # fmt: skip


# --- concept activation vectors --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted():
    return described(Planted())


@pytest.fixture(scope="module")
def verdicts(planted):
    return judged(planted)


def test_a_concept_that_the_decision_reads_has_a_score_of_one_and_the_other_class_none(verdicts):
    _, scores = verdicts
    for layer in (1, 2):
        for_, against = scores[layer, "red", "yes"], scores[layer, "red", "no"]
        assert (for_["verdict"], against["verdict"]) == ("for", "against")
        assert for_["p_holm"] < 0.01
        assert for_["sensitivity"] > 1


def test_a_represented_concept_that_the_decision_does_not_read_is_not_significant(verdicts):
    found, scores = verdicts
    assert found[2, "green"]["represented"]
    assert found[2, "green"]["accuracy"] > 0.9
    assert scores[2, "green", "yes"]["verdict"] == scores[2, "green", "no"]["verdict"] == "not significant"


def test_a_concept_drawn_by_lot_is_not_represented_and_has_no_score(verdicts):
    found, scores = verdicts
    assert not found[1, "lot"]["represented"]
    assert abs(found[1, "lot"]["accuracy"] - 0.5) < 0.1
    assert not [key for key in scores if key[1] == "lot"]


def test_scores_by_image_are_shares_of_the_vectors(planted):
    rows = pd.DataFrame(planted.rows["tcav"])
    own = rows[(rows["name"] == "red") & (rows["layer"] == 2)]
    assert own.loc[(own["measure"] == "positive") & (own["target"] == "yes"), "value"].eq(1).all()
    runs = own[(own["measure"] == "score") & (own["target"] == "yes")]
    assert runs["value"].tolist() == [1.0] * 10


def test_nothing_of_one_model_is_left_for_the_next():
    other, made = Planted(read=(0.0, -5.0, 0.0)), []
    for model in (other, Planted(), other):
        made.append(described(model))
    pd.testing.assert_frame_equal(*(pd.DataFrame(made[place].rows["tcav"]) for place in (0, 2)))
    _, scores = judged(made[2])
    assert scores[2, "green", "yes"]["verdict"] == "against"
    assert scores[2, "red", "yes"]["verdict"] == "not significant"


def tiny(**options):
    torch.manual_seed(0)
    model = Classifier(**{"size": 32, "patch": 8, "width": 24, "depth": 2, "heads": 2, "classes": 3, **options})
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
    return model.eval().requires_grad_(False)


def test_scores_are_captums_for_the_same_vector(tmp_path):
    from captum.concept import TCAV, Concept
    from captum.concept import Classifier as Planes

    model, draw = tiny(), torch.Generator().manual_seed(1)
    images = torch.rand(12, 3, 32, 32, generator=draw)
    vectors = np.random.default_rng(0).normal(size=(3, 24))

    class Given(Planes):
        def __init__(self):
            pass

        def train_and_eval(self, dataloader, **options):
            return {}

        def weights(self):
            flat = torch.from_numpy(self.vector).float().repeat(16)
            return torch.stack([flat, -flat])

        def classes(self):
            return [0, 1]

    slopes = tcav.slopes(model, images, torch.ones(12, dtype=torch.int64), [1, 2])
    for place, vector in enumerate(vectors):
        planes = Given()
        planes.vector = vector
        made = TCAV(model, ["backbone.blocks.0", "backbone.blocks.1"], f"model{place}", planes, save_path=str(tmp_path))
        pair = [Concept(i, f"c{i}", [images[:2]]) for i in range(2)]
        theirs = made.interpret(images, [pair], target=1)["0-1"]
        for layer in (1, 2):
            ours = tcav.derivatives(vector[None], slopes[layer])[0]
            them = theirs[f"backbone.blocks.{layer - 1}"]
            assert float(them["sign_count"][0]) == pytest.approx((ours > 0).mean())
            assert float(them["magnitude"][0]) == pytest.approx(ours.mean(), rel=1e-4)


def test_slopes_are_finite_differences_of_adding_a_vector_to_every_patch_token():
    model = tiny(pooling="token").double()
    images, vector = torch.rand(3, 3, 32, 32).double(), torch.randn(24).double()
    slopes = tcav.slopes(model, images, torch.tensor([0, 1, 2]), [1])
    step = 1e-5

    def logits(sign):
        handle = model.backbone.blocks[0].register_forward_hook(
            lambda module, inputs, output: torch.cat([output[:, :1], output[:, 1:] + sign * step * vector], 1)
        )
        try:
            return model(images).diagonal()
        finally:
            handle.remove()

    measured = (logits(1) - logits(-1)) / (2 * step)
    assert slopes[1] @ vector.numpy() == pytest.approx(measured.numpy(), rel=1e-4)


def test_a_layer_whose_patches_a_class_token_no_longer_reads_has_a_reason_instead_of_scores():
    model = tiny(pooling="token")
    slopes = tcav.slopes(model, torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), [1, 2])
    assert slopes[1].any()
    assert not slopes[2].any()


def test_pairs_are_of_one_class_and_held_out_images_were_not_fitted():
    draw = np.random.default_rng(0)
    labels, shown = draw.integers(0, 3, 90), draw.random(90) < 0.3
    rows = tcav.pairs(np.flatnonzero(shown), np.flatnonzero(~shown), labels, rng())
    assert (labels[rows[:, 0]] == labels[rows[:, 1]]).all()
    assert shown[rows[:, 0]].all()
    assert not shown[rows[:, 1]].any()
    assert len(np.unique(rows)) == rows.size
    assert tcav.halves(len(rows)) == (len(rows) // 2, len(rows) - len(rows) // 2)
    assert tcav.halves(1000) == (60, 60)


def test_what_too_few_images_show_is_a_reason():
    test, train = coloured(20, 1), coloured(40, 2)
    seldom = np.zeros((40, 16, 16), bool)
    seldom[:6] = True
    train.concepts[Concept("distractor", "seldom")] = seldom
    found = Found(means=mean_tokens(Planted(), train.images))
    made = describe(
        Planted(), "after", test, train, found, ["concepts"], classes=["yes", "no"], ids=[str(i) for i in range(20)],
        rng=rng, options=Options(runs=3, random=3),
    )  # fmt: skip
    row = next(row for row in made.rows["tcav"] if row.get("name") == "seldom")
    assert row["status"] == "skipped"
    assert "pairs of images of the same class" in row["reason"]


def test_a_users_folder_is_a_concept_like_any_other():
    images = (coloured(80, 5).images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    images[..., 0] = images[..., 0] // 2 + 120
    shown = Shown("folder", ("reddish",), images, np.zeros(len(images), np.int64))
    found, scores = judged(described(Planted(), shown=[shown]))
    assert found[2, "reddish"]["represented"]
    assert scores[2, "reddish", "yes"]["verdict"] == "for"


def test_colours_and_textures_are_held_against_the_others_of_their_kind():
    draw = np.random.default_rng(4)
    images = (draw.random((60, 16, 16, 3)) * 150).astype(np.uint8)
    which = np.arange(60) % 3
    for place in range(3):
        images[which == place, ..., place] += 100
    shown = [Shown("colour", ("red", "green", "blue"), images, which)]
    made = described(Planted(), shown=shown)
    found, _ = judged(made)
    assert all(found[2, name]["represented"] for name in ("red", "green", "blue"))
    rows = pd.DataFrame(made.rows["tcav"])
    sizes = rows[(rows["kind"] == "colour") & (rows["measure"] == "accuracy")]
    assert set(sizes["fitted"]) == set(sizes["held"]) == {10}


def test_embedded_domains_show_their_textures_and_the_signs_their_colours():
    options = {"difficulty": 0.2}
    made = rendered({"plugin": "driving", "options": options}, 32, rng)
    assert [(one.kind, one.names) for one in made] == [
        ("texture", ("brick", "grass", "gravel")), ("colour", ("red", "white", "blue")),
    ]  # fmt: skip
    grey, coloured_ = (one.images.astype(float) for one in made)
    assert grey.shape == coloured_.shape == (120, 32, 32, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert grey.mean((1, 2, 3)) == pytest.approx(np.full(120, 127.5), abs=3), "brightness tells no texture"
    red, white, blue = (coloured_[made[1].which == place] for place in range(3))
    assert np.abs(red - blue).max((1, 2, 3)).min() > 50
    assert ((red != white).any((1, 2, 3))).all()
    assert ((red == white).all(-1).mean((1, 2)) > 0.7).all(), "the scenes are the same"
    assert [one.kind for one in rendered({"plugin": "defect", "options": options}, 32, rng)] == ["texture"]
    assert rendered({"plugin": "medical", "options": options}, 32, rng) == []
    assert rendered({"plugin": "my own"}, 32, rng) == []


def test_without_overlap_the_tests_are_students_and_welchs():
    draw = np.random.default_rng(0)
    values, others = draw.normal(0.6, 0.1, 10), draw.normal(0.5, 0.3, 30)
    p, low, high = resampled.above(values, 0.0, 0.5, 0.95)
    theirs = stats.ttest_1samp(values, 0.5, alternative="greater")
    bounds = stats.ttest_1samp(values, 0.5).confidence_interval(0.95)
    assert (p, low, high) == pytest.approx((theirs.pvalue, bounds.low, bounds.high))
    assert resampled.differ(values, 0.0, others) == pytest.approx(
        stats.ttest_ind(values, others, equal_var=False).pvalue
    )
    wider = values.std(ddof=1) * np.sqrt(0.1 + 1)
    assert resampled.above(values, 1.0, 0.5, 0.95)[0] == pytest.approx(stats.t.sf((values.mean() - 0.5) / wider, 9))
    assert resampled.differ(np.ones(3), 1.0, np.zeros(3)) == pytest.approx(2 / 20)
    assert resampled.differ(np.ones(3), 1.0, np.ones(3)) == 1


# --- activation maximisation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", [visualisation.Goal(1), visualisation.Goal(7, layer=1)])
def test_maximised_images_drive_the_objective_beyond_the_best_image(goal):
    model = tiny()
    natural = torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = visualisation.maximise(model, [goal], natural, steps=40, generator=torch.Generator().manual_seed(0))
    assert made.reached[0] > made.natural[0]
    assert made.reached[0] == pytest.approx(float(visualisation.objectives(model, made.images, [goal])[0, 0]))
    assert made.natural[0] == pytest.approx(float(visualisation.objectives(model, natural, [goal]).max()))
    assert 0 <= made.images.min() <= made.images.max() <= 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_objective_of_a_unit_is_its_mean_over_the_patches():
    model, images = tiny(), torch.rand(4, 3, 32, 32)
    seen, _ = observe.observe(model, images)
    goals = [visualisation.Goal(2), visualisation.Goal(5, layer=2)]
    found = visualisation.objectives(model, images, goals)
    assert found[:, 0].tolist() == pytest.approx(seen.logits[:, 2].tolist())
    assert found[:, 1].tolist() == pytest.approx(seen.tokens[2].mean(1)[:, 5].tolist())


def test_variation_is_the_mean_step_between_neighbours():
    images = torch.zeros(1, 1, 4, 4)
    images[..., 2:] = 1
    assert visualisation.variation(images).item() == pytest.approx(1 / 3)


# --- factors ---------------------------------------------------------------------------------------------------------


def test_a_planted_product_of_parts_is_recovered():
    draw = np.random.default_rng(0)
    parts, basis = (
        draw.random((20, 9, 3)) * (draw.random((20, 9, 3)) < 0.4),
        draw.random((3, 12)) * (draw.random((3, 12)) < 0.5),
    )
    found = factors.factorise((parts @ basis).astype(np.float32), 3, rng())
    assert found.error < 0.02
    assert (found.mean == 0).all()
    alike = np.corrcoef(parts.reshape(-1, 3).T, found.parts.reshape(-1, 3).T)[:3, 3:]
    assert alike.max(1) == pytest.approx([1, 1, 1], abs=0.02)
    assert sorted(alike.argmax(1)) == [0, 1, 2]


def test_tokens_with_signs_are_factorised_around_their_mean():
    draw = np.random.default_rng(1)
    tokens = (draw.normal(size=(10, 9, 2)) @ draw.normal(size=(2, 6)) + 3 * draw.normal(size=6)).astype(np.float32)
    found = factors.factorise(tokens, 6, rng())
    assert found.basis.shape == (6, 12)
    assert (found.basis >= 0).all()
    assert (found.parts >= 0).all()
    assert found.tokens(np.zeros((9, 6), np.float32)) == pytest.approx(np.tile(found.mean, (9, 1)))
    made = found.tokens(found.parts)
    assert np.linalg.norm(made - tokens) <= 2 * found.error * np.linalg.norm(tokens - tokens.mean((0, 1))) + 1e-6


def test_importance_is_what_the_logit_loses_and_adds_up_behind_a_linear_head():
    model, draw = Planted(read=(1.0, -2.0, 0.5)), np.random.default_rng(2)
    tokens = (draw.random((8, 16, 2)) @ draw.random((2, 3))).astype(np.float32)
    found = factors.factorise(tokens, 2, rng())
    images = torch.zeros(8, 3, 16, 16)
    targets = torch.zeros(8, dtype=torch.int64)
    losses, logits = factors.importance(model, 2, found, factors.before(model, 2, images), targets)
    expected = found.parts.mean(1) * (found.basis @ np.array([1.0, -2.0, 0.5]))
    assert losses == pytest.approx(expected, abs=1e-5)
    assert losses.sum(1) == pytest.approx(logits[:, 0], abs=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_tokens_put_back_as_they_were_give_the_models_logits(pooling):
    model, images = tiny(pooling=pooling), torch.rand(3, 3, 32, 32)
    layer = factors.read_layer(model)
    assert layer == (2 if pooling == "avg" else 1)
    seen, _ = observe.observe(model, images)
    found = factors.rest(model, layer, seen.tokens[layer], factors.before(model, layer, images))
    assert torch.allclose(found, seen.logits, atol=1e-5)


def test_a_convolution_is_factorised_as_it_is():
    from unmask.models.resnet import ConvClassifier

    torch.manual_seed(0)
    model = ConvClassifier(size=64, patch=8, classes=3, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)).eval()
    images = torch.rand(3, 3, 64, 64)
    seen, _ = observe.observe(model, images)
    found = factors.rest(model, 4, seen.tokens[4], factors.before(model, 4, images))
    assert torch.allclose(found, seen.logits, atol=1e-5)
    assert (factors.factorise(seen.tokens[4].numpy(), 2, rng()).mean == 0).all()


# --- together --------------------------------------------------------------------------------------------------------


def test_every_family_fills_its_table_and_pictures():
    made = described(Planted(), families=("dissection", "concepts", "visualisation", "factors"), runs=3, random=3)
    assert all(made.rows.values())
    assert {"unit_0", "visualisations", "factors", "dissection_best_after"} <= set(made.arrays)
    assert [one["class"] for one in made.about["visualisations"][:2]] == ["yes", "no"]
    assert all(row.get("status", "ok") == "ok" for rows in made.rows.values() for row in rows)


def test_a_family_that_raises_costs_itself_alone():
    model = Planted()
    test, train = coloured(20, 1), coloured(60, 2)
    seen, grids = observe.observe(model, test.images)
    broken = [np.full((60, 3), np.nan)] * 3
    made = describe(
        model, "after", test, train, Found(tokens=seen.tokens, grids=grids, means=broken), ["dissection", "concepts"],
        classes=["yes", "no"], ids=[str(i) for i in range(20)], rng=rng, options=Options(runs=3, random=3),
    )  # fmt: skip
    assert [row["status"] for row in made.rows["tcav"]] == ["failed"]
    assert all(row.get("status", "ok") == "ok" for row in made.rows["dissection"])


def test_before_fine_tuning_only_what_is_represented_is_asked():
    model, train = Planted(), coloured(200, 2)
    test = coloured(20, 1)
    seen, grids = observe.observe(model, test.images)
    found = Found(tokens=seen.tokens, grids=grids, means=mean_tokens(model, train.images))
    made = describe(
        model, "before", test, train, found, ["concepts", "visualisation", "factors"], classes=["yes", "no"],
        ids=[str(i) for i in range(20)], rng=rng, options=Options(runs=3, random=3),
    )  # fmt: skip
    assert {row["measure"] for row in made.rows["tcav"]} == {"accuracy"}
    assert made.rows["factors"][0]["reason"].startswith("the encoder makes no decisions")
    assert SimpleNamespace(**made.about).visualisation_before_skipped


def test_evidence_of_domains_without_a_class_without_any_is_held_against_the_other_classes():
    train = coloured(200, 2)
    pixels = np.ones((200, 16, 16), bool)
    train.concepts.clear()
    for label, name in enumerate("ab"):
        train.concepts[Concept("evidence", name)] = pixels & (train.labels == label)[:, None, None]
    found = Found(means=mean_tokens(Planted(), train.images))
    made = describe(
        Planted(), "before", coloured(20, 1), train, found, ["concepts"], classes=["a", "b"],
        ids=[str(i) for i in range(20)], rng=rng, options=Options(runs=3, random=3),
    )  # fmt: skip
    accuracies = pd.DataFrame(made.rows["tcav"]).groupby("name")["value"].mean()
    assert accuracies.to_dict() == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.15), "the labels here are drawn by lot"
