"""`unmask explain-image`: what a fine-tuned model reads in one image, as a picture sheet; no config, no benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import files, registry, seeds
from unmask.config import SCHEMA, ExplainerSpec, ModelId, explainer_spec
from unmask.device import resolve
from unmask.encoders import MASKED
from unmask.errors import Skip, UserError
from unmask.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import torch

    from unmask.figures.gallery import Column
    from unmask.models.classifier import Classifier, ConvClassifier

USUAL = ("saliency", "integrated_gradients", "grad_cam", "chefer", "attn_lrp", "occlusion", "rise")
NEEDS = {
    "masks": "the mask of the evidence",
    "references": "training images",
    "pretraining": "the network that the encoder was pretrained in",
}
LIKELIEST = 5  # classes that are printed


@dataclass
class _Subject:
    """A model with what stands beside it in its results folder; `absent` says what of that there is not, and why."""

    name: str
    model: Classifier | ConvClassifier
    classes: list[str]
    size: int
    references: torch.Tensor | None
    absent: dict[str, str]


def run(
    *,
    model: str,
    image: str,
    explainers: Sequence[str] | None = None,
    target: str | None = None,
    output: str | None = None,
    plugins: Sequence[str] = (),
    device: str = "auto",
) -> None:
    """Print the likeliest classes, write the sheet and say where; raises `UserError` where no explainer gives a map."""
    specs = [explainer_spec(entry, plugins, {}, "--explainers") for entry in dict.fromkeys(explainers or USUAL)]
    path = Path(output or f"{Path(image).stem}_explained.png")
    if path.suffix.lower() != ".png":
        raise UserError(f"--output: '{path}' is not the name of a PNG; let it end in .png")
    subject = _load(Path(model), resolve(device))
    if not explainers:
        specs = [spec for spec in specs if subject.model.arch in spec.plugin.meta["architectures"]]
    pixels = _read(Path(image), subject.size)
    inputs = _tensor(pixels).to(device=next(subject.model.parameters()).device)
    probabilities = _probabilities(subject.model, inputs)
    chosen = probabilities.index(max(probabilities)) if target is None else _class(target, subject.classes)
    print(f"{image}, seen at {subject.size} x {subject.size} pixels by {subject.name}")
    for share, name in sorted(zip(probabilities, subject.classes, strict=True), reverse=True)[:LIKELIEST]:
        print(f"{share:8.1%}  {name}")
    columns, notes = [], []
    for spec in specs:
        try:
            columns.append(_column(subject, spec, plugins, inputs, chosen))
        except Skip as reason:
            notes.append(f"{spec.name} skipped: {reason}")
        except UserError:
            raise
        except Exception as error:  # a plug-in may raise anything, and must cost no other
            notes.append(f"{spec.name} failed: {type(error).__name__}: {' '.join(str(error).split())}")
    if not columns:
        raise UserError(f"--explainers: none of them gives a map; {'; '.join(notes)}")
    why = f"why {subject.classes[chosen]} ({probabilities[chosen]:.1%})?"
    _write(path, pixels, columns, [f"{Path(image).name}: {why}", subject.name], notes)
    print(why, *notes, f"the sheet is {path}", sep="\n")


def _load(path: Path, device: torch.device) -> _Subject:
    from unmask import subject
    from unmask.models.checkpoint import load_classifier, load_pretraining

    if not path.is_file():
        raise UserError(f"--model: '{path}' does not exist; give the model.safetensors of a fine-tuned model")
    sidecar = files.read_json(path.with_suffix(".json"))
    try:
        who = ModelId(*(sidecar[key] for key in ("domain", "encoder", "pretrain_seed", "finetune_seed")))
        classes, seed, size = sidecar["classes"], sidecar["settings"]["seed"][0], sidecar["architecture"]["size"]
    except (KeyError, TypeError) as error:
        where = path.with_suffix(".json")
        raise UserError(f"--model: {path} is not a fine-tuned model, since {where} lacks {error}") from None
    found, absent = _beside(path.resolve(), who, sidecar)
    model, _ = load_classifier(path, device)
    if "pretraining" in found:
        try:
            model.pretraining = load_pretraining(found["pretraining"], device, sidecar["encoder_sha256"])
        except UserError as error:  # costs only what needs it
            absent["pretraining"] = str(error)
    count = SCHEMA["properties"]["explain"]["properties"]["references"]["default"]
    references = None
    if "references" in found:
        references = subject.draw_references(found["references"], count, seed, who.domain, device)
    return _Subject(who.folder, model, classes, size, references, absent)


def _beside(path: Path, who: ModelId, sidecar: dict[str, Any]) -> tuple[dict[str, Path], dict[str, str]]:
    """The encoder's checkpoint and the training split in the results folder that the model lies in; or why not."""
    found, absent = {}, {"masks": "one image does not come with it"}
    layout = next((known for known in map(Layout, path.parents) if known.model(who) / path.name == path), None)
    if layout is None:
        return found, absent | dict.fromkeys(("references", "pretraining"), f"{path} is in no results folder")
    train = layout.domain(who.domain) / "train.safetensors"
    if train.is_file():
        found["references"] = train
    else:
        absent["references"] = f"{train} does not exist"
    encoder = layout.encoder(who.encoder, who.pretrain_seed) / "encoder.safetensors"
    if sidecar["encoder_sha256"] is None or sidecar.get("method", "simmim") not in MASKED:
        return found, absent  # never pretrained by masking, and what needs it says so
    if not encoder.is_file():
        absent["pretraining"] = f"{encoder} does not exist"
    else:
        found["pretraining"] = encoder
    return found, absent


def _read(path: Path, size: int) -> np.ndarray:
    """uint8 [size, size, 3]"""
    from unmask.domains._reading import Reader

    if not path.is_file():
        raise UserError(f"--image: '{path}' does not exist; give the file of an image")
    reader = Reader(size)
    reader.add(path)
    return reader.images()[0]


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """float32 [1, 3, H, W] in [0, 1]"""
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255).contiguous()


def _probabilities(model: Classifier | ConvClassifier, inputs: torch.Tensor) -> list[float]:
    import torch

    with torch.no_grad():
        return model(inputs)[0].double().softmax(0).tolist()


def _class(target: str, classes: list[str]) -> int:
    """The index of a class from its name or its index; a name goes first."""
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    raise UserError(
        f"--target: '{target}' is neither a class nor an index from 0 to {len(classes) - 1}; "
        f"{registry.suggest(target, classes)}"
    )


def _column(
    subject: _Subject, spec: ExplainerSpec, plugins: Sequence[str], inputs: torch.Tensor, target: int
) -> Column:
    """An explainer's map; raises `Skip` with the reason where there is none to be had."""
    import torch

    from unmask import explainers, removals
    from unmask.explain import checked, degenerate
    from unmask.figures.gallery import Column

    removal = registry.find("removals", spec.removal, plugins) if spec.removal else None
    needs = [*spec.plugin.meta.get("needs", []), *(removal.meta.get("needs", []) if removal else [])]
    for need in needs:
        if need in subject.absent:
            raise Skip(f"it needs {NEEDS[need]}, but {subject.absent[need]}")
    model = subject.model
    bound = removals.bind(removal, model) if removal else None
    explain = explainers.bind(spec, model, bound, subject.references)
    generator = seeds.torch_generator(0, "explain-image", spec.name)
    maps = explain(inputs, torch.tensor([target], device=inputs.device), generator)
    values = checked(maps, spec, model, inputs).detach().cpu().numpy()
    if reason := degenerate(values[0]):
        raise Skip(reason)
    return Column(spec.name, spec.plugin.meta["signed"], values, family=spec.plugin.meta["family"])


def _write(path: Path, pixels: np.ndarray, columns: list[Column], title: list[str], notes: list[str]) -> None:
    from unmask.figures import sheet, style

    with style.styled():
        figure = sheet.draw(pixels, columns, title, notes)
        try:
            with files.atomic(path) as temporary:
                figure.savefig(temporary, dpi=200, metadata={"Software": None})
        except OSError as error:
            raise UserError(f"--output: '{path}' cannot be written ({error.strerror})") from None
