"""The embedded domains: exact masks, determinism, difficulty, the planted shortcut."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from unmask import registry
from unmask.domains import _proxy
from unmask.domains._scene import Canvas
from unmask.domains._textures import pyramid, sample
from unmask.errors import UserError

DOMAINS = ("medical", "driving", "defect")
FEW = {"train": 24, "val": 8, "test": 8, "unlabelled": 4, "difficulty": 0.5, "shortcut": 0.0}


def painter(domain):
    return registry.find("domains", domain).load().PAINTER


def build(domain, *, size=32, seed=1, **options):
    return registry.find("domains", domain).load().build({**FEW, **options}, size=size, seed=seed)


def render(domain, kind, seed, size=64, difficulty=0.5):
    return _proxy.render(painter(domain), kind, size=size, seed=seed, difficulty=difficulty)[:3]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("size", [32, 64])
def test_evidence_changes_pixels_inside_its_mask_and_nowhere_else(domain, kind, size):
    reach = 2 if (domain, kind) == ("driving", 2) else 1  # the rim of a triangle is longer at its corners
    for seed in range(6):
        without, nothing, _ = render(domain, 0, seed, size)
        image, mask, _ = render(domain, kind, seed, size)
        changed = (image != without).any(-1)
        rim = binary_dilation(mask, np.ones((3, 3)), iterations=reach)  # anti-aliased beyond half coverage
        assert not nothing.any()
        assert not (changed & ~rim).any()
        assert changed[mask].mean() > 0.9
        assert 0.003 < mask.mean() < 0.15


def test_the_mask_of_a_disc_and_a_box_is_their_area():
    canvas = Canvas(200)
    disc = canvas.coverage(canvas.disc((0.4, 0.55), 0.3))
    assert (disc >= 0.5).mean() == pytest.approx(np.pi * 0.3**2, rel=2e-3)
    assert disc.mean() == pytest.approx(np.pi * 0.3**2, rel=1e-3)
    box = canvas.coverage(canvas.box((0.5, 0.5), (0.1, 0.2), 0.6))
    assert (box >= 0.5).mean() == pytest.approx(0.08, rel=1e-2)
    octagon = canvas.coverage(canvas.polygon((0.5, 0.5), 0.3, 8, 0.1))
    assert (octagon >= 0.5).mean() == pytest.approx(8 * 0.3**2 * np.tan(np.pi / 8), rel=1e-2)


def test_a_smooth_blob_is_a_disc_and_a_straight_curve_a_capsule():
    canvas = Canvas(128)
    blob = canvas.blob((0.5, 0.4), 0.2, np.random.default_rng(0), roughness=0.0)
    np.testing.assert_allclose(blob, canvas.disc((0.5, 0.4), 0.2), atol=1e-5)
    capsule = canvas.coverage(canvas.curve(np.array([[0.5, 0.2], [0.5, 0.8]]), 0.05))
    assert capsule.mean() == pytest.approx(0.6 * 0.1 + np.pi * 0.05**2, rel=1e-2)


@pytest.mark.parametrize("size", [32, 40, 64])
def test_the_smallest_disc_covers_a_pixel_wherever_it_lies(size):
    canvas, rng = Canvas(size), np.random.default_rng(0)
    for _ in range(200):
        centre = tuple(rng.uniform(0.1, 0.9, 2))
        assert (canvas.coverage(canvas.disc(centre, canvas.at_least(0.0))) >= 0.5).any()


def test_textures_are_sampled_at_their_own_pixels_and_averaged_when_smaller():
    grass = pyramid("grass")[0]
    side = grass.shape[0]
    rows, columns = np.array([[3, 100]]), np.array([[7, 511]])
    np.testing.assert_allclose(
        sample("grass", (rows + 0.5) / side, (columns + 0.5) / side, 1 / side), grass[rows, columns], atol=1e-4
    )
    centres = np.meshgrid((np.arange(16) + 0.5) / 16, (np.arange(16) + 0.5) / 16, indexing="ij")
    blocks = grass.reshape(16, side // 16, 16, side // 16, 1).mean((1, 3))
    np.testing.assert_allclose(sample("grass", *centres, 1 / 16), blocks, atol=1e-4)


def test_textures_need_no_network():
    code = (
        "import socket\ndef refuse(*a, **k): raise AssertionError('network')\nsocket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\nfrom unmask.domains._textures import ORIGIN, pyramid\n"
        "print([pyramid(n)[0].shape for n in ORIGIN])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(1411, 1411, 3), (512, 512, 1), (512, 512, 1), (512, 512, 1)]", done.stderr


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_image_depends_on_its_seed_and_index_only(domain):
    few, more = build(domain), build(domain, train=32, unlabelled=0)
    np.testing.assert_array_equal(few.train.images, more.train.images[:24])
    np.testing.assert_array_equal(few.test.masks, more.test.masks)
    assert more.unlabelled.shape == (0, 32, 32, 3)
    assert (build(domain, seed=2).train.images != few.train.images).any((1, 2, 3)).all()


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_are_balanced_disjoint_and_annotated(domain):
    splits = build(domain)
    parts = [splits.train, splits.val, splits.test]
    hashes = [
        hashlib.sha256(image.tobytes()).digest()
        for images in [*(p.images for p in parts), splits.unlabelled]
        for image in images
    ]
    assert len(set(hashes)) == len(hashes) == 44
    for part in parts:
        assert np.ptp(np.bincount(part.labels, minlength=4)) == 0
        np.testing.assert_array_equal(part.masks.any((1, 2)), part.labels > 0)
        assert not part.shortcut.any()


@pytest.mark.parametrize("domain", DOMAINS)
def test_mean_colour_does_not_separate_the_classes(domain):
    from sklearn.linear_model import LogisticRegression

    splits = build(domain, train=120, test=80, val=4, unlabelled=0)
    train, test = splits.train.images.mean((1, 2)) / 255, splits.test.images.mean((1, 2)) / 255
    accuracy = LogisticRegression(C=100, max_iter=2000).fit(train, splits.train.labels).score(test, splits.test.labels)
    assert accuracy < 0.5  # chance is 0.25


@pytest.mark.parametrize("domain", DOMAINS)
def test_difficulty_lowers_the_size_and_the_contrast_of_evidence(domain):
    """Contrast is the change that evidence makes, against the pixel noise and grain around it."""
    area, contrast = [], []
    for difficulty in (0.0, 0.5, 1.0):
        sizes, changes = [], []
        for kind in (1, 2, 3):
            for seed in range(8):
                without, _, _ = render(domain, 0, seed, difficulty=difficulty)
                image, mask, _ = render(domain, kind, seed, difficulty=difficulty)
                around = binary_dilation(mask, iterations=4) & ~binary_dilation(mask)
                sizes.append(mask.mean())
                changes.append(np.abs(image[mask].astype(float) - without[mask]).mean() / without[around].std())
        area.append(np.mean(sizes))
        contrast.append(np.mean(changes))
    assert area[0] > area[1] > area[2]
    assert contrast[0] > contrast[1] > contrast[2]


def test_the_shortcut_gives_the_class_away_in_training_only():
    splits = build("defect", train=240, val=60, test=240, unlabelled=40, shortcut=0.75)
    plain = build("defect", train=240, val=60, test=240, unlabelled=40)
    colours = _proxy.tag_colours(4)
    agree = {}
    for name in ("train", "test"):
        part, without = getattr(splits, name), getattr(plain, name)
        tagged = part.shortcut.any((1, 2))
        assert tagged.mean() == pytest.approx(0.75, abs=0.1)
        assert not (part.shortcut & part.masks).any()
        np.testing.assert_array_equal(part.images[~part.shortcut], without.images[~part.shortcut])
        seen = [
            int(np.flatnonzero((colours == image[pixels][0]).all(1))[0])
            for image, pixels in zip(part.images[tagged], part.shortcut[tagged], strict=True)
        ]
        agree[name] = np.mean(np.array(seen) == part.labels[tagged])
        for image, pixels in zip(part.images[tagged], part.shortcut[tagged], strict=True):
            assert len(np.unique(image[pixels], axis=0)) == 1
            assert pixels.sum() == 9
            assert binary_erosion(pixels, np.ones((3, 3))).sum() == 1  # one square of 3 x 3
    assert agree["train"] == 1
    assert agree["test"] == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("domain", DOMAINS)
def test_marking_concepts_changes_no_pixel(domain, monkeypatch):
    marked = build(domain, shortcut=0.5)
    monkeypatch.setattr(Canvas, "mark", lambda *arguments: None)
    monkeypatch.setattr(Canvas, "hide", lambda *arguments: None)
    plain = build(domain, shortcut=0.5)
    for name in ("train", "val", "test"):
        one, other = getattr(marked, name), getattr(plain, name)
        for array in ("images", "labels", "masks", "shortcut"):
            np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
        assert all(pixels.any() for pixels in one.concepts.values())
        assert not any(pixels.any() for pixels in other.concepts.values())
    np.testing.assert_array_equal(marked.unlabelled, plain.unlabelled)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_concept_is_marked_where_it_was_just_painted(domain, monkeypatch):
    before, names = {}, set()

    def spied(paint):
        def spy(canvas, *arguments):
            before[canvas] = canvas.pixels.copy()
            paint(canvas, *arguments)

        return spy

    def mark(canvas, name, coverage):
        changed = (canvas.pixels != before[canvas]).any(-1)
        assert not changed[coverage == 0].any()
        assert changed[coverage >= 0.5].all()
        names.add(name)

    for paint in ("paint", "multiply"):
        monkeypatch.setattr(Canvas, paint, spied(getattr(Canvas, paint)))
    monkeypatch.setattr(Canvas, "mark", mark)
    for seed in range(12):
        render(domain, 1, seed)
    assert names == set(painter(domain).concepts)


def test_what_is_hidden_is_no_longer_marked():
    canvas = Canvas(40)
    low, high = canvas.box((0.5, 0.5), (0.3, 0.3)), canvas.box((0.5, 0.7), (0.1, 0.2))
    canvas.mark("low", canvas.coverage(low))
    canvas.mark("low", canvas.coverage(canvas.box((0.1, 0.1), (0.05, 0.05))))
    canvas.hide(canvas.coverage(high))
    canvas.mark("high", canvas.coverage(high))
    seen = {name: coverage >= 0.5 for name, coverage in canvas.marked.items()}
    assert seen["high"].sum() == 8 * 16
    assert seen["low"].sum() == 24 * 24 + 4 * 4 - 8 * 12
    assert not (seen["low"] & seen["high"]).any()


@pytest.mark.parametrize("domain", DOMAINS)
def test_concepts_lie_beside_evidence_and_tag_and_do_not_tell_the_class(domain):
    part = build(domain, size=64, train=4, val=4, test=120, unlabelled=0, shortcut=0.5).test
    assert list(part.concepts) == list(painter(domain).concepts)
    for name, pixels in part.concepts.items():
        assert not (pixels & (part.masks | part.shortcut)).any()
        seen = pixels.any((1, 2))
        assert seen.mean() > 0.2, name
        by_class = [seen[part.labels == label].mean() for label in range(4)]
        assert np.ptp(by_class) < 4 * (0.25 * 2 / 30) ** 0.5  # four standard errors of a difference at most
    if domain == "driving":
        assert not (part.concepts["house"] & part.concepts["box"]).any()


@pytest.mark.parametrize(("options", "size", "said"), [({}, 16, "32 or more"), ({"val": 3}, 32, "val = 3")])
def test_what_cannot_be_rendered_is_refused(options, size, said):
    with pytest.raises(UserError, match=said):
        build("medical", size=size, **options)
