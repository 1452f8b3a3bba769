"""`unmask explain-image`: from a model and a file to a picture sheet; every mistake is one sentence."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unmask import explain_image, files
from unmask.cli import main
from unmask.config import ModelId
from unmask.figures import gallery
from unmask.layout import Layout
from unmask.models import checkpoint
from unmask.models.classifier import build
from unmask.models.simmim import SimMIM, transfer

ROOT = Path(__file__).parents[2]
CLASSES = ["none", "haemorrhage", "exudate", "$x^2$ <b>"]
VIT = {"size": 32, "patch": 8, "width": 16, "depth": 2, "heads": 2}
PLUGIN = '''"""A user's own."""
import torch
META = {{"kind": "explainers", "family": "own", "class_specific": False, "signed": True, "resolution": "patch",
        "architectures": ["vit"], "passes": {{"forward": "0", "backward": "0"}}, "citation": "none"}}


def explain(model, images, targets, *, generator, removal=None):
    {body}
'''


def stored(results: Path, encoder: str = "simmim_60") -> Path:
    """Where a model lies."""
    return Layout(results).model(ModelId("medical", encoder, 0, 0)) / "model.safetensors"


def seen_by(path: Path) -> torch.Tensor:
    """The image of a file as a model of 32 pixels gets it, [1, 3, 32, 32]."""
    with Image.open(path) as image:
        pixels = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
    return torch.from_numpy(pixels.transpose(2, 0, 1))[None]


def save(results: Path, encoder: str, architecture: dict, pretrained: bool) -> None:
    """A random fine-tuned model; its encoder beside it where it was pretrained."""
    layout, path = Layout(results), stored(results, encoder)
    torch.manual_seed(0)
    model, sha256 = build(architecture), None
    if pretrained:
        network, source = SimMIM(**VIT), layout.encoder(encoder, 0) / "encoder.safetensors"
        state = {name.removeprefix("encoder."): tensor for name, tensor in network.state_dict().items()}
        checkpoint.save(source, state, {"architecture": VIT, "nominal_mask_ratio": 0.6, "mask_cell": 8})
        transfer(checkpoint.load_state(source), model)
        sha256 = files.sha256(source)
    sidecar = {
        "architecture": architecture,
        "domain": "medical",
        "encoder": encoder,
        "pretrain_seed": 0,
        "finetune_seed": 0,
        "classes": CLASSES,
        "encoder_sha256": sha256,
        "settings": {"seed": [0, 0, 0]},
    }
    checkpoint.save(path, model.state_dict(), sidecar)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "results"
    save(folder, "simmim_60", {**VIT, "classes": 4}, True)
    save(folder, "scratch", {**VIT, "classes": 4, "pooling": "token"}, False)
    save(folder, "resnet", {"arch": "resnet", "size": 32, "patch": 8, "classes": 4}, False)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    files.write_arrays(Layout(folder).domain("medical") / "train.safetensors", {"images": images})
    return folder


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def run(results, photo, tmp_path, monkeypatch, capsys):
    """`run(*arguments, encoder)`: exit code, standard output's lines, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, encoder="simmim_60", model=None, image=photo):
        model = model or stored(results, encoder)
        capsys.readouterr()
        code = main(["explain-image", "--model", str(model), "--image", str(image), *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out.splitlines(), err

    return call


@pytest.mark.parametrize("encoder", ["simmim_60", "scratch", "resnet"])
def test_the_usual_explainers_give_a_sheet(encoder, run, tmp_path):
    code, lines, _ = run(encoder=encoder)
    assert code == 0
    assert lines[-1] == "the sheet is photo_explained.png"
    assert not any("failed" in line or "does not apply" in line for line in lines)
    with Image.open(tmp_path / "photo_explained.png") as sheet:
        assert sheet.width > 500
        assert np.asarray(sheet.convert("L")).std() > 10


def test_the_likeliest_classes_come_first_with_their_probabilities(run, results, photo):
    _, lines, _ = run("--explainers", "saliency")
    shares = [float(line.split("%")[0]) for line in lines[1:5]]
    model, _ = checkpoint.load_classifier(stored(results))
    expected = model(seen_by(photo)).softmax(1)[0]
    assert shares == pytest.approx((expected.sort(descending=True).values * 100).tolist(), abs=0.051)
    first = CLASSES[int(expected.argmax())]
    assert lines[1].endswith(first)
    assert lines[5].startswith(f"why {first} (")


def shown(monkeypatch) -> dict[str, gallery.Column]:
    """What the sheet is made of, once it is drawn."""
    seen: dict[str, gallery.Column] = {}
    write = explain_image._write

    def spy(path, pixels, columns, title, notes):
        seen.update({column.name: column for column in columns})
        write(path, pixels, columns, title, notes)

    monkeypatch.setattr(explain_image, "_write", spy)
    return seen


@pytest.mark.parametrize(("target", "index"), [("exudate", 2), ("2", 2), ("$x^2$ <b>", 3)])
def test_a_target_by_name_or_index(target, index, run, results, photo, monkeypatch):
    seen = shown(monkeypatch)
    code, lines, _ = run("--explainers", "input_x_gradient", "--target", target, "--output", "a/b.png")
    assert code == 0
    assert lines[5].startswith(f"why {CLASSES[index]} (")
    model, _ = checkpoint.load_classifier(stored(results))
    leaf = seen_by(photo).requires_grad_()
    model(leaf)[0, index].backward()
    expected = (leaf * leaf.grad).sum(1).detach().numpy()
    np.testing.assert_allclose(seen["input_x_gradient"].maps, expected, rtol=1e-4, atol=1e-6)
    assert seen["input_x_gradient"].signed


def test_what_stands_in_the_results_folder_is_found(run, monkeypatch):
    seen = shown(monkeypatch)
    names = [
        "occlusion@mask_token",
        "occlusion@token_drop",
        "occlusion@inpaint",
        "gradient_shap",
        "reconstruction_error",
    ]
    code, lines, _ = run("--explainers", *names)
    assert code == 0
    assert list(seen) == names
    assert not any("skipped" in line for line in lines)


def test_what_is_not_there_is_skipped_with_the_reason(run, results, tmp_path):
    names = ("--explainers", "saliency", "oracle", "occlusion@inpaint", "gradient_shap", "occlusion@mask_token")
    code, lines, _ = run(*names, encoder="scratch")
    assert code == 0
    notes = {line.split()[0]: line for line in lines if "skipped" in line}
    assert set(notes) == {"oracle", "occlusion@inpaint", "occlusion@mask_token"}
    assert "one image does not come with it" in notes["oracle"]
    assert notes["occlusion@inpaint"].endswith("this encoder has none")
    assert "needs a mask token" in notes["occlusion@mask_token"]
    alone = tmp_path / "alone"
    shutil.copytree(results / "3_finetune" / "medical" / "simmim_60" / "p0f0", alone)
    code, lines, _ = run(*names, model=alone / "model.safetensors")
    assert code == 0
    assert sum("is in no results folder" in line for line in lines) == 2
    moved = tmp_path / "moved"
    shutil.copytree(results, moved)
    encoder = Layout(moved).encoder("simmim_60", 0) / "encoder.safetensors"
    (Layout(moved).domain("medical") / "train.safetensors").unlink()
    model = stored(moved)
    shutil.copy(model, encoder)
    lines = run(*names, model=model)[1]
    assert sum("train.safetensors does not exist" in line for line in lines) == 1
    assert sum("is not the encoder that the model was fine-tuned from" in line for line in lines) == 1
    encoder.unlink()
    assert any("encoder.safetensors does not exist" in line for line in run(*names, model=model)[1])


def test_an_own_explainer_and_one_that_fails(run, tmp_path):
    bodies = {"own": "return torch.randn(1, 4, 4, generator=generator)", "raising": 'raise ValueError("two\\n  lines")'}
    bodies |= {"level": "return torch.ones(1, 4, 4)", "misshapen": "return torch.rand(1, 3, 3)"}
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(body=body))
    code, lines, _ = run("--explainers", *bodies, "--plugins", *(tmp_path / f"{name}.py" for name in bodies))
    assert code == 0
    assert lines[6:-1] == [
        "raising failed: ValueError: two lines",
        "level skipped: the map is constant",
        "misshapen failed: ValueError: explain() returned maps of shape (1, 3, 3); they must be (1, 4, 4)",
    ]


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        (["--explainers", "salency"], {}, "unknown explainer 'salency'; did you mean 'saliency'?"),
        (["--explainers", "occlusion@men"], {}, "unknown removal 'men'"),
        (["--explainers", "saliency@mean"], {}, "names a removal, but saliency removes nothing"),
        (["--target", "exudat"], {}, "'exudat' is neither a class nor an index from 0 to 3; did you mean 'exudate'?"),
        (["--target", "4"], {}, "'4' is neither a class nor an index"),
        (["--output", "sheet.jpg"], {}, "'sheet.jpg' is not the name of a PNG"),
        (["--output", "photo.jpg/sheet.png"], {}, "cannot be written"),
        (["--explainers", "oracle"], {}, "none of them gives a map; oracle skipped: it needs the mask"),
        (["--device", "quantum"], {}, "'quantum' is not a torch device"),
        ([], {"model": "nowhere.safetensors"}, "'nowhere.safetensors' does not exist; give the model.safetensors"),
        ([], {"image": "nowhere.jpg"}, "'nowhere.jpg' does not exist; give the file of an image"),
        ([], {"image": __file__}, "cannot be read as an image"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, given, words, run):
    code, _, error = run(*arguments, **given)
    assert code == 2
    assert words in error
    assert error.startswith("unmask: ")
    assert error.count("\n") == 1


def test_a_checkpoint_that_is_no_classifier_is_told(run, results):
    code, _, error = run(model=Layout(results).encoder("simmim_60", 0) / "encoder.safetensors")
    assert code == 2
    assert "is not a fine-tuned model, since" in error
    assert "lacks 'domain'" in error


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "1"])
def test_images_of_any_mode(mode, run, tmp_path):
    path = tmp_path / "any.png"
    grey = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 90), dtype=np.uint8))
    (Image.fromarray(np.asarray(grey, np.uint16) * 16) if mode == "I;16" else grey.convert(mode)).save(path)
    code, lines, _ = run("--explainers", "saliency", image=path)
    assert code == 0
    assert lines[-1] == "the sheet is any_explained.png"


def test_the_same_command_draws_the_same_sheet(run, tmp_path):
    for name in ("one", "two"):
        assert run("--explainers", "rise", "smoothgrad", "--output", f"{name}.png")[0] == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_commands_of_the_readme_run(results, photo, monkeypatch, capsys):
    section = (ROOT / "README.md").read_text().split("## One image")[1].split("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].replace("\\\n", " ")
    commands = [shlex.split(line) for line in block.strip().splitlines()]
    monkeypatch.chdir(results.parent)
    shutil.copy(photo, results.parent)
    for command in commands:
        assert command[0] == "unmask"
        assert main(command[1:]) == 0, capsys.readouterr().err
    assert len(commands) == 2
    assert (results.parent / "sheet.png").is_file()
