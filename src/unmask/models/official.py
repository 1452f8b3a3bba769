"""Official SimMIM ViT checkpoints (microsoft/SimMIM): pretrained, with mask token and decoder, or fine-tuned.

Pretraining saves `encoder.*`, with one table of position biases and the mask token, beside `decoder.*`; fine-tuning
saves the encoder without a prefix, with a table in every block. Either goes into timm's Beit under the same names, and
all sizes are read from the file's own tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unmask.errors import UserError
from unmask.models import imported, relative
from unmask.models.simmim import SimMIM
from unmask.models.vit import Classifier

NAME = "simmim_vit"  # the architecture, in the config
ANCHOR = "patch_embed.proj.weight"
SHARED = f"rel_pos_bias.{relative.TABLE}"
DECODER = ("decoder.0.weight", "decoder.0.bias")
_BLOCK = re.compile(r"blocks\.(\d+)\.")


def architecture(state: dict[str, torch.Tensor], image: Mapping[str, int], pooling: str, path: Path) -> dict[str, Any]:
    """Sizes of a `Classifier` that the tensors of `imported.read` fit; raises `UserError` where they are of none."""
    inside, _ = imported.within(state, ANCHOR, path)
    table, patch, _ = _positions(inside, path)
    if patch != image["patch"]:
        raise UserError(
            f"{path} has patches of {patch} pixels, but image.patch is {image['patch']}; set image.patch: {patch}"
        )
    width = len(inside[ANCHOR])
    return {
        **image,
        "width": width,
        "depth": 1 + max(int(match[1]) for match in map(_BLOCK.match, inside) if match),
        "heads": table.shape[1],
        "mlp_ratio": len(inside["blocks.0.mlp.fc1.weight"]) / width,
        "pooling": pooling,
        "position": "relative" if SHARED in inside else "relative_per_block",
    }


def _positions(inside: dict[str, torch.Tensor], path: Path) -> tuple[torch.Tensor, int, int]:
    """A table of biases, the patches' pixels a side, and how many a side the table is for; raises `UserError`."""
    own = f"blocks.0.attn.{relative.TABLE}"
    table = next((inside[name] for name in (SHARED, own) if name in inside), None)
    lacks = [name for name in ("cls_token", "blocks.0.mlp.fc1.weight") if name not in inside]
    if table is None or lacks:
        what = f"{SHARED} and {own}" if table is None else lacks[0]
        raise UserError(f"{path} is no ViT of SimMIM's official code: it lacks {what}")
    kernel = inside[ANCHOR]
    side = relative.trained_grid(table) if table.dim() == 2 else None
    if kernel.dim() != 4 or side is None:
        found = f"{ANCHOR} {tuple(kernel.shape)}, {relative.TABLE} {tuple(table.shape)}"
        raise UserError(f"{path} is no ViT of SimMIM's official code: it has shapes {found}")
    return table, kernel.shape[-1], side


def alone(state: dict[str, torch.Tensor], path: Path, size: int | None) -> tuple[Classifier, int, int]:
    """As `imported.alone`: a fine-tuned classifier, or a pretrained encoder, which decides between 0 classes."""
    inside, _ = imported.within(state, ANCHOR, path)
    _, patch, side = _positions(inside, path)
    image = {"size": size or side * patch, "patch": patch}
    if image["size"] % patch:
        raise UserError(f"--size: {size} is not a multiple of the patches' {patch} pixels")
    if all(name in inside for name in ("fc_norm.weight", "head.weight")):
        classes = len(inside["head.weight"])
        model = Classifier(**architecture(state, image, "avg", path), classes=classes)
        imported.fit(state, model, path)
    else:
        network, _, _ = bring(state, path, image, "avg", whole=True, device="cpu")
        model, classes = (network.encoder if isinstance(network, SimMIM) else network), 0
    return model.eval().requires_grad_(False), classes, image["size"]


def bring(
    state: dict[str, torch.Tensor], path: Path, image: Mapping[str, int], pooling: str, *, whole: bool, device: str
) -> tuple[SimMIM | Classifier, dict[str, Any], list[str]]:
    """As `imported.bring`: SimMIM's network where `whole` asks for it and the file has it, else a classifier."""
    sizes = architecture(state, image, pooling, path)
    inside, _ = imported.within(state, ANCHOR, path)
    # The decoder stands beside the encoder, behind the prefix (if any) that `encoder.` itself has.
    before = next(name for name in state if name.endswith(ANCHOR)).removesuffix(ANCHOR).removesuffix("encoder.")
    token = inside.get("mask_token")
    decoder = {name: state[before + name] for name in DECODER if before + name in state}
    whole = whole and token is not None and len(decoder) == len(DECODER)
    sizes = sizes if whole else {**sizes, "classes": 0}
    with torch.device(device):
        model = SimMIM(**sizes) if whole else Classifier(**sizes)
    encoder, taken = model.encoder if isinstance(model, SimMIM) else model, set()
    left_out = imported.fit(state, encoder, path)
    if token is not None:
        _hold(path, "mask_token", token, (1, 1, sizes["width"]))
        encoder.mask_token = nn.Parameter(token.float())
        taken.add("mask_token")
    if isinstance(model, SimMIM):
        own = dict(model.named_parameters())
        for name, tensor in decoder.items():
            _hold(path, name, tensor, tuple(own[name].shape))
        if device != "meta":
            model.load_state_dict(decoder, strict=False)
        taken |= {before + name for name in decoder}
    return model, sizes, [name for name in left_out if name not in taken]


def _hold(path: Path, name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise UserError(f"{path} does not fit the architecture: it has shapes {name} {tuple(tensor.shape)} for {shape}")
