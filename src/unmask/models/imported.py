"""Encoders from a file: a timm ViT, Beit or ResNet by its name, and weights as safetensors or a PyTorch state dict.

Nothing is ever unpickled but tensors and plain containers of them.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import beit
from timm.models.beit import Beit
from timm.models.resnet import ResNet
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn

from unmask.errors import UserError
from unmask.models import relative
from unmask.models.resnet import ConvClassifier
from unmask.models.vit import Classifier

FAMILIES = {
    "timm.models.vision_transformer": VisionTransformer,
    "timm.models.deit": VisionTransformer,
    "timm.models.beit": Beit,
    "timm.models.resnet": ResNet,
}
ANCHORS = {  # in every one's weights
    VisionTransformer: "patch_embed.proj.weight",
    Beit: "patch_embed.proj.weight",
    ResNet: "layer1.0.conv1.weight",
}
INSIDE = ("state_dict", "model", "model_state_dict")  # where training codes put the weights in their checkpoints
OWN = ("norm.", "fc_norm.", "head.", "fc.")  # what fine-tuning begins anew: it need not be there
LEFT_OUT = ("head.", "head_dist.", "head_drop.", "fc.", "norm.", "fc_norm.", "decoder", "mask_token")


def network(
    *, name: str, size: int, patch: int, classes: int, pooling: str | None = None, drop_path: float = 0.0
) -> Classifier | ConvClassifier:
    """A timm model with fresh weights as a classifier of images [N, 3, size, size].

    `pooling` None is the architecture's own. Raises `ValueError` for a name that timm does not have, and for a model
    that explainers cannot read: neither a plain ViT nor a ResNet, or of other patches than the config's.
    """
    import timm
    from timm.models import model_entrypoint

    if not timm.is_model(name):
        from unmask.models import official
        from unmask.registry import suggest

        known = [official.NAME, *timm.list_models()]
        raise ValueError(f"'{name}' is no model of timm {timm.__version__}; {suggest(name, known)}")
    family = FAMILIES.get(model_entrypoint(name).__module__)
    if family is None:
        raise ValueError(f"{name} is neither a ViT nor a ResNet of timm; give one of those")
    given: dict[str, Any] = {"num_classes": classes, "drop_path_rate": drop_path}
    if pooling:
        given["global_pool"] = pooling
    if family is ResNet:
        if pooling == "token":
            raise ValueError(f"{name} has no class token; leave out the key 'pooling'")
        backbone = timm.create_model(name, pretrained=False, **given)
        around = {"size": size, "patch": patch}
    else:
        fixed = {"dynamic_img_size": False} if family is VisionTransformer else {}
        try:
            backbone = timm.create_model(name, pretrained=False, img_size=size, **fixed, **given)
        except AssertionError as error:  # timm's words: "Token pooling needs the class token."
            raise ValueError(
                f"{name} cannot be read by pooling '{pooling}' ({str(error).rstrip('.')}); leave it out"
            ) from None
        _plain(name, backbone, patch)
        around = {}
    scale = {key: tuple(backbone.pretrained_cfg[key]) for key in ("mean", "std")}
    return (ConvClassifier if family is ResNet else Classifier).around(backbone, **around, **scale)


def _plain(name: str, vit: VisionTransformer | Beit, patch: int) -> None:
    """Whether explainers know how its decision is made: tokens by position, self-attention, a class token or a mean."""
    if type(vit) is Beit:
        known = beit.Block, beit.Attention
    elif type(vit) is VisionTransformer and vit.pos_embed is not None and not vit.num_reg_tokens:
        known = Block, Attention
    else:
        raise ValueError(f"{name} is not a plain ViT (it has register tokens or other positions); give one that is")
    if any((type(block), type(getattr(block, "attn", None))) != known for block in vit.blocks):
        raise ValueError(f"{name} is not a plain ViT (its blocks are of another kind); give one that is")
    if vit.global_pool not in ("avg", "token"):
        raise ValueError(f"{name} pools by '{vit.global_pool}'; set the key 'pooling' to avg or token")
    own = vit.patch_embed.patch_size
    if own != (patch, patch):
        raise ValueError(
            f"{name} has patches of {own[0]} pixels, but image.patch is {patch}; set image.patch: {own[0]}"
        )


def alone(path: str | Path, name: str, size: int | None = None) -> tuple[Classifier | ConvClassifier, int, int]:
    """A network with a file's weights as they are, in evaluation mode; how many classes it decides between; its size.

    Images have `size` pixels a side, or as many as the architecture's own. A file without head or last norm gives an
    encoder, which decides between 0 classes. Raises `UserError`.
    """
    from unmask.models import official

    state = read(path)
    if name == official.NAME:
        return official.alone(state, Path(path), size)
    try:
        own, patch = _sizes(name)
        size = size or own
        encoder = network(name=name, size=size, patch=patch, classes=0)
        inside, _ = within(state, ANCHORS[type(encoder.backbone)], path)
        head = next((inside[key] for key in ("head.weight", "fc.weight") if key in inside), None)
        model = encoder if head is None else network(name=name, size=size, patch=patch, classes=len(head))
    except ValueError as error:
        raise UserError(f"--architecture: {error}") from None
    decides = head is not None and all(key in inside for key in model.backbone.state_dict() if key.startswith(OWN))
    model = model if decides else encoder
    fit(state, model, path)
    return model.eval().requires_grad_(False), len(head) if decides else 0, size


def _sizes(name: str) -> tuple[int, int]:
    """Pixels a side of the images that an architecture is made for, and of its patches; a ResNet's are its stride."""
    import timm

    if not timm.is_model(name):
        network(name=name, size=32, patch=32, classes=0)  # says so
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    embed = getattr(model, "patch_embed", None)
    patch = embed.patch_size[0] if embed is not None else model.feature_info[-1]["reduction"]
    return model.pretrained_cfg["input_size"][-1], patch


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors in a file; raises `UserError` where it is missing, cut short, or holds more than tensors."""
    path = Path(path)
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give a .safetensors file or a PyTorch state dict") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if "GLOBAL" in str(error):  # a function or class that the file asks for
            raise UserError(
                f"{path} holds more than tensors, and unmask runs no code from a file; save its state_dict alone, "
                "best as safetensors"
            ) from None
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{path} is not a whole safetensors file or PyTorch state dict ({reason})") from None
    while isinstance(found, Mapping) and (key := next((k for k in INSIDE if isinstance(found.get(k), Mapping)), None)):
        found = found[key]
    tensors = {k: v for k, v in found.items() if torch.is_tensor(v)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise UserError(f"{path} holds no named tensors; give a state dict")
    return tensors


def _load(path: Path) -> Any:
    # Microsoft's training codes save their settings beside the weights, a dictionary of a class of its own.
    with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
        return torch.load(path, map_location="cpu", weights_only=True)


def fit(state: dict[str, torch.Tensor], model: Classifier | ConvClassifier, path: str | Path) -> list[str]:
    """Load the tensors of `read` into a model of `network`; returns the names of what was left out.

    A prefix that a training code put before the names is taken off, and positions are resampled to the model's grid:
    embeddings bicubically, biases of the attention as `relative.resampled` does. The classifier's head and last norm
    may lack. Raises `UserError` naming the first keys that do not fit.
    """
    backbone = model.backbone
    own = backbone.state_dict()
    state, left_out = within(state, ANCHORS[type(backbone)], path)
    relative.resampled(state, own, model.grid)
    positions = state.get("pos_embed")
    if positions is not None and "pos_embed" in own and positions.shape != own["pos_embed"].shape:
        state["pos_embed"] = _resampled(positions, model)
    used = {name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    missing = [k for k in own if k not in used and not k.startswith(OWN) and not k.endswith("num_batches_tracked")]
    extra = [k for k in used if k not in own and not k.startswith(LEFT_OUT)]
    shapes = [
        f"{k} {tuple(used[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in used and used[k].shape != own[k].shape and not k.startswith(LEFT_OUT)
    ]
    problems = [
        f"{what} {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}"
        for what, keys in (("lacks", missing), ("has unknown", extra), ("has shapes", shapes))
        if keys
    ]
    if problems:
        raise UserError(f"{path} does not fit the architecture: it {'; it '.join(problems)}")
    fits = {k: v for k, v in used.items() if k in own and v.shape == own[k].shape}
    if not any(tensor.is_meta for tensor in own.values()):
        backbone.load_state_dict({**own, **fits})
    return left_out + [k for k in used if k not in fits]


def within(state: dict[str, torch.Tensor], anchor: str, path: str | Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of the network that the key `anchor` belongs to, without their prefix; and the names of others."""
    prefixes = [key.removesuffix(anchor) for key in state if key == anchor or key.endswith(f".{anchor}")]
    if not prefixes:
        first = [key for key in state if key.endswith("weight")] or list(state)
        raise UserError(f"{path} does not fit the architecture: it lacks {anchor}, and has {', '.join(first[:3])} ...")
    if len(prefixes) > 1:
        raise UserError(f"{path} holds several networks ({', '.join(prefixes)}); save the weights of one alone")
    (prefix,) = prefixes
    inside = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    return inside, [key for key in state if not key.startswith(prefix)]


def _resampled(positions: torch.Tensor, model: Classifier) -> torch.Tensor:
    from timm.layers import resample_abs_pos_embed

    prefix = 0 if getattr(model.backbone, "no_embed_class", False) else model.prefix
    side = math.isqrt(max(0, positions.shape[1] - prefix))
    if side * side != positions.shape[1] - prefix:
        return positions  # of no square grid: its shape is what does not fit
    return resample_abs_pos_embed(positions, list(model.grid), [side, side], num_prefix_tokens=prefix)


def bring(
    spec: Mapping[str, Any], image: Mapping[str, int], device: str = "cpu"
) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """An encoder of the config with its weights; what it is built from; the names of what was left out.

    It is a classifier without classes, or the network that the encoder was pretrained in: SimMIM's, of an official
    checkpoint that has it whole, if the entry states the mask ratio. Raises `ValueError` as `network` does, `UserError`
    as `read` and `fit` do. On the device "meta" it only does so.
    """
    from unmask.models import official

    path, pooling = Path(spec["weights"]), spec.get("pooling")
    if spec["architecture"] == official.NAME:
        return official.bring(read(path), path, image, pooling or "avg", whole="mask_ratio" in spec, device=device)
    sizes = {"name": spec["architecture"], **image, "classes": 0, **({"pooling": pooling} if pooling else {})}
    with torch.device(device):
        model = network(**sizes)
    return model, {"arch": "timm", **sizes}, fit(read(path), model, path)


def check(where: str, spec: Mapping[str, Any], image: Mapping[str, int]) -> None:
    """Whether an entry of the config can be brought in; raises `UserError` that begins with `where`."""
    try:
        bring(spec, image, "meta")
    except ValueError as error:
        raise UserError(f"{where}.architecture: {error}") from None
    except UserError as error:
        raise UserError(f"{where}.weights: {error}") from None
