"""A pool of one's own: every image found and read as a folder domain's are, whatever is broken named."""

import io
import json
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_wds import ReaderWds

from unmask import cli, data, digest, pool
from unmask.config import Config
from unmask.domains._reading import Reader
from unmask.errors import UserError
from unmask.files import read_table, sha256, write_arrays
from unmask.layout import Layout

SIZE = 32


def picture(seed, size=(48, 40)):
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="jpeg", **options):
    handle = io.BytesIO()
    image.save(handle, kind, **options)
    return handle.getvalue()


@pytest.fixture
def folder(tmp_path):
    """An ImageFolder tree of seven images."""
    root = tmp_path / "tree"
    for i in range(7):
        path = root / f"class_{i % 2}" / ("deeper" if i == 3 else "") / f"{i}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i)))
    (root / "class_0" / "notes.txt").write_text("no image")
    (root / "class_0" / "._0.JPG").write_bytes(b"what macOS leaves")
    return root


@pytest.fixture
def shards(tmp_path):
    """Three shards of four, four and two samples."""
    root = tmp_path / "shards"
    root.mkdir()
    with webdataset.ShardWriter(str(root / "set-%03d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(10):
            image = {"jpg": encoded(picture(i))} if i % 3 else {"png": encoded(picture(i), "png")}
            writer.write({"__key__": f"a/{i:04d}", **image, "cls": str(i).encode(), "json": b"{}"})
    return root


def config(tmp_path, path, **given):
    """A config with a pool, and a domain whose held-out images are all black."""
    made = Config(
        {
            "results": str(tmp_path / "results"),
            "device": "cpu",
            "image": {"size": SIZE, "patch": 8},
            "domains": {"defect": {}},
            "encoders": {"half": {"method": "simmim", "mask_ratio": 0.5}},
            "pretrain": {"pool": {"path": str(path), "workers": 0, **given}},
            "explain": {"images": 4, "groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
        }
    )
    for split in ("val", "test"):
        write_arrays(
            Layout(made.results).domain("defect") / f"{split}.safetensors",
            {"images": np.zeros((2, SIZE, SIZE, 3), np.uint8)},
        )
    return made


def listed(made):
    data.run(made, pool=True)
    return pool.load(Layout(made.results).pool, made["pretrain"]["pool"]["path"])


def names(found):
    return [found.name(i) for i in range(len(found))]


def test_a_folder_has_the_images_that_timm_finds(tmp_path, folder):
    found, _ = listed(config(tmp_path, folder))
    timms = ReaderImageFolder(str(folder), input_key=".jpg").filenames()
    assert sorted(names(found)) == sorted(name for name in timms if "/._" not in name)
    assert len(found) == 7
    assert names(found) == sorted(names(found))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
def test_shards_have_the_images_that_timm_reads_from_them(tmp_path, shards):
    found, _ = listed(config(tmp_path, shards, kind="webdataset"))
    timms = {target: image for image, target in ReaderWds(str(shards), split="set-{000..002}.tar|10")}
    assert len(found) == len(timms) == 10
    assert names(found)[4] == "set-001.tar/a/0004.jpg"
    for i in range(10):
        with Image.open(io.BytesIO(found.read(i))) as image:
            assert np.array_equal(image.convert("RGB"), timms[i])


def test_of_a_sample_one_image_is_taken_and_tars_of_images_alone_serve_too(tmp_path):
    root = tmp_path / "tars"
    root.mkdir()
    with tarfile.open(root / "one.tar", "w") as tar:
        for name in ("b/x.seg.png", "b/x.png", "b/x.jpg", "b/x.txt", "b/._y.jpg", "b/y.tif", "b/z.JPEG"):
            kind = "png" if name.endswith("png") else "tiff" if name.endswith("tif") else "jpeg"
            content = encoded(picture(1), kind)
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    found, _ = listed(config(tmp_path, root, kind="webdataset"))
    assert names(found) == ["one.tar/b/x.jpg", "one.tar/b/y.tif", "one.tar/b/z.JPEG"]


def every_kind(root):
    root.mkdir()
    base = picture(3)
    base.save(root / "rgb.png")
    base.convert("L").save(root / "grey.png")
    base.convert("P").save(root / "palette.png")
    base.convert("CMYK").save(root / "cmyk.jpg")
    clear = base.convert("RGBA")
    clear.putalpha(Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48).astype(np.uint8)))
    clear.save(root / "rgba.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    base.save(root / "turned.jpg", exif=turned)
    for name, top in (("deep", 4095), ("dim", 900)):
        levels = np.linspace(0, top, 48 * 40).reshape(40, 48).astype(np.uint16)
        Image.fromarray(levels).save(root / f"{name}.png")


def test_every_kind_of_image_is_read_as_a_folder_domain_reads_it(tmp_path):
    root = tmp_path / "kinds"
    every_kind(root)
    found, _ = listed(config(tmp_path, root))
    reader = Reader(SIZE)
    for i in range(len(found)):
        reader.add(root / found.name(i))
    expected = reader.images()
    assert len(found) == 8
    for i in range(8):
        assert np.array_equal(found.pixels(i, SIZE), expected[i]), found.name(i)
        part = found.pixels(i, SIZE, (0.0, 0.0, 1.0, 1.0))
        assert np.abs(part.astype(int) - expected[i]).mean() < 6, "the same image by another filter"
    assert found.scale == 4095


def test_what_a_domain_holds_out_is_left_out_whatever_its_kind(tmp_path):
    root = tmp_path / "kinds"
    every_kind(root)
    made = config(tmp_path, root)
    reader = Reader(SIZE)
    for name in ("rgba.png", "deep.png", "dim.png"):
        reader.add(root / name)
    held = Layout(made.results).domain("defect") / "test.safetensors"
    write_arrays(held, {"images": reader.images()[:2]})
    found, counts = listed(made)
    assert counts == {"skipped": 0, "held_out": 2}
    assert not {"rgba.png", "deep.png"} & set(names(found))
    assert {"dim.png", "rgb.png"} < set(names(found))
    table = read_table(Layout(made.results).pool.with_suffix(".csv"))
    assert table[["source", "count"]].values.tolist() == [["images", 6], ["skipped", 0], ["held_out", 2]]


def test_the_list_is_the_same_for_any_number_of_processes(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(pool, "TOGETHER", 2)
    (folder / "class_0" / "broken.png").write_bytes(b"no image")
    made = config(tmp_path, folder, on_corrupt="skip")
    listed(made)
    path = Layout(made.results).pool
    alone = sha256(path)
    made["pretrain"]["pool"]["workers"] = 2
    listed(made)
    assert sha256(path) == alone


@pytest.mark.parametrize("broken", ["cut.jpg", "empty.png", "text.png", "nowhere.jpg"])
def test_a_broken_image_stops_with_its_name_or_is_skipped_and_counted(tmp_path, folder, broken, capsys):
    path = folder / "class_1" / broken
    if broken == "nowhere.jpg":
        path.symlink_to(folder / "gone.jpg")
    else:
        path.write_bytes({"cut.jpg": encoded(picture(1))[:500], "empty.png": b"", "text.png": b"text"}[broken])
    with pytest.raises(
        UserError, match=rf"class_1/{broken} cannot be read.*pretrain\.pool\.on_corrupt to skip"
    ) as caught:
        listed(config(tmp_path, folder))
    assert "\n" not in str(caught.value)
    assert not Layout(tmp_path / "results").pool.exists()
    found, counts = listed(config(tmp_path, folder, on_corrupt="skip"))
    assert (len(found), counts["skipped"]) == (7, 1)
    said = capsys.readouterr().out
    assert "7 images of" in said
    assert "1 skipped as corrupt" in said
    assert f"class_1/{broken} cannot be read" in said
    table = read_table(Layout(tmp_path / "results").pool.with_name("pool_skipped.csv"))
    assert list(table["file"]) == [f"class_1/{broken}"]


@pytest.mark.parametrize("cut", ["within an image", "between two files", "no tar"])
def test_a_shard_that_ends_early_stops_with_its_name_or_gives_what_is_whole(tmp_path, shards, cut):
    path = shards / "set-001.tar"
    with tarfile.open(path) as tar:
        third = next(one for one in tar if one.name.endswith("6.png"))
    whole = path.read_bytes()
    path.write_bytes(
        {
            "within an image": whole[: third.offset_data + 100],
            "between two files": whole[: third.offset],
            "no tar": b"text" * 1000,
        }[cut]
    )
    given = {"kind": "webdataset"}
    with pytest.raises(UserError, match=r"set-001\.tar is not a whole, uncompressed tar .*on_corrupt to skip"):
        listed(config(tmp_path, shards, **given))
    found, counts = listed(config(tmp_path, shards, **given, on_corrupt="skip"))
    kept = [name for name in names(found) if name.startswith("set-001")]
    assert kept == ([] if cut == "no tar" else ["set-001.tar/a/0004.jpg", "set-001.tar/a/0005.jpg"])
    assert len(found) == 6 + len(kept)
    assert counts["skipped"] == 1


def test_a_pool_that_is_not_there_or_empty_is_refused_with_the_config(tmp_path, folder, shards, capsys):
    for path, kind, words in (
        (tmp_path / "nowhere", "folder", ["pretrain.pool.path", "nowhere' does not exist"]),
        (shards, "folder", ["holds no images", "pretrain.pool.kind to webdataset"]),
        (folder, "webdataset", [r"holds no shards (*.tar)", "pretrain.pool.kind to folder"]),
    ):
        with pytest.raises(UserError) as caught:
            config(tmp_path, path, kind=kind)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(UserError, match=r"pretrain\.pool\.on_corrupt: 'ignore' is not allowed"):
        config(tmp_path, folder, on_corrupt="ignore")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**config(tmp_path, folder).data, "pretrain": {"pool": {"path": "nowhere"}}}))
    assert cli.main(["data", "--pool", "--config", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_pool_of_nothing_whole_says_what_became_of_it(tmp_path):
    root = tmp_path / "broken"
    root.mkdir()
    for i in range(3):
        (root / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"holds 0 images to pretrain on \(3 skipped, 0 held out"):
        listed(config(tmp_path, root, on_corrupt="skip"))


def test_labels_are_not_asked_of_images_that_have_none(tmp_path, folder):
    given = config(tmp_path, folder).data
    given["encoders"]["labels"] = {"method": "supervised"}
    with pytest.raises(UserError, match=r"encoders\.labels: it pretrains on labels, and .*pretrain\.pool"):
        Config(given)


def test_the_stage_runs_again_when_a_file_changes_and_not_for_more_processes(tmp_path, folder):
    made = config(tmp_path, folder)
    before = digest.of(data.settings(made, pool=True))
    made["pretrain"]["pool"]["workers"] = 7
    assert digest.of(data.settings(made, pool=True)) == before
    (folder / "class_0" / "0.JPG").write_bytes(encoded(picture(99)))
    assert digest.of(data.settings(made, pool=True)) != before


def test_the_list_of_another_pool_is_not_taken_for_this_one(tmp_path, folder):
    made = config(tmp_path, folder)
    write_arrays(Layout(made.results).pool, {"images": np.zeros((3, SIZE, SIZE, 3), np.uint8)})
    with pytest.raises(
        UserError, match=r"pool\.safetensors is not the list of pretrain\.pool; run `unmask data --pool`"
    ):
        pool.load(Layout(made.results).pool, folder)


def test_the_number_of_images_is_estimated_without_reading_them(folder, shards):
    assert pool.count(str(folder), "folder") == 8
    assert pool.count(str(shards), "webdataset") == 3 * 4
