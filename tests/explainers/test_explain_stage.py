"""Stage 4 end to end on a tiny checkpoint: index, cache, failures, skips."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from unmask import explain, files, registry, sampling
from unmask.config import Config
from unmask.errors import UserError
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.classifier import build
from unmask.models.vit import Classifier

WHO = {"domain": "toy", "encoder": "scratch", "pretrain_seed": 0, "finetune_seed": 0}
ARCHITECTURE = {"size": 32, "patch": 8, "width": 16, "depth": 2, "heads": 2, "classes": 3, "pooling": "avg"}
RESNET = {"arch": "resnet", "size": 32, "patch": 8, "classes": 3, "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
DOMAIN = """META = {"kind": "domains", "summary": "x"}


def build(options, *, size, seed):
    raise NotImplementedError
"""
METRIC = """META = {
    "kind": "metrics", "category": "x", "direction": "higher", "needs": [], "passes": {}, "citation": "none",
}


def score(case):
    raise NotImplementedError
"""
EXPLAINER = '''"""A user's own."""
import torch
META = {"kind": "explainers", "family": "own", "class_specific": False, "signed": True, "resolution": "patch",
        "architectures": ["vit"], "passes": {"forward": "0", "backward": "0"}, "citation": "none"}


def explain(model, images, targets, *, generator, removal=None):
    BODY
'''
BODIES = {
    "raising": 'raise RuntimeError("two\\n  lines")',
    "flat": "return torch.ones(len(images), 4, 4)",
    "nothing": "return torch.zeros(len(images), 4, 4)",
    "infinite": "return torch.full((len(images), 4, 4), 1.0).index_fill(0, torch.tensor([1]), float('nan')).cumsum(2)",
    "misshapen": "return torch.rand(len(images), 3, 3, generator=generator)",
    "wide": "return torch.rand(len(images), 4, 4, generator=generator, dtype=torch.float64)",
}


class Bench:
    """A benchmark of one model in a folder."""

    def __init__(self, folder, with_mask_token=False, architecture=ARCHITECTURE):
        self.folder, self.results = folder, folder / "results"
        rng, layout = np.random.default_rng(0), Layout(self.results)
        labels = np.array([0] * 6 + [1] * 4 + [2] * 2)
        masks = rng.random((12, 32, 32)) < 0.1
        masks[labels == 2] = False
        images = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        data = layout.domain("toy")
        files.write_arrays(
            data / "test.safetensors",
            {"images": images, "labels": labels, "masks": masks, "shortcut": np.zeros_like(masks)},
        )
        ids = [f"test-{i:04d}" for i in range(12)]
        files.write_table(data / "test.csv", pd.DataFrame({"image_id": ids, "label": labels}))
        torch.manual_seed(0)
        model = build(architecture)
        if with_mask_token:
            model.mask_token = torch.nn.Parameter(torch.randn(1, 1, 16))
        self.checkpoint = layout.model(explain.ModelId(*WHO.values())) / "model.safetensors"
        checkpoint.save(self.checkpoint, model.state_dict(), {"architecture": architecture, "mask_ratio": None})
        self.maps = layout.maps(explain.ModelId(*WHO.values()))
        self.plugins = [self.plugin("toy", DOMAIN), self.plugin("any_metric", METRIC)]
        self.plugins += [self.plugin(name, EXPLAINER.replace("BODY", body)) for name, body in BODIES.items()]

    def plugin(self, name, text):
        path = self.folder / f"{name}.py"
        path.write_text(text)
        return str(path)

    def config(self, *entries, **given):
        return Config(
            {
                "results": str(self.results),
                "plugins": self.plugins,
                "device": "cpu",
                "domains": {"toy": None},
                "encoders": {"scratch": {"method": "scratch"}},
                "image": {"size": 32, "patch": 8},
                "explain": {
                    "images": 7,
                    "groups": {"some": list(entries)},
                    "options": {"rise": {"masks": 16}},
                    **given,
                },
                "score": {"metrics": ["any_metric"]},
            }
        )

    def run(self, *entries, **given):
        for name in [name for name in sys.modules if name.startswith("unmask_plugin_")]:
            del sys.modules[name]  # as in a process of its own
        explain.run(self.config(*entries, **given), **WHO, group="some")
        return files.read_json(self.maps / "some.json")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_the_index_says_what_was_explained_and_what_it_cost(bench):
    index = bench.run("saliency", "rise", "occlusion@zero", "random_patch")
    assert index["group"] == "some"
    assert index["model"] == {**WHO, "mask_ratio": None, "sha256": files.sha256(bench.checkpoint)}
    test = files.read_arrays(bench.results / "1_data/toy/test.safetensors")
    model, _ = checkpoint.load_classifier(bench.checkpoint)
    for image in index["images"]:
        row = image["index"]
        assert image["image_id"] == f"test-{row:04d}"
        assert image["label"] == test["labels"][row]
        pixels = torch.from_numpy(test["images"][row]).permute(2, 0, 1)[None] / 255
        assert image["prediction"] == model(pixels).argmax()
        assert image["correct"] == (image["prediction"] == image["label"])
    by_name = {record["name"]: record for record in index["explainers"]}
    assert list(by_name) == ["saliency", "rise", "occlusion@zero", "random_patch"]
    occlusion = by_name["occlusion@zero"]
    assert occlusion["seconds"] > 0
    assert -1 <= occlusion["target_correlation"] < 1
    path = bench.maps / "occlusion@zero.safetensors"
    assert {**occlusion, "seconds": None, "target_correlation": None} == {
        "name": "occlusion@zero",
        "plugin": "occlusion",
        "family": "perturbation",
        "is_control": False,
        "class_specific": True,
        "signed": True,
        "resolution": "patch",
        "removal": "zero",
        "file": path.name,
        "sha256": files.sha256(path),
        "passes": {"forward": 7 * 17, "backward": 0},
        "seconds": None,
        "target_correlation": None,
        "failed": {},
        "error": None,
        "status": "ok",
        "alias_of": None,
    }
    assert by_name["rise"]["removal"] == "mean"
    assert by_name["rise"]["passes"] == {"forward": 7 * 16, "backward": 0}
    assert by_name["saliency"]["passes"] == {"forward": 0, "backward": 7}
    assert by_name["random_patch"]["is_control"]
    maps = {name: files.read_arrays(bench.maps / record["file"])["maps"] for name, record in by_name.items()}
    assert {name: (array.shape, str(array.dtype)) for name, array in maps.items()} == {
        "saliency": ((7, 32, 32), "float32"),
        "rise": ((7, 4, 4), "float32"),
        "occlusion@zero": ((7, 4, 4), "float32"),
        "random_patch": ((7, 4, 4), "float32"),
    }


def test_images_are_balanced_in_every_prefix_and_the_same_for_any_number(bench):
    labels = np.array([0] * 6 + [1] * 4 + [2] * 2)
    chosen = sampling.choose(labels, 9, np.random.default_rng(1))
    assert labels[chosen].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0]
    assert sampling.choose(labels, 4, np.random.default_rng(1)) == chosen[:4]
    assert sorted(sampling.choose(labels, 50, np.random.default_rng(1))) == list(range(12))
    few = [image["image_id"] for image in bench.run("centre", images=3)["images"]]
    assert [image["image_id"] for image in bench.run("centre", images=8)["images"]][:3] == few


def test_a_rerun_and_a_new_explainer_reuse_what_is_there(bench, capsys):
    first = bench.run("rise", "saliency")
    contents = {path.name: path.read_bytes() for path in bench.maps.glob("*.safetensors")}
    capsys.readouterr()
    second = bench.run("rise", "saliency", "smoothgrad")
    assert {name: (bench.maps / name).read_bytes() for name in contents} == contents
    assert second["explainers"][:2] == first["explainers"]
    assert second["explainers"][2]["passes"] == {"forward": 0, "backward": 7 * 16}
    assert capsys.readouterr().out.count("kept") == 2


def test_maps_do_not_depend_on_the_rest_of_the_group(bench):
    bench.run("rise", "random_pixel")
    before = files.read_arrays(bench.maps / "random_pixel.safetensors")["maps"]
    (bench.maps / "random_pixel.safetensors").unlink()
    bench.run("random_pixel", "random_patch")
    assert np.array_equal(files.read_arrays(bench.maps / "random_pixel.safetensors")["maps"], before)


def test_what_a_cell_depends_on_makes_it_anew(bench, capsys):
    def kept(*entries, **given):
        capsys.readouterr()
        bench.run(*entries, **given)
        return [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if ": kept" in line]

    bench.run("rise", "saliency")
    assert kept("rise", "saliency") == ["rise", "saliency"]
    assert kept("rise", "saliency", options={"rise": {"masks": 8}}) == ["saliency"]
    assert kept("rise", "saliency", images=6, options={"rise": {"masks": 8}}) == []
    (bench.maps / "rise.safetensors").write_bytes(b"cut short")
    assert kept("rise", "saliency", images=6, options={"rise": {"masks": 8}}) == ["saliency"]
    checkpoint.save(bench.checkpoint, Classifier(**ARCHITECTURE).state_dict(), {"architecture": ARCHITECTURE})
    assert kept("rise", "saliency", images=6, options={"rise": {"masks": 8}}) == []


def test_editing_one_explainer_changes_its_cell_alone(bench):
    entries = ("flat", "nothing", "rise", "rise@zero")

    def keys():
        settings = explain.settings(bench.config(*entries), **WHO, group="some")
        return {cell["entry"]: cell["code"] for cell in settings["cells"]}

    before = keys()
    bench.plugin("flat", EXPLAINER.replace("BODY", "return torch.full((len(images), 4, 4), 2.0)"))
    changed = keys()
    assert [name for name in entries if before[name] != changed[name]] == ["flat"]
    assert before["rise"] != before["rise@zero"]


def test_failures_cost_their_own_cell_and_say_why(bench):
    index = bench.run(*BODIES, "oracle", "saliency")
    cells = {record["name"]: record for record in index["explainers"]}
    ids = [image["image_id"] for image in index["images"]]
    assert {name: (record["status"], record["error"]) for name, record in cells.items()} == {
        "raising": ("failed", "RuntimeError: two lines"),
        "flat": ("ok", None),
        "nothing": ("ok", None),
        "infinite": ("ok", None),
        "misshapen": ("failed", "ValueError: explain() returned maps of shape (7, 3, 3); they must be (7, 4, 4)"),
        "wide": ("failed", "TypeError: explain() returned maps of torch.float64; they must be torch.float32"),
        "oracle": ("ok", None),
        "saliency": ("ok", None),
    }
    assert cells["flat"]["failed"] == dict.fromkeys(ids, "the map is constant")
    assert cells["nothing"]["failed"] == dict.fromkeys(ids, "the map is all zero")
    assert cells["infinite"]["failed"] == {ids[1]: "the map is not finite"}
    without = [image["image_id"] for image in index["images"] if image["label"] == 2]
    assert cells["oracle"]["failed"] == dict.fromkeys(without, "no evidence mask")
    assert len(without) == 2
    assert cells["raising"]["file"] is None
    assert not (bench.maps / "raising.safetensors").exists()
    assert bench.run(*BODIES, "oracle", "saliency")["explainers"] == index["explainers"]


def test_an_explainer_that_fails_now_leaves_no_old_maps(bench):
    bench.plugin("raising", EXPLAINER.replace("BODY", "return torch.rand(len(images), 4, 4, generator=generator)"))
    assert bench.run("raising")["explainers"][0]["status"] == "ok"
    bench.plugin("raising", EXPLAINER.replace("BODY", "raise RuntimeError('later')"))
    record = bench.run("raising")["explainers"][0]
    assert (record["status"], record["error"], record["file"]) == ("failed", "RuntimeError: later", None)
    assert not (bench.maps / "raising.safetensors").exists()


@pytest.mark.parametrize("with_mask_token", [False, True])
def test_the_mask_token_is_skipped_where_there_is_none(tmp_path, with_mask_token):
    index = Bench(tmp_path, with_mask_token).run("rise@mask_token", "rise")
    record, other = index["explainers"]
    assert other["status"] == "ok"
    assert record["removal"] == "mask_token"
    if with_mask_token:
        assert (record["status"], record["error"]) == ("ok", None)
    else:
        assert record["status"] == "skipped"
        assert record["error"].startswith("the removal mask_token needs a mask token")
        assert record["file"] is None


def test_a_constant_map_is_refused(bench):
    """The control is there to show that it is."""
    index = bench.run("constant", "random_patch")
    refused, other = index["explainers"]
    assert (refused["status"], refused["is_control"]) == ("ok", True)
    assert refused["failed"] == {image["image_id"]: "the map is constant" for image in index["images"]}
    assert other["failed"] == {}


def test_a_map_that_varies_by_rounding_alone_is_constant():
    one = np.linspace(1 - 4e-7, 1 + 4e-7, 16, dtype=np.float32).reshape(4, 4)
    assert one.min() < one.max()
    assert explain.degenerate(one) == explain.degenerate(-1e-9 * one) == "the map is constant"
    assert explain.degenerate(one + 1e-5 * np.eye(4, dtype=np.float32)) is None
    assert explain.degenerate(1e-9 * np.eye(4, dtype=np.float32)) is None


def test_an_explainer_that_hangs_costs_its_own_cell(bench):
    bench.plugin("raising", EXPLAINER.replace("BODY", "import time; time.sleep(60)"))
    hanging, other = bench.run("raising", "random_patch", time_limit=0.5)["explainers"]
    assert hanging["status"] == "failed"
    assert hanging["error"] == "TimeoutError: took longer than 0.5 s (explain.time_limit)"
    assert other["status"] == "ok"


def test_what_needs_pretraining_is_skipped_without(bench):
    cells = {record["name"]: record for record in bench.run("reconstruction_error", "rise@inpaint")["explainers"]}
    assert {name: (cell["status"], cell["error"], cell["alias_of"]) for name, cell in cells.items()} == {
        "reconstruction_error": (
            "skipped",
            "the explainer reconstruction_error needs the encoder's pretraining network, and this encoder has none",
            None,
        ),
        "rise@inpaint": (
            "skipped",
            "the removal inpaint needs the encoder's pretraining network, and this encoder has none",
            None,
        ),
    }


def test_a_resnet_is_explained_by_what_applies_to_it(tmp_path):
    index = Bench(tmp_path, architecture=RESNET).run(
        "saliency", "embedding", "occlusion", "occlusion@token_drop", "chefer", "grad_cam", "centre"
    )
    cells = {record["name"]: record for record in index["explainers"]}
    assert {name: cell["error"] for name, cell in cells.items() if cell["status"] == "skipped"} == {
        "occlusion@token_drop": "the removal token_drop does not apply to the architecture resnet",
        "chefer": "the explainer chefer does not apply to the architecture resnet",
    }
    assert {name for name, cell in cells.items() if cell["status"] == "ok" and not cell["failed"]} == {
        "saliency",
        "embedding",
        "occlusion",
        "centre",
    }
    # 32 pixels end as a single position, of which no class activation map can be made.
    assert len(cells["grad_cam"]["failed"]) == 7
    assert set(cells["grad_cam"]["failed"].values()) <= {"the map is constant", "the map is all zero"}
    assert cells["occlusion"]["passes"] == {"forward": 7 * 17, "backward": 0}


SLOPE = "images.mean((1, 2, 3)).reshape(-1, 1, 1) * torch.arange(16.0).reshape(1, 4, 4)"


def test_entries_with_the_same_maps_are_marked(bench):
    control = EXPLAINER.replace('"own"', '"control"')
    pixels = EXPLAINER.replace('"patch"', '"pixel"')
    given = {
        "flat": EXPLAINER.replace("BODY", f"return {SLOPE}"),
        "nothing": EXPLAINER.replace("BODY", f"return {SLOPE} * (1 + 5e-5)"),
        "infinite": EXPLAINER.replace("BODY", f"return {SLOPE} * (1 - 5e-5)"),
        "wide": EXPLAINER.replace("BODY", f"return {SLOPE} + 0.1 * torch.eye(4)"),
        "misshapen": pixels.replace("BODY", f"return ({SLOPE}).repeat_interleave(8, 1).repeat_interleave(8, 2)"),
        "toy_opposite": EXPLAINER.replace("BODY", f"return -{SLOPE}"),
        "toy_control": control.replace("BODY", f"return {SLOPE}"),
    }
    bench.plugins += [bench.plugin(name, text) for name, text in given.items() if name.startswith("toy_")]
    for name, text in given.items():
        bench.plugin(name, text)
    entries = ("toy_control", "flat", "raising", "nothing", "infinite", "wide", "misshapen", "toy_opposite")
    expected = dict.fromkeys(entries) | {"nothing": "flat", "infinite": "flat"}
    for _ in range(2):  # computed, then kept
        records = bench.run(*entries)["explainers"]
        assert {record["name"]: record["alias_of"] for record in records} == expected
    assert bench.run("nothing", "wide")["explainers"][0]["alias_of"] is None


def test_it_is_measured_whether_maps_depend_on_the_target(bench):
    specific = EXPLAINER.replace('"class_specific": False', '"class_specific": True')
    own = "sign = torch.where(targets == model(images).argmax(1), 1.0, -1.0).reshape(-1, 1, 1)\n    "
    given = {
        "flat": specific.replace("BODY", f"{own}return sign * {SLOPE}"),
        "nothing": specific.replace("BODY", f"return {SLOPE}"),
        "infinite": specific.replace("BODY", f"{own}return (sign + 1) * {SLOPE}"),
        "wide": EXPLAINER.replace("BODY", f"return {SLOPE}"),
    }
    for name, text in given.items():
        bench.plugin(name, text)
    for _ in range(2):  # computed, then kept
        records = {record["name"]: record for record in bench.run(*given)["explainers"]}
        # The other target's maps of "infinite" are all zero: nothing is left to compare.
        expected = {"flat": -1.0, "nothing": 1.0, "infinite": None, "wide": None}
        assert {name: record["target_correlation"] for name, record in records.items()} == expected
        assert records["flat"]["passes"] == {"forward": 7, "backward": 0}, "the check is no part of the cost"
    without = bench.run(*given, target_check=0)["explainers"]
    assert [record["target_correlation"] for record in without] == [None] * 4


def test_reference_images_come_from_the_training_split(bench, capsys):
    wants = EXPLAINER.replace('"citation"', '"needs": ["references"], "citation"').replace("removal=None", "references")
    wants = wants.replace("references):", "references, removal=None):")
    body = "return references.mean() * torch.arange(16.0).reshape(1, 4, 4).repeat(len(images), 1, 1) + len(references)"
    bench.plugin("flat", wants.replace("BODY", body))

    def maps_with(value, **given):
        train = np.full((5, 32, 32, 3), value, np.uint8)
        files.write_arrays(bench.results / "1_data/toy/train.safetensors", {"images": train})
        capsys.readouterr()
        records = bench.run("flat", "centre", **given)["explainers"]
        assert [record["status"] for record in records] == ["ok", "ok"]
        kept = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if ": kept" in line]
        return files.read_arrays(bench.maps / "flat.safetensors")["maps"][0].ravel(), kept

    maps, _ = maps_with(51, references=3)
    np.testing.assert_allclose(maps, 3 + 0.2 * np.arange(16), rtol=1e-5)
    assert maps_with(51, references=3)[1] == ["flat", "centre"]
    maps, kept = maps_with(102, references=3)
    np.testing.assert_allclose(maps, 3 + 0.4 * np.arange(16), rtol=1e-5)
    assert kept == ["centre"]
    maps, kept = maps_with(102, references=9)
    np.testing.assert_allclose(maps, 5 + 0.4 * np.arange(16), rtol=1e-5)
    assert kept == ["centre"]


def test_users_mistakes_are_one_sentence(bench):
    with pytest.raises(UserError, match="unknown group 'sone'; did you mean 'some'"):
        explain.run(bench.config("saliency"), **WHO, group="sone")
    with pytest.raises(UserError, match="does not exist; run the stage that writes it first"):
        explain.run(bench.config("saliency"), **{**WHO, "finetune_seed": 3}, group="some")


def test_settings_are_plain_and_cheap(bench):
    settings = explain.settings(bench.config("rise"), **WHO, group="some")
    assert json.loads(json.dumps(settings)) == settings
    assert settings["cells"][0]["removal"] == "mean"
    heavy = "import sys, unmask.explain; print([m for m in ('torch', 'timm', 'captum', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("kind", ["explainers", "removals"])
def test_list_shows_every_plugin(kind, bench, capsys):
    from unmask import list as listing

    listing.run(bench.config("saliency"), kind)
    header, *rows = capsys.readouterr().out.splitlines()
    known = registry.available(kind, bench.plugins)
    assert header.startswith("id")
    assert [row.split()[0] for row in rows] == sorted(known)
    for row, name in zip(rows, sorted(known), strict=True):
        assert known[name].meta["citation"] in row
