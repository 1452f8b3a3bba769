"""Stage 1 as a whole: files, card, pool, determinism, the contract that plug-ins are held to."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unmask import data, interventions, registry
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table

FEW = {"train": 12, "val": 4, "test": 8, "unlabelled": 5}


class Settings:
    """What the stage asks of a config, without the plug-ins of other kinds."""

    def __init__(self, results, domains, size=32, seed=0):
        self.results = results
        self.sections = {"domains": domains, "image": {"size": size}, "seed": seed, "pretrain": {}}

    def __getitem__(self, key):
        return self.sections[key]

    def domain(self, name):
        spec = dict(self["domains"][name])
        plugin = registry.find("domains", spec.pop("plugin", name))
        return plugin, {**plugin.options, **spec}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    domains = {"defect": FEW, "roads": {**FEW, "plugin": "driving", "shortcut": 1.0}}
    config = Settings(tmp_path_factory.mktemp("results"), domains)
    for name in config["domains"]:
        data.run(config, domain=name)
    data.run(config, pool=True)
    return config


def test_the_files_hold_to_the_contract(written):
    folder = written.results / "1_data" / "roads"
    for name in ("train", "val", "test"):
        arrays, table = read_arrays(folder / f"{name}.safetensors"), read_table(folder / f"{name}.csv")
        n = FEW[name]
        assert {key: (str(a.dtype), a.shape) for key, a in arrays.items()} == {
            "images": ("uint8", (n, 32, 32, 3)),
            "labels": ("int64", (n,)),
            "masks": ("bool", (n, 32, 32)),
            "shortcut": ("bool", (n, 32, 32)),
            "concepts/house": ("bool", (n, 32, 32)),
            "concepts/box": ("bool", (n, 32, 32)),
        }
        assert list(table) == ["image_id", "label", "class", "group", "evidence_fraction"]
        np.testing.assert_array_equal(table["label"], arrays["labels"])
        np.testing.assert_array_equal(table["evidence_fraction"], arrays["masks"].mean((1, 2)))
        classes = read_json(folder / "card.json")["classes"]
        assert [classes[label] for label in arrays["labels"]] == table["class"].tolist()
    with Image.open(folder / "preview.png") as preview:
        assert preview.width > 1000
        assert np.asarray(preview.convert("L")).std() > 20


def test_the_card_counts_what_is_in_the_files(written):
    folder = written.results / "1_data" / "roads"
    card = read_json(folder / "card.json")
    arrays = {name: read_arrays(folder / f"{name}.safetensors") for name in ("train", "val", "test")}
    assert card["classes"] == ["none", "stop", "yield", "mandatory"]
    assert card["counts"] == {name: dict.fromkeys(card["classes"], FEW[name] // 4) for name in arrays}
    assert card["unlabelled"] == 5
    assert card["shortcut"] == {"train": 12, "val": 4, "test": 8}
    areas = np.concatenate([a["masks"][a["labels"] == 1].mean((1, 2)) for a in arrays.values()])
    assert card["evidence"]["stop"] == {
        "images": 6,
        "mean": pytest.approx(areas.mean()),
        "min": areas.min(),
        "max": areas.max(),
    }
    assert card["evidence"]["none"] == {"images": 0}
    boxes = np.concatenate([a["concepts/box"].mean((1, 2)) for a in arrays.values()])
    assert list(card["concepts"]) == ["house", "box"]
    assert card["concepts"]["box"] == {
        "images": int((boxes > 0).sum()),
        "mean": pytest.approx(boxes[boxes > 0].mean()),
        "min": boxes[boxes > 0].min(),
        "max": boxes.max(),
    }
    assert set(card["origin"]["textures"]) == {"brick", "grass", "gravel"}
    assert card["options"]["shortcut"] == 1.0
    factors = interventions.read(folder / "interventions.safetensors")
    assert card["factors"] == {name: int(factor.present.sum()) for name, factor in factors.items()}
    assert card["factors"]["tag"] == card["factors"]["background"] == FEW["test"]


def test_the_pool_holds_train_and_unlabelled_images_and_no_other(written):
    root = written.results / "1_data"
    pool = [image.tobytes() for image in read_arrays(root / "pool.safetensors")["images"]]
    wanted, forbidden = [], set()
    for name in written["domains"]:
        for split in ("train", "unlabelled"):
            wanted += [image.tobytes() for image in read_arrays(root / name / f"{split}.safetensors")["images"]]
        for split in ("val", "test"):
            forbidden |= {image.tobytes() for image in read_arrays(root / name / f"{split}.safetensors")["images"]}
    assert pool == wanted
    assert not forbidden & set(pool)
    table = pd.read_csv(root / "pool.csv")
    assert table.values.tolist() == [
        ["defect", "train", 12],
        ["defect", "unlabelled", 5],
        ["roads", "train", 12],
        ["roads", "unlabelled", 5],
    ]


def test_the_same_config_gives_the_same_bytes(written, tmp_path):
    again = Settings(tmp_path, {"defect": FEW})
    data.run(again, domain="defect")
    folders = [c.results / "1_data/defect" for c in (written, again)]
    hashes = [{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in f.iterdir()} for f in folders]
    assert len(hashes[0]) == 10
    assert hashes[0] == hashes[1]


def test_the_card_names_the_arrays(written, tmp_path):
    card = read_json(written.results / "1_data/defect/card.json")
    other = Settings(tmp_path, {"defect": FEW}, seed=1)
    data.run(other, domain="defect")
    changed = read_json(tmp_path / "1_data/defect/card.json")
    assert {key for key in card if card[key] != changed[key]} == {"sha256", "seed", "evidence", "concepts", "factors"}


def test_settings_follow_options_and_files(tmp_path):
    (tmp_path / "set/images").mkdir(parents=True)
    image = tmp_path / "set/images/x.png"
    image.write_bytes(b"one")
    config = Settings(tmp_path, {"mine": {"plugin": "folder", "path": str(tmp_path / "set")}, "medical": {}})
    before, proxy = data.settings(config, domain="mine"), data.settings(config, domain="medical")
    assert data.settings(config, domain="mine") == before
    image.write_bytes(b"three")
    changed = data.settings(config, domain="mine")
    assert {key for key in before if before[key] != changed[key]} == {"folders"}
    os.utime(image, ns=(1, 1))
    assert data.settings(config, domain="mine") != changed
    assert data.settings(config, domain="medical") == proxy
    config["domains"]["medical"]["difficulty"] = 0.9
    assert data.settings(config, domain="medical") != proxy
    assert data.settings(config, pool=True)["domains"] == ["mine", "medical"]


def test_settings_import_nothing_heavy():
    heavy = {"numpy", "pandas", "torch", "matplotlib", "PIL"}
    code = f"import sys, unmask.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_domain_is_named(tmp_path):
    with pytest.raises(UserError, match="'defects' is not in the config; did you mean 'defect'"):
        data.run(Settings(tmp_path, {"defect": FEW}), domain="defects")


def test_the_pool_needs_every_domain(tmp_path):
    with pytest.raises(UserError, match="does not exist; run the stage"):
        data.run(Settings(tmp_path, {"defect": FEW}), pool=True)


BREACHES = {
    "float": (lambda s: {"images": s.images.astype(float)}, " images are float64"),
    "masks": (lambda s: {"masks": s.masks[:, :16]}, r" masks are bool \[12, 16, 32\]"),
    "class": (lambda s: {"labels": s.labels * 0}, " has no image of class scratch, hole, stain"),
    "label": (lambda s: {"labels": np.append(s.labels[:-1], 4)}, "outside 0 to 3"),
    "twice": (lambda s: {"ids": ["x"] * len(s.ids)}, "occurs twice"),
    "ids": (lambda s: {"ids": s.ids[1:]}, "12 images but 11 ids"),
    "concept": (lambda s: {"concepts": {"pit": s.masks * 1.0}}, " concept 'pit' are float64"),
    "concepts": (lambda s: {"concepts": {"pit": s.masks}}, " concept 'pit' overlaps the evidence"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_plugin_that_breaks_the_contract_is_told(breach):
    plugin = registry.find("domains", "defect")
    splits = plugin.load().build({**plugin.options, **FEW}, size=32, seed=0)
    data.check(splits, 32, "domains.mine")
    change, said = BREACHES[breach]
    broken = dataclasses.replace(splits, train=dataclasses.replace(splits.train, **change(splits.train)))
    with pytest.raises(UserError, match=rf"^domains\.mine: train.*{said}"):
        data.check(broken, 32, "domains.mine")


def test_a_split_with_other_concepts_is_told():
    plugin = registry.find("domains", "defect")
    splits = plugin.load().build({**plugin.options, **FEW}, size=32, seed=0)
    other = dataclasses.replace(splits.test, concepts={"pit": splits.test.concepts["pit"]})
    with pytest.raises(UserError, match="test has other concepts than train; give every split the same"):
        data.check(dataclasses.replace(splits, test=other), 32, "domains.mine")


def test_a_group_in_two_splits_is_told():
    plugin = registry.find("domains", "defect")
    splits = plugin.load().build({**plugin.options, **FEW}, size=32, seed=0)
    leaking = dataclasses.replace(splits.test, groups=[splits.train.groups[0], *splits.test.groups[1:]])
    with pytest.raises(UserError, match="test: the group 'train-00000' is also in train"):
        data.check(dataclasses.replace(splits, test=leaking), 32, "domains.mine")
