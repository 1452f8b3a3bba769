"""Every mistake in a config is one sentence that names the key, and exit code 2."""

import copy
from pathlib import Path

import pytest
import yaml

from unmask.cli import main
from unmask.config import Config, load
from unmask.encoders import masked_cells
from unmask.errors import UserError

ROOT = Path(__file__).parents[2]
BASE = yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(path: str, value):
    """The default config with one key set, or removed where value is None."""
    data = copy.deepcopy(BASE)
    *parents, last = path.split("/")
    node = data
    for key in parents:
        node = node.setdefault(key, {})
    if value is None:
        del node[last]
    else:
        node[last] = value
    return data


@pytest.mark.parametrize("name", ["config.yaml", "config/smoke.yaml", "config/models.yaml", "config/seeds.yaml"])
def test_shipped_configs_are_sound(name):
    config = load(ROOT / name)
    assert len({config.mask_ratio(e) for e in config.pretrained}) >= 3
    assert "scratch" in config["encoders"]


def test_the_shortcut_config_plants_a_tag_and_asks_who_finds_it():
    config = load(ROOT / "config/shortcut.yaml")
    assert [config.domain(name)[1]["shortcut"] for name in config["domains"]] == [0.9]
    assert "shortcut_detection" in config["score"]["metrics"]
    assert config["inside"]["what"] == ["causes"]


def test_the_missingness_config_fine_tunes_one_pretraining_in_three_ways():
    config = load(ROOT / "config/missingness.yaml")
    assert {config.pretraining_of(name) for name in config["encoders"]} == {"simmim_60"}
    assert [config.missing(name) for name in config["encoders"]] == [None, "mask_token", "token_drop"]
    assert "missingness" in config["inside"]["what"]


def test_the_pool_config_reads_images_from_where_a_user_has_them(tmp_path, monkeypatch):
    (tmp_path / "my_pool/deeper").mkdir(parents=True)
    (tmp_path / "my_pool/deeper/one.jpg").write_bytes(b"an image, as far as its name says")
    monkeypatch.chdir(tmp_path)
    config = load(ROOT / "config/pool.yaml")
    assert config["pretrain"]["pool"] == {"path": "my_pool", "kind": "folder", "on_corrupt": "skip", "workers": 2}
    assert config.pretraining_of("simmim_60_aware") == "simmim_60"


def test_real_sample_differs_from_the_default_in_data_and_budgets_only():
    # Read without the check that its folders exist: the images are not part of the repository.
    filled, real = Config(BASE).data, yaml.safe_load((ROOT / "config/real-sample.yaml").read_text())
    real = Config({**real, "domains": BASE["domains"]}).data
    assert {key for key in filled if filled[key] != real[key]} <= {
        "results",
        "pretrain",
        "finetune",
        "explain",
        "score",
    }
    assert real["explain"] == {**filled["explain"], "images": 12}
    assert {key for key in filled["score"] if filled["score"][key] != real["score"][key]} == {"metrics"}
    # Photographs cannot be rendered again with one factor changed.
    assert set(filled["score"]["metrics"]) - set(real["score"]["metrics"]) == {"interventional_agreement"}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("encoders/simmim_30/target_window", 8, ["encoders.simmim_30.target_window", "no middle pixel", "such as 9"]),
        ("encoders/simmim_30/target_window", 9, ["encoders.simmim_30.target_window", "add target: normalised"]),
        ("explaners", {}, ["explaners", "did you mean 'explain'"]),
        ("image/sise", 64, ["image", "sise", "did you mean 'size'"]),
        ("explain/groups/standard", ["salency"], ["explain.groups.standard", "salency", "did you mean 'saliency'"]),
        ("explain/groups/more", ["rise"], ["rise", "standard", "once"]),
        ("explain/groups/standard", ["saliency@mean"], ["saliency", "removes nothing"]),
        ("explain/groups/standard", ["occlusion@maen"], ["maen", "did you mean 'mean'"]),
        ("explain/groups/standard", [], ["explain.groups.standard", "empty"]),
        ("explain/groups", {}, ["explain.groups", "empty"]),
        ("explain/options", {"rise": {"mask": 9}}, ["explain.options.rise", "mask", "did you mean 'masks'"]),
        ("explain/options", {"rise": {"masks": "many"}}, ["explain.options.rise.masks", "'many'", "int"]),
        ("score/metrics", ["pointing_gam"], ["score.metrics", "did you mean 'pointing_game'"]),
        ("score/metrics", ["sparseness", "sparseness"], ["score.metrics", "twice"]),
        ("score/metrics", [], ["score.metrics", "empty"]),
        ("score/removals", ["mask_tokn"], ["score.removals", "did you mean 'mask_token'"]),
        ("score/options", {"sparseness": {"images": 0}}, ["score.options.sparseness.images", "0"]),
        ("domains", {}, ["domains", "empty"]),
        ("domains", {"medicl": {}}, ["domains.medicl", "did you mean 'medical'"]),
        ("domains", {"medical": {"trian": 9}}, ["domains.medical", "did you mean 'train'"]),
        (
            "domains",
            {"mine": {"plugin": "folder", "path": "nowhere"}},
            ["domains.mine.path", "'nowhere'", "does not exist"],
        ),
        ("domains", {"../up": {"plugin": "medical"}}, ["../up", "name"]),
        ("encoders", {}, ["encoders", "empty"]),
        ("encoders/simmim_60", {"method": "simmin", "mask_ratio": 0.6}, ["simmin", "did you mean 'simmim'"]),
        ("encoders/simmim_60", {"method": "simmim"}, ["encoders.simmim_60", "mask_ratio"]),
        ("encoders/scratch", {"method": "scratch", "mask_ratio": 0.5}, ["encoders.scratch", "remove"]),
        ("encoders/conv", {"method": "resnet18", "mask_ratio": 0.5}, ["encoders.conv.mask_ratio", "remove"]),
        ("encoders/conv", {"method": "resnet"}, ["encoders.conv.method", "did you mean 'resnet18'"]),
        ("encoders/other", {"method": "simmim", "mask_ratio": 0.601}, ["simmim_60", "effective ratio", "same"]),
        ("encoders/all", {"method": "simmim", "mask_ratio": 0.99}, ["encoders.all.mask_ratio", "masks all 64"]),
        ("image/size", 60, ["image.size", "60", "multiple of image.patch 8", "56"]),
        ("pretrain/mask_cell", 12, ["pretrain.mask_cell", "12", "multiple of image.patch"]),
        ("pretrain/mask_cell", 24, ["image.size", "multiple of pretrain.mask_cell 24"]),
        ("pretrain/epochs", 0, ["pretrain.epochs", "0"]),
        ("pretrain/epochs", "ten", ["pretrain.epochs", "'ten'", "integer"]),
        ("pretrain/crop_scale", [1.0, 0.5], ["pretrain.crop_scale"]),
        ("pretrain/pool", {"kind": "folder"}, ["pretrain.pool", "'path' is missing"]),
        ("pretrain/pool", {"path": "no/such"}, ["pretrain.pool.path", "'no/such' does not exist"]),
        ("pretrain/pool", {"path": ".", "kind": "tar"}, ["pretrain.pool.kind", "'tar'"]),
        ("finetune/missing", "mask_token", ["finetune.missing", "scratch", "native", "encoders.scratch.missing"]),
        ("finetune/missing_share", 0.5, ["finetune.missing_share", "set finetune.missing"]),
        ("finetune/missing", True, ["finetune.missing", "True"]),
        ("model/heads", 5, ["model.width", "model.heads 5"]),
        ("plugins", ["no/such.py"], ["no/such.py", "does not exist"]),
        ("explain", None, ["'explain' is missing"]),
    ],
)
def test_each_mistake_is_one_sentence(path, value, words):
    with pytest.raises(UserError) as caught:
        Config(changed(path, value))
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_exit_code_2_and_no_traceback(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(changed("image/size", 60)))
    assert main(["check", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unmask: image.size")
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", ""])
def test_files_that_are_no_config(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        load(path)
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "absent.yaml")


def test_cells_are_rounded_up():
    # 64 px in cells of 32: four cells, so .1 and .25 are the same run, and .9 masks everything.
    assert [masked_cells(4, ratio) for ratio in (0.1, 0.25, 0.4, 0.5, 0.9)] == [1, 1, 2, 2, 4]
    assert masked_cells(36, 0.6) == 22  # Swin at 192 px
    assert masked_cells(49, 0.6) == 30  # ViT at 224 px


def test_effective_ratio_is_what_the_config_reports():
    config = Config(changed("encoders/simmim_60/mask_ratio", 0.6))
    assert config.mask_ratio("simmim_60") == 39 / 64
    assert config.mask_ratio("scratch") is None


def test_a_resnet_is_not_pretrained():
    config = Config(changed("encoders/conv", {"method": "resnet18"}))
    assert "conv" not in config.pretrained
    assert config.mask_ratio("conv") is None
    assert {model.encoder for model in config.models} == {*config.pretrained, "scratch", "conv"}


def test_options_of_an_entry_with_a_removal():
    data = changed("explain/options", {"rise": {"masks": 40}, "rise@zero": {"masks": 50}})
    data["explain"]["groups"]["more"] = ["rise@zero", "rise@blur"]
    config = Config(data)
    masks = {entry: config.explainer(entry).options["masks"] for entry in ("rise", "rise@zero", "rise@blur")}
    assert masks == {"rise": 40, "rise@zero": 50, "rise@blur": 40}
    assert [config.explainer(e).removal for e in ("rise", "rise@zero", "saliency")] == ["mean", "zero", None]


PLUGIN = '''"""Mine."""
META = {"kind": "explainers", "family": "gradient", "class_specific": True, "signed": False, "resolution": "pixel",
        "architectures": ["vit"], "passes": {"forward": "0", "backward": "0"}, "citation": "me"}


def explain(model, images, targets, *, generator, removal=None):
    return images.sum(1)
'''


def test_users_plugin_is_found_by_its_path(tmp_path):
    path = tmp_path / "brightness.py"
    path.write_text(PLUGIN)
    data = changed("plugins", [str(path)])
    data["explain"]["groups"]["mine"] = ["brightness"]
    spec = Config(data).explainer("brightness")
    assert spec.plugin.load().explain.__name__ == "explain"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("META =", "DATA =", "META"),
        ('"explainers"', '"explainer"', "must be one of"),
        ('"citation": "me"', '"cite": "me"', "lacks citation"),
        ("def explain", "def attribute", "must define the function explain"),
        ('"me"', "str(1)", "literal"),
        ("return images", "return return", "not valid Python"),
    ],
)
def test_broken_plugin_is_one_sentence(tmp_path, old, new, words):
    path = tmp_path / "broken.py"
    path.write_text(PLUGIN.replace(old, new))
    with pytest.raises(UserError, match=words) as caught:
        Config(changed("plugins", [str(path)]))
    assert "broken.py" in str(caught.value)


def test_plugin_may_not_shadow_an_embedded_one(tmp_path):
    path = tmp_path / "saliency.py"
    path.write_text(PLUGIN)
    with pytest.raises(UserError, match="'saliency'"):
        Config(changed("plugins", [str(path)]))
