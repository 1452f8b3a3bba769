"""Layer-wise relevance propagation through a transformer, as input x gradient of a pass with altered gradients.

Relevance is R = x * g, where g is what the backward pass carries, so that each rule is a change of the gradient that
leaves the values as they are:

    linear, convolution, sum, mean    none: x * W'g is the epsilon rule for epsilon -> 0; biases take their share
    the same with gamma > 0           positive parts of a positive output (negative ones of a negative) count 1 + gamma
                                      times, in the shares and in their sum (biases too)
    LayerNorm                         the standard deviation is a constant (identity rule on x / sigma)
    activation f                      f(x) = x * c with c = f(x) / x a constant (identity rule)
    a product of two matrices         each takes half (uniform rule)
    softmax                           none: x * (R - s sum(R)) of the Taylor expansion is x times its gradient
    normalisation of the image        identity rule: what the normalised pixel gets, the pixel gets

Evidence that acts through the deviation is misread: where a patch lifts the logit by making the class token smaller
before the last norm, its relevance can be negative (seen on a small model; the authors' lxt gives the same).

Achtibat et al., AttnLRP, ICML 2024, section 3; Ali et al., XAI for Transformers, ICML 2022, for the attention as a
constant. Layer-wise relevance propagation is patented; its authors allow personal and scientific use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from timm.layers import Mlp
from torch import nn

from unmask.errors import Skip
from unmask.explainers import select, split
from unmask.models import rules


def relevance(model, images: torch.Tensor, targets: torch.Tensor, share: str, gamma: float) -> torch.Tensor:
    """Relevance of the pixels for the target logits, summed over the channels: [N, H, W]. One pass."""
    maps = []
    for part in split(images):
        with torch.enable_grad(), propagation(model, share, gamma), rules.leaf_output(model.normalise) as inputs:
            logits = model(images[part])
            (slope,) = torch.autograd.grad(select(logits, targets[part]).sum(), inputs)
        maps.append((inputs[0].detach() * slope).sum(1))
    return torch.cat(maps)


@contextmanager
def propagation(model, share: str, gamma: float = 0.0) -> Iterator[None]:
    """Inside, gradients of the model are those of the rules above; its outputs stay what they are, up to rounding.

    `share` says what attention does: "uniform" halves relevance between its factors (AttnLRP), "value" takes the
    attention as a constant, so that all goes to the values (CP-LRP). Works by forward hooks on this model's modules.
    Raises `Skip` where it knows no rule.
    """
    factors = SHARES[share]
    if any(type(block.mlp) is not Mlp for block in model.backbone.blocks):
        raise Skip("relevance propagation has no rule for the gated MLPs of this model")
    with ExitStack() as stack:

        def hook(module: nn.Module, rule) -> None:
            stack.callback(module.register_forward_hook(rule).remove)

        for module in model.backbone.modules():
            if isinstance(module, nn.LayerNorm):
                hook(module, layer_norm)
            elif gamma and isinstance(module, nn.Linear | nn.Conv2d):
                hook(module, lambda module, inputs, output: linear(module, inputs, output, gamma))
        for block in model.backbone.blocks:
            hook(block.mlp.act, activation)
            hook(block.attn.qkv, lambda module, inputs, output: attention(output, factors))
        yield


# What of their gradients queries, keys and values keep. Uniform: the values half of that of the product with the
# attention; queries and keys half of the attention's half.
SHARES = {"uniform": (0.25, 0.25, 0.5), "value": (0.0, 0.0, 1.0)}


def attention(qkv: torch.Tensor, factors: tuple[float, float, float]) -> torch.Tensor:
    """The stacked queries, keys and values [N, T, 3D], of whose gradients a share goes on.

    Taken before the product, so that fused attention serves as well.
    """
    shares = torch.tensor(factors).repeat_interleave(qkv.shape[-1] // 3).to(qkv)
    return _Ruled.apply(qkv, qkv.detach(), lambda slope: slope * shares)


def layer_norm(module: nn.LayerNorm, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """LayerNorm with a constant standard deviation."""
    tokens = inputs[0].detach()

    def back(slope: torch.Tensor) -> torch.Tensor:
        _, _, scale = torch.native_layer_norm(tokens, module.normalized_shape, None, None, module.eps)
        slope = slope * (scale if module.weight is None else scale * module.weight)
        return slope - slope.mean(-1, keepdim=True)

    return _Ruled.apply(inputs[0], output.detach(), back)


def activation(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """An elementwise function as a product with a constant; where the input is 0, so is its relevance."""
    values, output = inputs[0], output.detach()
    return _Ruled.apply(values, output, lambda slope: slope * _ratio(output, values))


class _Ruled(torch.autograd.Function):
    """`output`, a constant, with `back(gradient of output)` for the gradient of `inputs`."""

    @staticmethod
    def forward(ctx, inputs: torch.Tensor, output: torch.Tensor, back: Callable[[torch.Tensor], torch.Tensor]):
        ctx.back = back
        return output.view_as(output)

    @staticmethod
    def backward(ctx, slope: torch.Tensor):
        return ctx.back(slope), None, None


def linear(module: nn.Linear | nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor, gamma: float):
    """The gamma rule for inputs of either sign: contributions of the output's sign, bias included, are favoured."""
    values, *given = inputs  # the projection of relative attention is called with its bias
    bias = given[0] if given else module.bias
    bias = None if bias is None else bias.clamp(min=0)
    positive = _product(module, values.clamp(min=0), module.weight.clamp(min=0), bias)
    positive = positive + _product(module, values.clamp(max=0), module.weight.clamp(max=0), None)
    favoured = output + gamma * torch.where(output > 0, positive, output - positive)
    return favoured * _ratio(output, favoured)


def _product(module: nn.Linear | nn.Conv2d, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None):
    if isinstance(module, nn.Linear):
        return nn.functional.linear(values, weight, bias)
    return nn.functional.conv2d(values, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def _ratio(output: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`output / values` as a constant, 0 where `values` is 0; what is not finite in a model stays so in the map."""
    values = values.detach()
    return torch.where(values == 0, 0, output.detach() / values)
