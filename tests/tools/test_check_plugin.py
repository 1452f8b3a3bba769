"""`unmask check-plugin`: a sound file passes, and each check can fail, saying what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unmask import contract, registry
from unmask.cli import main
from unmask.contract import Breach, Trial

ROOT = Path(__file__).parents[2]
META = {
    "kind": "explainers",
    "family": "gradient",
    "class_specific": True,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit"],
    "poolings": ["avg"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "none",
}
EXPLAINER = '''"""The gradient of the target's logit."""

import numpy
import torch
META = {meta}


@torch.enable_grad()
def gradient(model, images, targets):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0].sum(1)


def explain(model, images, targets, *, generator, removal=None{options}):
    {body}
'''
# What is wrong, in META and in the body; the check that finds it, and words of its sentence.
WRONG = {
    "returns_a_list": ({}, "return [maps]", "gives_maps", "returned list; it must return a torch tensor"),
    "double": ({}, "return maps.double()", "gives_maps", r"of torch.float64; they must be torch.float32"),
    "on_patches": ({}, "return maps[:, ::8, ::8]", "gives_maps", r"shape \(5, 4, 4\); they must be \(5, 32, 32\)"),
    "with_a_graph": ({}, "return maps.requires_grad_()", "gives_maps", r"carry a graph; return maps.detach\(\)"),
    "not_a_number": ({}, "return maps / (targets > 0)[:, None, None]", "is_finite", "2 of 5 maps have values"),
    "flat": ({}, "return torch.ones_like(maps)", "varies", "5 of 5 maps are constant; "),
    "flat_and_rectified": (
        {"signed": False},
        "return maps.abs() * 0",
        "varies",
        "5 of 5 maps are constant, whatever the target",
    ),
    "negative": ({"signed": False}, "return maps", "is_signed_as_declared", 'but META says "signed": False; say True'),
    "positive": ({}, "return maps.abs()", "is_signed_as_declared", 'META says "signed": True; say False'),
    "class_agnostic": (
        {},
        "return images.mean(1) - 0.5",
        "depends_on_the_target_as_declared",
        '5 of 5 maps are the same for another target, but META says "class_specific": True; say False',
    ),
    "class_specific": (
        {"class_specific": False},
        "return maps",
        "depends_on_the_target_as_declared",
        '"class_specific": False; say True',
    ),
    "draws_from_torch": (
        {},
        "return maps + torch.rand(maps.shape)",
        "leaves_global_generators_alone",
        "global generator of torch; draw from `generator`",
    ),
    "draws_from_numpy": (
        {},
        "return maps + float(numpy.random.rand())",
        "leaves_global_generators_alone",
        "global generator of numpy",
    ),
    "draws_from_a_fork": (
        {},
        "with torch.random.fork_rng([]):\n        return maps + torch.rand(maps.shape)",
        "leaves_global_generators_alone",
        "two runs with the same generator differ",
    ),
    "needs_grad": (
        {},
        "leaf = images.clone().requires_grad_()\n    return torch.autograd.grad(model(leaf).sum(), leaf)[0].sum(1)",
        "works_without_grad",
        r"raises under a caller's torch.no_grad\(\) .*`with torch.enable_grad\(\):`",
    ),
    "looks_at_grad": ({}, "return maps * torch.is_grad_enabled()", "works_without_grad", "others under a caller's"),
    "draws_unsaid": (
        {},
        "return maps * torch.rand(maps.shape, generator=generator)",
        "draws_as_declared",
        'say "draws": True in META',
    ),
    "draws_nothing": ({"draws": True}, "return maps", "draws_as_declared", 'META says "draws": True; leave that out'),
    "scales_by_the_batch": (
        {},
        "return maps / maps.abs().max()",
        "is_independent_of_the_batch",
        "treat images one by one",
    ),
    "draws_by_the_batch": (
        {"draws": True},
        "return maps * torch.rand(2, *maps.shape, generator=generator).sum(0)",
        "is_independent_of_the_batch",
        "draw for one image after another",
    ),
    "changes_weights": (
        {},
        "model.backbone.head.weight.data.mul_(2)\n    return maps",
        "leaves_the_model_as_found",
        "the model's weights, at 'backbone.head.weight'",
    ),
    "adds_a_module": (
        {},
        "model.register_buffer('mine', maps)\n    return maps",
        "leaves_the_model_as_found",
        "the model's weights, at 'mine'",
    ),
    "trains": (
        {},
        "model.train()\n    return maps",
        "leaves_the_model_as_found",
        "training mode, at the model itself and .* more; the model is in evaluation mode already",
    ),
    "leaves_a_hook": (
        {},
        "model.backbone.blocks[1].register_forward_hook(print)\n    return maps",
        "leaves_the_model_as_found",
        "hooks, at 'backbone.blocks.1'; remove every hook again",
    ),
    "leaves_a_hook_on_the_pretraining_network": (
        {},
        "model.pretraining.network.decoder.register_forward_hook(print)\n    return maps",
        "leaves_the_model_as_found",
        "hooks, at 'pretraining.decoder'",
    ),
    "patches_a_method": (
        {},
        "model.embed = model.embed\n    return maps",
        "leaves_the_model_as_found",
        "attributes, at the model itself; patch nothing into it",
    ),
    "asks_for_gradients": (
        {},
        "model.requires_grad_()\n    return maps",
        "leaves_the_model_as_found",
        "requires_grad, at .*; ask torch.autograd.grad",
    ),
    "leaves_gradients": (
        {},
        "with torch.enable_grad():\n        (model(images.clone().requires_grad_()).sum()).backward()\n    return maps",
        "leaves_the_model_as_found",
        r"gradient, at .*; use torch.autograd.grad instead of backward\(\)",
    ),
    "leaves_attention_unfused": (
        {},
        "for block in model.backbone.blocks:\n        block.attn.fused_attn = False\n    return maps",
        "leaves_the_model_as_found",
        "fused attention, at 'backbone.blocks.1.attn'",  # the first was not fused, and is as it was
    ),
    "leaves_a_hook_after_an_error": (
        {},
        "handle = model.register_forward_hook(lambda *given: None)\n    maps = gradient(model, images, targets)\n"
        "    handle.remove()\n    return maps",
        "leaves_the_model_as_found_after_an_error",
        "hooks, at the model itself after an error in it; use `try: ... finally:`",
    ),
    "hides_errors": (
        {},
        "try:\n        return gradient(model, images, targets)\n"
        "    except RuntimeError:\n        return images.mean(1)",
        "leaves_the_model_as_found_after_an_error",
        "does not get out of explain",
    ),
    "writes_into_images": (
        {},
        "images.mul_(2)\n    return maps",
        "leaves_its_inputs_alone",
        "writes into its `images`",
    ),
    "marks_images": (
        {},
        "images.requires_grad_()\n    return maps",
        "leaves_its_inputs_alone",
        "`images` is left with requires_grad",
    ),
    "costs_more": (
        {},
        "return maps + model(images)[:, :1, None]",
        "costs_the_declared_passes",
        "declares 0 passes forward and 1 forward and backward an image, but 1 and 1 were counted",
    ),
    "ignores_the_removal": (
        {"removal": "mean"},
        "return maps",
        "takes_every_removal",
        "the removal .* the maps are those of another",
    ),
}
# What is wrong in META alone, and words of the sentence.
WRONG_META = {
    "unknown_key": ({"class_specfic": True}, "unknown key 'class_specfic'; did you mean 'class_specific'"),
    "wrong_type": ({"signed": "no"}, r"META\['signed'\] is 'no'; it must be of type bool"),
    "empty_citation": ({"citation": " "}, r"META\['citation'\] is empty"),
    "resolution": ({"resolution": "token"}, "has 'token'; it may have 'pixel' or 'patch'"),
    "architecture": ({"architectures": ["cnn"]}, "has 'cnn'; it may have 'vit' or 'resnet'"),
    "no_architecture": ({"architectures": []}, "names no network"),
    "need": ({"needs": ["labels"]}, "has 'labels'; it may have 'masks'"),
    "removal": ({"removal": "men"}, r"META\['removal'\] has 'men'"),
    "ways": ({"passes": {"forward": "1"}}, "has the keys forward; it must have forward and backward"),
    "formula": ({"passes": {"forward": "mask", "backward": "0"}}, "'mask', which cannot be computed .*'mask'.*width"),
    "fraction": ({"passes": {"forward": "1 / 2", "backward": "0"}}, "gives 0.5 an image; give whole numbers"),
    "range": ({"options": {"masks": 1}, "ranges": {"masks": [2, None]}}, "masks is 1 by default, which is outside"),
    "choice": ({"options": {"fill": "red"}, "choices": {"fill": ["grey"]}}, "fill is 'red' by default, .*among its"),
    "range_of_nothing": ({"ranges": {"masks": [2, None]}}, "'masks', which is no option"),
}


def write(folder: Path, name: str, meta: dict, body: str, options: str = "") -> Path:
    """A plug-in file; the body may begin where the maps are already there."""
    if "gradient(model" not in body:
        body = f"maps = gradient(model, images, targets)\n    {body}"
    path = folder / f"{name}.py"
    path.write_text(EXPLAINER.format(meta={**META, **meta}, body=body, options=options))
    return path


@pytest.mark.parametrize("name", WRONG)
def test_a_breach_is_found_and_told(name, tmp_path):
    meta, body, check, words = WRONG[name]
    path = write(tmp_path, name, meta, body)
    with pytest.raises(Breach, match=words):
        getattr(contract, check)(Trial(registry.read(path), "avg"))


def test_each_check_has_a_case():
    assert {check.__name__ for check in contract.CHECKS} == {check for *_, check, _ in WRONG.values()}


@pytest.mark.parametrize("name", WRONG_META)
def test_a_wrong_meta_is_told(name, tmp_path):
    meta, words = WRONG_META[name]
    with pytest.raises(Breach, match=words):
        contract.describes_itself(registry.read(write(tmp_path, f"meta_{name}", meta, "return maps")))


@pytest.mark.parametrize(
    ("meta", "options", "words"),
    [
        ({"options": {"masks": 4}}, "", "masks=.*got an unexpected keyword argument 'masks'"),
        ({"needs": ["masks"]}, "", "masks=..."),
        ({}, ", sigma", "missing a required argument: 'sigma'"),
    ],
)
def test_a_wrong_signature_is_told(meta, options, words, tmp_path):
    path = write(tmp_path, f"signature_{'_'.join(meta)}", meta, "return maps", options)
    with pytest.raises(Breach, match=words):
        contract.takes_its_arguments(registry.read(path))


def check(capsys, *arguments: object) -> tuple[int, list[str]]:
    """Exit code and lines of the command."""
    capsys.readouterr()
    code = main(["check-plugin", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out.splitlines()


def test_the_example_of_the_readme_keeps_the_contract(tmp_path, capsys):
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Your own explainer")[1]
    name = re.search(r"^unmask check-plugin (\S+)$", section, re.MULTILINE)[1]
    (tmp_path / name).write_text(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1])
    code, lines = check(capsys, tmp_path / name)
    assert [line for line in lines if line.startswith("FAIL")] == []
    assert code == 0
    assert len([line for line in lines if line.startswith("ok  ")]) == 3 + len(contract.CHECKS)
    assert lines[-1].endswith("keeps the contract")


def test_every_breach_is_a_line(tmp_path, capsys):
    code, lines = check(capsys, write(tmp_path, "bad", {"signed": False}, "images.mul_(2)\n    return maps"))
    assert code == 2
    failed = [line for line in lines if line.startswith("FAIL")]
    assert any("say True, or return 0 and more [a ViT with mean pooling]" in line for line in failed)
    assert any("writes into its `images`" in line for line in failed)
    assert "ok    Every value is finite" in lines
    assert lines[-1].endswith(f"breaks the contract: {len(failed)} FAIL above")


def test_a_plugin_that_raises_or_hangs_is_reported(tmp_path, capsys):
    raising = write(tmp_path, "raising", {}, 'raise ValueError("two\\n  lines")')
    code, lines = check(capsys, raising)
    assert code == 2
    line = raising.read_text().splitlines().index('    raise ValueError("two\\n  lines")') + 1
    assert any(f"it raises ValueError: two lines, line {line} of raising.py" in line_ for line_ in lines)
    hanging = write(tmp_path, "hanging", {}, "while True:\n        pass")
    code, lines = check(capsys, hanging, "--time-limit", 0.3)
    assert code == 2
    assert any("it took longer than 0.3 s (--time-limit)" in line for line in lines)
    for name, top in (("failing", "1 / 0"), ("leaving", "raise SystemExit(3)")):
        path = write(tmp_path, name, {}, "return maps")
        path.write_text(f"{path.read_text()}\n\n{top}\n")
        code, lines = check(capsys, path)
        assert code == 2
        assert any(f"of {name}.py" in line for line in lines if line.startswith("FAIL"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("no_meta", "x = 1\n", "a plug-in needs a literal `META"),
        ("no_kind", "META = {}\n", "META['kind'] is None; it must be one of"),
        ("lacking", "META = {'kind': 'explainers'}\n", "META lacks family, class_specific"),
        ("syntax", "META = {\n", "is not valid Python"),
        ("rise", EXPLAINER.format(meta=META, body="return maps", options=""), "has the id 'rise', which"),
        ("a.b", EXPLAINER.format(meta=META, body="return maps", options=""), "'a.b' is its id; use letters"),
    ],
)
def test_a_file_that_is_no_plugin_is_told(name, text, words, tmp_path, capsys):
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    code, lines = check(capsys, path)
    assert code == 2
    assert any(words in line for line in lines if line.startswith("FAIL"))
    assert check(capsys, tmp_path / "nowhere.py") == (
        2,
        [f"FAIL  plugins: '{tmp_path / 'nowhere.py'}' does not exist; give the path of a Python file"],
    )


@pytest.mark.parametrize(
    "file",
    [
        *("explainers/rise.py", "removals/blur.py", "domains/folder.py"),
        *("metrics/max_sensitivity.py", "metrics/focus.py", "metrics/concept_auc.py"),
    ],
)
def test_embedded_plugins_of_every_kind_keep_it(file, capsys):
    code, lines = check(capsys, registry.PACKAGE / file)
    assert [line for line in lines if line.startswith("FAIL")] == []
    assert code == 0


METRIC = '''"""A metric."""
import numpy as np
META = {{"kind": "metrics", "category": "complexity", "direction": "{direction}", "needs": [],
        "passes": {{"forward": "{forward}", "explanations": "0"}}, "citation": "none"}}


def score(case):
    {body}
'''


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"direction": "up"}, "has 'up'; it may have 'higher' or 'lower'"),
        ({"body": "return 1.0"}, "the shape () for 5 images; return a number for each"),
        ({"body": "return case.patch_maps.mean((1, 2)) * np.nan"}, "all must be finite"),
        ({"body": "case.images.mul_(2)\n    return case.patch_maps.mean((1, 2))"}, "writes into case.images"),
        ({"body": "return np.random.rand(len(case))"}, "seeded by case.seed"),
        ({"body": "return np.random.default_rng().random(len(case))"}, "two runs differ"),
        ({"body": "case.model.train()\n    return case.patch_maps.mean((1, 2))"}, "changes the model's training mode"),
        ({"forward": "patches"}, "declares 16 forward an image ('patches'), but 0 were counted"),
        ({"body": "case.model.eval(3)"}, "it raises TypeError"),
        ({}, ""),
    ],
)
def test_a_metric_is_checked(given, words, tmp_path, capsys):
    path = tmp_path / f"metric_{abs(hash(str(given)))}.py"
    whole = {"direction": "higher", "forward": "0", "body": "return case.patch_maps.mean((1, 2))", **given}
    path.write_text(METRIC.format(**whole))
    code, lines = check(capsys, path)
    assert code == (2 if words else 0)
    assert any(words in line for line in lines if line.startswith("FAIL" if words else "ok"))


REMOVAL = '''"""A removal."""
import torch
from unmask.removals import blend
META = {{"kind": "removals", "summary": "white", "architectures": {architectures}, "citation": "none"}}


def remove(model, images, keep):
    {body}
'''
WHITE = "return blend(images, keep, torch.ones_like(images))"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"architectures": ["cnn"]}, "has 'cnn'"),
        ({"body": "return images"}, "removing patches does not change the logits"),
        ({"body": "return blend(images, ~keep, torch.ones_like(images))"}, "with every patch kept"),
        ({"body": f"{WHITE} * float('nan')"}, "logits are not finite"),
        ({"body": f"{WHITE}[:1]"}, "returns 1 inputs for 5 images"),
        ({"body": f"images.mul_(0.5)\n    {WHITE}"}, "writes into its `images`"),
        ({"body": f"{WHITE} * images.max() / images.mean()"}, "several subsets at once|every patch kept"),
        ({"body": "return 1 / 0"}, "it raises ZeroDivisionError: division by zero, line 8 of"),
        ({}, ""),
    ],
)
def test_a_removal_is_checked(given, words, tmp_path, capsys):
    path = tmp_path / f"removal_{abs(hash(str(given)))}.py"
    path.write_text(REMOVAL.format(**{"architectures": ["vit", "resnet"], "body": WHITE, **given}))
    code, lines = check(capsys, path)
    assert code == (2 if words else 0)
    assert any(re.search(re.escape(words).replace(r"\|", "|"), line) for line in lines if line[:2] != "ok" or not words)


def test_files_that_name_one_another_are_known_to_each_other(tmp_path, capsys):
    removal = tmp_path / "white.py"
    removal.write_text(REMOVAL.format(architectures=["vit"], body=WHITE))
    body = "with torch.no_grad():\n        keep = torch.zeros(len(images), *model.grid, dtype=torch.bool)\n"
    body += "        return maps * model(removal.remove(images, keep)).norm(dim=1)[:, None, None]"
    meta = {"removal": "white", "passes": {"forward": "1", "backward": "1"}}
    explainer = write(tmp_path, "with_white", meta, body)
    assert check(capsys, removal, explainer)[0] == 0
    code, lines = check(capsys, explainer)
    assert code == 2
    assert any("META['removal'] has 'white'" in line for line in lines)


def test_a_domain_is_built(tmp_path, capsys):
    path = tmp_path / "tiny.py"
    path.write_text('''"""A domain."""
import numpy as np
from unmask.domains import Split, Splits
META = {"kind": "domains", "summary": "noise", "options": {}}


def build(options, *, size, seed):
    rng = np.random.default_rng(seed)

    def split(name):
        images = rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
        empty, labels = np.zeros((4, size, size), bool), np.array([0, 1, 0, 1])
        names = [f"{name}{i}" for i in range(4)]
        return Split(images, labels, empty, empty, names, names)

    return Splits(["a", "b"], split("x"), split("y"), split("z"), np.zeros((0, size, size, 3), np.uint8), {})
''')
    assert check(capsys, path)[0] == 0
    broken = tmp_path / "tiny_broken.py"
    broken.write_text(path.read_text().replace('split("y")', 'split("x")'))
    code, lines = check(capsys, broken)
    assert code == 2
    assert any("an image id that occurs twice" in line for line in lines)


def test_a_time_limit_of_nothing_is_a_mistake(tmp_path, capsys):
    assert main(["check-plugin", str(tmp_path / "x.py"), "--time-limit", "0"]) == 2
    assert "--time-limit: 0 s is no time" in capsys.readouterr().err
