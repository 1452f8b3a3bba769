"""The folder domain: every image mode, every mistake, groups that stay together, masks that survive."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.domains import folder
from unmask.domains._grouping import split_groups
from unmask.domains._reading import Reader, read_mask
from unmask.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"
OPTIONS = folder.META["options"]


def save(path, value, size=(12, 10), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def root(tmp_path):
    """Two classes of 8 images 12 x 10; the class `bad` has evidence in its left half."""
    for i in range(8):
        save(tmp_path / f"set/images/bad/{i:02d}.png", (200, 10 * i, 0))
        save(tmp_path / f"set/images/good/{i:02d}.jpg", (0, 10 * i, 200))
        mask = Image.new("L", (12, 10))
        mask.paste(255, (0, 0, 6, 10))
        (tmp_path / "set/masks/bad").mkdir(parents=True, exist_ok=True)
        mask.save(tmp_path / f"set/masks/bad/{i:02d}.png")
    return tmp_path / "set"


def build(root, size=32, seed=0, **options):
    return folder.build({**OPTIONS, "path": str(root), **options}, size=size, seed=seed)


def test_a_folder_becomes_three_splits_with_masks(root):
    splits = build(root)
    assert splits.classes == ["bad", "good"]
    parts = (splits.train, splits.val, splits.test)
    assert sum(len(part.ids) for part in parts) == 16
    assert len(set().union(*(part.ids for part in parts))) == 16
    half = np.zeros((32, 32), bool)
    half[:, :16] = True
    for part in parts:
        assert set(part.labels.tolist()) == {0, 1}
        for image_id, label, image, mask in zip(part.ids, part.labels, part.images, part.masks, strict=True):
            assert image_id.startswith(splits.classes[label] + "/")
            number = int(image_id[-2:])
            colour = (200, 10 * number, 0) if label == 0 else (0, 10 * number, 200)
            np.testing.assert_allclose(image[5, 5], colour, atol=4)
            np.testing.assert_array_equal(mask, half if label == 0 else np.zeros_like(half))


def test_the_split_depends_on_the_seed_only(root):
    first, again, other = build(root), build(root), build(root, seed=1)
    assert first.train.ids == again.train.ids
    assert first.train.ids != other.train.ids


MODES = {
    "1": (1, (255, 255, 255)),
    "L": (90, (90, 90, 90)),
    "LA": ((90, 0), (255, 255, 255)),
    "RGB": ((1, 2, 3), (1, 2, 3)),
    "RGBA": ((255, 0, 0, 51), (255, 204, 204)),
    "CMYK": ((0, 255, 255, 0), (255, 0, 0)),
    "I;16": (65535, (255, 255, 255)),
    "F": (0.5, (128, 128, 128)),
    "I": (51 * 257, (51, 51, 51)),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_as_rgb(tmp_path, mode):
    value, expected = MODES[mode]
    path = tmp_path / ("x.tif" if mode in ("CMYK", "F", "I") else "x.png")
    Image.new(mode, (20, 14), value).save(path)
    reader = Reader(16)
    if mode == "I":  # the scale is shared: a file that fills 16 bits sets it
        Image.new("I;16", (4, 4), 65535).save(tmp_path / "full.png")
        reader.add(tmp_path / "full.png")
    assert reader.add(path) == (20, 14)
    image = reader.images()[-1]
    assert image.shape == (16, 16, 3)
    np.testing.assert_allclose(image, np.broadcast_to(expected, image.shape), atol=1)


def test_twelve_bit_images_share_one_scale(tmp_path):
    reader = Reader(16)
    for name, value in (("dark", 1000), ("bright", 4000)):
        Image.new("I;16", (8, 8), value).save(tmp_path / f"{name}.png")
        reader.add(tmp_path / f"{name}.png")
    assert reader.images()[:, 0, 0, 0].tolist() == [round(1000 / 4095 * 255), round(4000 / 4095 * 255)]


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(1, (4, 0, 8, 8))
    image.save(tmp_path / "p.png", transparency=0)
    reader = Reader(8)
    reader.add(tmp_path / "p.png")
    read = reader.images()[0]
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 7].tolist() == [10, 200, 30]


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_exif_orientation_is_obeyed(tmp_path, mode):
    values = np.zeros((10, 20), np.uint8 if mode == "L" else np.uint16)
    values[:, :10] = 255  # stored: left half bright; orientation 6 turns it clockwise: top half bright
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(values).save(tmp_path / "turned.png", exif=exif)
    reader = Reader(8)
    assert reader.add(tmp_path / "turned.png") == (10, 20)
    image = reader.images()[0]
    assert image[:3].min() > 250
    assert image[5:].max() < 5


def test_thin_evidence_survives_and_no_evidence_stays_none(tmp_path):
    line = np.zeros((320, 320), np.uint8)
    line[:, 7] = 255  # a tenth of a resized pixel: below the threshold, but the fullest there is
    Image.fromarray(line).save(tmp_path / "line.png")
    Image.fromarray(line * 0).save(tmp_path / "none.png")
    read = read_mask(tmp_path / "line.png", 32, (320, 320), "line")
    assert read[:, 0].all()
    assert read.sum() == 32
    assert not read_mask(tmp_path / "none.png", 32, (320, 320), "none").any()


MASKS = [("L", 255), ("L", 1), ("1", 1), ("P", 3), ("RGB", (255, 255, 255)), ("I;16", 65535)]


@pytest.mark.parametrize(("mode", "on"), MASKS)
def test_masks_of_every_mode(tmp_path, mode, on):
    mask = Image.new(mode, (16, 16))
    if mode == "P":
        mask.putpalette([0, 0, 0] * 8)
    mask.paste(on, (4, 0, 8, 16))
    mask.save(tmp_path / "m.png")
    expected = np.zeros((16, 16), bool)
    expected[:, 4:8] = True
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", 16, (16, 16), "m"), expected)


def meta(root, rows, header="id,group"):
    (root / "meta.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def test_groups_join_by_path_and_stay_together(root):
    files = [path.relative_to(root).as_posix() for path in (root / "images").rglob("*.*")]
    meta(root, [f"{path},p{int(path[-6:-4]) // 2}" for path in files], "image,group")
    splits = build(root)
    seen = [set(part.groups) for part in (splits.train, splits.val, splits.test)]
    assert seen[0] | seen[1] | seen[2] == {"p0", "p1", "p2", "p3"}
    assert sum(map(len, seen)) == 4


def test_split_groups_is_stratified_and_blind_to_order():
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 150, 900)]
    labels = np.array([int(g[1:]) % 3 for g in groups])
    options = {"classes": "abc", "shares": (0.6, 0.15, 0.25), "seed": 3, "where": "here"}
    place = split_groups(groups, labels, **options)
    assert all(len({p for p, h in zip(place, groups, strict=True) if h == g}) == 1 for g in set(groups))
    for label in range(3):
        share = np.bincount(place[labels == label]) / (labels == label).sum()
        np.testing.assert_allclose(share, (0.6, 0.15, 0.25), atol=0.03)
    turned = rng.permutation(900)
    np.testing.assert_array_equal(split_groups([groups[i] for i in turned], labels[turned], **options), place[turned])


def test_three_groups_of_a_class_reach_all_three_splits():
    groups, labels = ["a"] * 40 + ["b"] + ["c"] * 5 + list("defghij"), np.array([0] * 46 + [1] * 7)
    place = split_groups(groups, labels, "xy", (0.6, 0.15, 0.25), seed=0, where="here")
    assert place[0] == 0  # the giant group goes to the largest split
    assert all(set(place[labels == label]) == {0, 1, 2} for label in (0, 1))


def test_unlabelled_images_never_hold_a_held_out_image(root, tmp_path):
    extra = tmp_path / "extra"
    (extra / "deep").mkdir(parents=True)
    for path in (root / "images/bad").iterdir():
        (extra / "deep" / path.name).write_bytes(path.read_bytes())
    save(extra / "new.png", (1, 2, 3))
    splits = build(root, unlabelled=str(extra))
    held_out = int((splits.val.labels == 0).sum() + (splits.test.labels == 0).sum())
    assert held_out > 0
    assert len(splits.unlabelled) == 9 - held_out
    assert splits.origin["unlabelled_left_out"] == held_out


def test_files_of_file_browsers_are_ignored(root):
    expected = build(root).train.ids
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._00.png"):
        (root / "images/good" / name).write_text("no image")
    (root / "images/.ipynb_checkpoints").mkdir()
    assert build(root).train.ids == expected


def rename_images(root):
    (root / "images").rename(root / "pictures")


def empty_class(root):
    (root / "images/ugly").mkdir()


def one_class(root):
    for path in (root / "images/good").iterdir():
        path.unlink()
    (root / "images/good").rmdir()


def truncate(root):
    path = root / "images/bad/03.png"
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-150])


def no_image(root):
    (root / "images/good/04.jpg").write_text("not an image")


def text_file(root):
    (root / "images/good/notes.txt").write_text("notes")


def stray_mask(root):
    save(root / "masks/bad/99.png", 255, mode="L")


def other_size(root):
    save(root / "masks/bad/02.png", 255, size=(10, 12), mode="L")


def twice(root):
    save(root / "images/bad/01.bmp", (1, 1, 1))


def jpeg_mask(root):
    save(root / "masks/bad/02.jpg", 255, mode="L")


def negative(root):
    Image.new("F", (12, 10), -1.0).save(root / "images/bad/neg.tif")


def no_group(root):
    meta(root, [f"images/bad/{i:02d}.png,a{i}" for i in range(8)], "image,group")


def empty_group(root):
    files = [path.relative_to(root).as_posix() for path in (root / "images").rglob("*.*")]
    meta(root, [f"{path},{'' if path.endswith('05.png') else 'a'}" for path in files], "image,group")


def ambiguous(root):
    meta(root, [f"{i:02d},g{i}" for i in range(8)])


def listed_twice(root):
    meta(root, ["images/bad/00.png,a", "images/bad/00.png,b"], "image,group")


def no_key(root):
    meta(root, ["a"], "group")


def two_groups(root):
    meta(
        root,
        [f"images/{c}/{i:02d}.{s},g{i % 2}" for c, s in (("bad", "png"), ("good", "jpg")) for i in range(8)],
        "image,group",
    )


MISTAKES = {
    rename_images: "no folder 'images'",
    empty_class: "ugly is empty",
    one_class: "1 class folder",
    truncate: r"03\.png cannot be read",
    no_image: r"04\.jpg cannot be read",
    text_file: r"notes\.txt is not an image",
    stray_mask: r"99\.png has no image",
    other_size: r"02\.png is 10 x 12 pixels but its image .*02\.png is 12 x 10",
    twice: "same id '01'",
    jpeg_mask: r"02\.jpg is not a mask",
    negative: r"neg\.tif has negative",
    no_group: r"no group for 'images/good/00\.jpg'",
    empty_group: r"no group for 'images/bad/05\.png'",
    ambiguous: "'00' twice",
    listed_twice: r"lists 'images/bad/00\.png' twice",
    no_key: "neither 'id'",
    two_groups: r"2 group\(s\)",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_a_mistake_is_one_sentence_that_names_it(root, mistake):
    mistake(root)
    with pytest.raises(UserError, match=MISTAKES[mistake]) as caught:
        build(root)
    assert "\n" not in str(caught.value)


def test_shares_must_add_up(root):
    with pytest.raises(UserError, match=r"add up to 0\.9"):
        build(root, train=0.5)


def test_unlabelled_may_not_hold_the_labelled(root):
    with pytest.raises(UserError, match="folder of their own"):
        build(root, unlabelled=str(root))


@pytest.mark.parametrize("name", ["driving_roadsign", "medical_bccd", "defect_magtile"])
def test_real_images(name):
    root = SHARED / name
    if not root.is_dir():
        pytest.skip(f"no real images at {root}")
    splits = build(root)
    parts = [splits.train, splits.val, splits.test]
    total = sum(len(part.ids) for part in parts)
    assert total == len(list((root / "images").rglob("*.*")))
    assert sum(int(part.masks.any((1, 2)).sum()) for part in parts) == len(list((root / "masks").rglob("*.png")))
    assert sum(len(set(part.groups)) for part in parts) == len(set().union(*(part.groups for part in parts)))
    for part, share in zip(parts, (0.6, 0.15, 0.25), strict=True):
        for label in range(len(splits.classes)):
            of_class = sum((p.labels == label).sum() for p in parts)
            assert (part.labels == label).sum() / of_class == pytest.approx(share, abs=0.1)
    digests = [{hashlib.sha256(image.tobytes()).digest() for image in part.images} for part in parts]
    assert not digests[0] & digests[2]
