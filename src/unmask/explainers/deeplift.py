"""DeepLIFT (Rescale): what the change from a baseline does to the logit, layer by layer; summed over the channels.

A nonlinearity's multiplier is its change of output over its change of input from the baseline (section 3.5.2), in place
of its slope; a max-pool's change is shared between where the image has its maximum and where the baseline has it.
So a map's sum is the target logit of the image less that of the baseline, on a network of linear layers, ReLU and
max-pooling. GELU, layer norm and attention have no rule and keep their slopes, as in captum: on a ViT this is
gradient x (input - baseline), with a black baseline `input_x_gradient`, and the sum is not kept.

Not captum's class, whose sum is off on a ResNet: where pooling windows overlap it keeps one window's share of several
(max_unpool assigns where it must add), and a ReLU before a pool does not see the pool's rule (captum issue 1104). It
also calls the model with a tuple, which other hooks cannot read.
The baselines go forward without a graph, the images forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unmask.explainers import gradient, split
from unmask.explainers._baselines import baseline_images

META = {
    "family": "gradient",
    "class_specific": True,
    "signed": True,
    "resolution": "pixel",
    "architectures": ["vit", "resnet"],
    "passes": {"forward": "1", "backward": "1"},
    "options": {"baseline": "zero"},
    "choices": {"baseline": ["mean", "zero", "blur", "white"]},
    "citation": "Shrikumar et al., Learning Important Features Through Propagating Activation Differences, ICML 2017",
}


def explain(model, images, targets, *, generator, removal=None, baseline="zero") -> torch.Tensor:
    """Maps [N, H, W], signed, in logits; raises `UserError` for an unknown baseline."""
    maps = []
    for part in split(images, 2):  # a pass also holds the baselines' activations
        some = images[part]
        start = baseline_images(baseline, "deeplift", model, some)
        maps.append(((some - start) * _multipliers(model, some, start, targets[part])).sum(1))
    return torch.cat(maps)


def _multipliers(model, images: torch.Tensor, starts: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Change of the target logit per change of each input value, [N, 3, H, W]."""
    known: list[tuple[torch.Tensor, torch.Tensor]] = []
    with _hooked(model, lambda module, inputs, output: known.append((inputs[0], output))), torch.no_grad():
        model(starts)
    rest = iter(known)  # a module's calls come in the same order in both passes

    def replace(module, inputs, output):
        return _RULES[type(module)](module, inputs[0], output.detach(), *next(rest))

    with _hooked(model, replace):
        return gradient(model, images, targets)


@contextmanager
def _hooked(model: nn.Module, hook: Callable) -> Iterator[None]:
    handles = []
    try:
        for module in model.modules():
            if type(module) in _RULES:
                handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _relu(module, inputs, output, inputs0, output0) -> torch.Tensor:
    """The output, as a linear function of the inputs whose slope is the multiplier."""
    change = inputs.detach() - inputs0
    multiplier = torch.where(change == 0, (inputs > 0).to(output), (output - output0) / change)
    return output + multiplier * (inputs - inputs.detach())


def _max_pool(module, inputs, output, inputs0, output0) -> torch.Tensor:
    """As `_relu`, of two inputs for each output: where the image has its maximum, and where the baseline has it."""
    place, place0 = _place(module, inputs.detach()), _place(module, inputs0)
    larger, change = torch.maximum(output, output0), inputs.detach() - inputs0
    step, step0 = _take(change, place), _take(change, place0)
    share = torch.where(step == 0, 1.0, (larger - output0) / step)
    share0 = torch.where(step0 == 0, 0.0, (output - larger) / step0)
    moved = inputs - inputs.detach()
    return output + share * _take(moved, place) + share0 * _take(moved, place0)


def _place(module: nn.MaxPool2d, inputs: torch.Tensor) -> torch.Tensor:
    window = module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
    return nn.functional.max_pool2d(inputs, *window, return_indices=True)[1]


def _take(values: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    return values.flatten(2).gather(2, place.flatten(2)).view_as(place)


_RULES = {nn.ReLU: _relu, nn.MaxPool2d: _max_pool}
