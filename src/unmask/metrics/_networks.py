"""Other networks to explain: copies of a model with weights of chance, or with another origin of the colour scale."""

from __future__ import annotations

import copy
import re

import numpy as np
import torch

from unmask.case import Case
from unmask.errors import Skip
from unmask.models.vit import Normalise

_BLOCK = re.compile(r"backbone\.(blocks|layer\d+)\.\d+\.")
_HEAD = ("backbone.norm.", "backbone.fc_norm.", "backbone.head.", "backbone.fc.")


def twin(model: torch.nn.Module) -> torch.nn.Module:
    """A copy that shares the model's tensors: what is set on the copy leaves the model alone."""
    networks = [model]
    if getattr(model, "pretraining", None) is not None:
        networks.append(model.pretraining.network)
    tensors = {id(tensor): tensor for part in networks for tensor in (*part.parameters(), *part.buffers())}
    made = copy.deepcopy(model, tensors)
    for part in parts(made):
        for module in part.modules():
            module._forward_hooks.clear()  # those that count the model's own passes were copied too
    return made


def parts(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The model, and the network beside it that its encoder was pretrained in, where there is one."""
    pretraining = getattr(model, "pretraining", None)
    return [model] if pretraining is None else [model, pretraining.network]


def shifted(model: torch.nn.Module, shift: float) -> torch.nn.Module:
    """The network that sees in images `x + shift` what the model sees in `x`: its first layer takes the shift away."""
    made = twin(model)
    for part in parts(made):
        for module in part.modules():
            if isinstance(module, Normalise):
                module.mean = module.mean + shift
    return made


def units(model: torch.nn.Module) -> list[list[str]]:
    """Names of all tensors that training has set, in the order in which randomisation goes down the network.

    The head with the norm before it; each block, the last first; what comes before the blocks: patch and position
    embedding, class and mask token. Statistics of batch norm are among them; the normalisation of colours is not.
    """
    names = [name for name, _ in model.named_parameters()]
    names += [name for name, _ in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    blocks: dict[str, list[str]] = {}
    head, rest = [], []
    for name in names:
        inside = _BLOCK.match(name)
        if inside:
            blocks.setdefault(inside[0], []).append(name)
        else:
            (head if name.startswith(_HEAD) else rest).append(name)
    order = sorted(blocks, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], reverse=True)
    return [unit for unit in (head, *(blocks[name] for name in order), rest) if unit]


def cascade(case: Case, steps: int) -> list[torch.nn.Module]:
    """`steps` networks (or as many as there are units), each with more weights of chance; the last one has no others.

    Every tensor's draws are its own, seeded by its name, and the same in each network and for every explainer.
    """
    order = units(case.model)
    if not order:
        raise Skip("the model has no weights to randomise")
    ends = np.linspace(0, len(order), min(steps, len(order)) + 1).round().astype(int)[1:]
    return [
        case.shared.get(("network", case.seed, int(end)), lambda e=end: _randomised(case, order[:e])) for end in ends
    ]


def _randomised(case: Case, chosen: list[list[str]]) -> torch.nn.Module:
    made = twin(case.model)
    for name in (name for unit in chosen for name in unit):
        owner, _, leaf = name.rpartition(".")
        module = made.get_submodule(owner)
        tensor = getattr(module, leaf)
        drawn = _drawn(tensor, name, case.rng("weights", name))
        setattr(module, leaf, torch.nn.Parameter(drawn, tensor.requires_grad) if leaf in module._parameters else drawn)
    return made


def _drawn(tensor: torch.Tensor, name: str, rng: np.random.Generator) -> torch.Tensor:
    """Values of chance for a tensor: normal with its own mean and deviation, so that no layer is blown up or silenced.

    What an initialisation would give is no draw for a norm's scale (1), its offset (0) and most biases (0). Tensors
    whose values are all alike get timm's initial deviation, .02. Running variances have to stay positive: shuffled.
    """
    values = tensor.detach().cpu().numpy().astype(np.float64)
    if name.endswith("running_var"):
        drawn = rng.permuted(values)
    else:
        drawn = rng.normal(values.mean(), values.std() or 0.02, values.shape)
    return torch.from_numpy(drawn.astype(np.float32)).to(tensor)
