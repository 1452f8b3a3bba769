"""LeGrad: the positive gradient of each block's own logit to its attention, mean over heads, queries and blocks.

The logit of block b is the target's of final norm and head on the mean of all tokens after b, and its gradient goes to
the attention of b alone. With a class token the mean holds it and the patches, as in the authors' code: read from the
class token, the maps of eight small models trained on one deciding patch (two depths, four seeds) put anything from .03
to 1.00 of the other patches below it, against .48 to 1.00 from the mean. With mean pooling it was .42 to .85, so chance
with some models: the gradient says what more attention would do, not what is attended to, and swings with the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unmask.explainers import select, split
from unmask.models import rules

META = {
    "family": "attention",
    "class_specific": True,
    "signed": False,
    "resolution": "patch",
    "architectures": ["vit"],
    "passes": {"forward": "0", "backward": "1"},
    "citation": "Bousselham et al., LeGrad: Explainability via Feature Formation Sensitivity, ICCV 2025",
}


@torch.enable_grad()
def explain(model, images, targets, *, generator, removal=None) -> torch.Tensor:
    """Maps [N, gh, gw], 0 or more."""
    maps = []
    for part in split(images, 4):  # a pass holds every block's attention and its gradient
        with rules.attention_maps(model) as attention, _apart(model.backbone.blocks) as outputs:
            # The weights need no gradients, so the graph of the first attention starts at the input.
            model(images[part].detach().clone().requires_grad_())
            logits = sum(select(_decide(model, tokens), targets[part]).sum() for tokens in outputs)
            slopes = torch.autograd.grad(logits, attention)
        tokens = torch.stack([slope.relu().mean((1, 2)) for slope in slopes]).mean(0)
        maps.append(tokens[:, model.prefix :].reshape(-1, *model.grid))
    return torch.cat(maps)


def _decide(model, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [N, classes] of tokens [N, T, D] after any block."""
    vit = model.backbone
    return vit.head(vit.head_drop(vit.fc_norm(vit.norm(tokens.mean(1)))))


@contextmanager
def _apart(blocks) -> Iterator[list[torch.Tensor]]:
    """Collect the blocks' outputs, and cut the graph behind each: one backward pass then serves all blocks at once."""
    outputs: list[torch.Tensor] = []

    def hook(module, inputs, output):
        outputs.append(output)
        return output.detach().requires_grad_()

    handles = [block.register_forward_hook(hook) for block in blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
