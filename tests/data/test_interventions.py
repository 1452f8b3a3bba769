"""Images with one factor changed: nothing else moves, and what an object hid is there without it."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from unmask import data, interventions, registry
from unmask.domains import BACKGROUND, Intervention, _proxy
from unmask.domains._scene import Canvas
from unmask.errors import UserError

DOMAINS = ("medical", "driving", "defect")
FEW = {"train": 8, "val": 4, "test": 24, "unlabelled": 0, "difficulty": 0.5, "shortcut": 0.5}


def painter(domain):
    return registry.find("domains", domain).load().PAINTER


def build(domain, **options):
    return registry.find("domains", domain).load().build({**FEW, **options}, size=32, seed=1)


def render(domain, kind, seed, **more):
    return _proxy.render(painter(domain), kind, size=48, seed=seed, difficulty=0.5, **more)


def differs(one, other):
    return (one != other).any(-1)


@pytest.mark.parametrize("domain", DOMAINS)
def test_intervening_moves_no_pixel_of_the_image_itself(domain):
    for kind in range(4):
        for seed in range(4):
            plain, asked = render(domain, kind, seed), render(domain, kind, seed, intervene=True)
            np.testing.assert_array_equal(plain.image, asked.image)
            np.testing.assert_array_equal(plain.mask, asked.mask)
            assert plain.changed == {}


@pytest.mark.parametrize("domain", DOMAINS)
def test_without_its_evidence_an_image_is_that_of_the_class_without_any(domain):
    for kind in (1, 2, 3):
        for seed in range(4):
            changed = render(domain, kind, seed, intervene=True).changed
            np.testing.assert_array_equal(changed["evidence"], render(domain, 0, seed).image)
    assert "evidence" not in render(domain, 0, 0, intervene=True).changed


@pytest.mark.parametrize("domain", DOMAINS)
def test_without_a_distractor_the_image_changes_where_that_was_painted_and_nowhere_else(domain, monkeypatch):
    painted = {}

    def spied(paint):
        def spy(canvas, coverage, *arguments):
            if canvas._kind:
                painted.setdefault(canvas._kind, np.zeros(coverage.shape, bool))[coverage > 0] = True
            paint(canvas, coverage, *arguments)

        return spy

    for paint in ("paint", "multiply"):
        monkeypatch.setattr(Canvas, paint, spied(getattr(Canvas, paint)))
    seen = set()
    for seed in range(12):
        painted.clear()
        plain = render(domain, 1, seed)
        reach = {kind: pixels.copy() for kind, pixels in painted.items()}
        for factor, changed in render(domain, 1, seed, intervene=True).changed.items():
            if factor != BACKGROUND:
                where = differs(plain.image, changed)
                assert not (where & ~reach[factor]).any()
                seen |= {factor} if where.any() else set()
    assert seen == {"evidence", *painter(domain).concepts}


@pytest.mark.parametrize("domain", DOMAINS)
def test_on_another_background_the_evidence_stays_and_the_rest_is_another_scene(domain):
    kind = 3 if domain == "driving" else 2  # of paint that hides what is below: a sign, exudates, a hole
    for seed in range(4):
        one = render(domain, kind, seed, intervene=True)
        where = differs(one.image, one.changed[BACKGROUND])
        core = ~binary_dilation(~one.mask)  # the rim lets the background shine through
        near = np.abs(one.image.astype(int) - one.changed[BACKGROUND])[core]
        assert near.mean() < 8
        assert where[~one.mask].mean() > 0.8


def two_discs(canvas, rng, difficulty):
    """A grey scene with a blue disc, on which the evidence lies."""
    canvas.pixels[:] = rng.uniform(0.3, 0.7)
    with canvas.object("low"):
        canvas.paint(canvas.coverage(canvas.disc((0.5, 0.4), 0.2)), (0, 0, 1))


def on_top(canvas, kind, rng, difficulty):
    coverage = canvas.coverage(canvas.disc((0.5, 0.6), 0.2))
    canvas.paint(coverage, (1, 0, 0))
    return coverage


def test_what_an_opaque_object_hides_is_there_without_it():
    scene = _proxy.Painter(("a", "b"), (), ("low",), two_discs, on_top)
    given = {"size": 40, "seed": 3, "difficulty": 0.0}
    one = _proxy.render(scene, 1, intervene=True, **given)
    core = ~binary_dilation(~one.mask)
    blue = one.changed["evidence"][..., 2] > one.changed["evidence"][..., 0].astype(int) + 100
    assert (core & blue).sum() > 20, "the blue disc is there again"
    assert not (one.image[core][:, 2] > 50).any()
    # Without the disc below nothing changes where the opaque one lies, though that is painted later.
    assert not (differs(one.image, one.changed["low"]) & core).any()
    assert differs(one.image, one.changed["low"]).any()
    empty = dataclasses.replace(scene, background=lambda canvas, rng, difficulty: two_discs_alone(canvas, rng))
    np.testing.assert_array_equal(one.changed["low"], _proxy.render(empty, 1, **given).image)


def two_discs_alone(canvas, rng):
    canvas.pixels[:] = rng.uniform(0.3, 0.7)


@pytest.mark.parametrize("domain", DOMAINS)
def test_without_the_tag_an_image_is_the_one_that_never_had_it(domain):
    test, plain = build(domain).test, build(domain, shortcut=0.0).test
    tagged = test.shortcut.any((1, 2))
    assert 0 < tagged.sum() < len(tagged)
    np.testing.assert_array_equal(test.interventions["tag"].images, plain.images)
    assert "tag" not in plain.interventions
    colours = _proxy.tag_colours(4)
    speaks = test.interventions["tag"].classes
    np.testing.assert_array_equal(speaks >= 0, tagged)
    for image, pixels, label in zip(test.images[tagged], test.shortcut[tagged], speaks[tagged], strict=True):
        assert (image[pixels] == colours[label]).all()
    for factor, one in test.interventions.items():
        if factor != "tag":
            np.testing.assert_array_equal(one.images[test.shortcut], test.images[test.shortcut])


def test_the_factors_are_those_of_the_test_split_and_as_many_as_the_plug_in_says():
    for domain in DOMAINS:
        splits, plugin = build(domain, shortcut=0.0), registry.find("domains", domain)
        assert list(splits.test.interventions) == ["evidence", *painter(domain).concepts, "background"]
        assert len(splits.test.interventions) == plugin.meta["factors"]
        assert splits.train.interventions == splits.val.interventions == {}
        np.testing.assert_array_equal(
            splits.test.interventions["evidence"].classes, np.where(splits.test.labels > 0, splits.test.labels, -1)
        )


def test_the_file_holds_every_image_that_has_a_factor(tmp_path):
    test = build("defect").test
    interventions.write(tmp_path / "i.safetensors", test)
    found = interventions.read(tmp_path / "i.safetensors")
    assert list(found) == list(test.interventions)
    rows = [7, 3, 20, 4, 0]
    for name, factor in interventions.choose(found, rows).items():
        one = test.interventions[name]
        present = (one.images != test.images).any((1, 2, 3))
        np.testing.assert_array_equal(found[name].present, present)
        np.testing.assert_array_equal(found[name].changed, one.images[present])
        np.testing.assert_array_equal(factor.present, present[rows])
        np.testing.assert_array_equal(factor.changed, [one.images[row] for row in rows if present[row]])
        assert (factor.classes is None) == (name not in ("evidence", "tag"))
    np.testing.assert_array_equal(found["tag"].of(rows).classes, test.interventions["tag"].classes[rows])


def test_a_split_without_interventions_is_a_file_without_factors(tmp_path):
    interventions.write(tmp_path / "i.safetensors", build("defect").train)
    assert interventions.read(tmp_path / "i.safetensors") == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (Intervention(np.zeros((24, 32, 32), np.uint8)), "with the factor 'thing' changed are uint8"),
        (Intervention(np.zeros((24, 32, 32, 3), np.uint8), np.full(24, 4)), "'thing' speaks for are outside -1"),
        (Intervention(np.zeros((24, 32, 32, 3), np.uint8), np.zeros(3, np.int64)), r"int64 \[3\]"),
    ],
)
def test_a_plug_ins_interventions_are_held_to_the_contract(changed, said):
    splits = build("defect")
    data.check(splits, 32, "here")
    test = dataclasses.replace(splits.test, interventions={"thing": changed})
    with pytest.raises(UserError, match=said):
        data.check(dataclasses.replace(splits, test=test), 32, "here")
