"""Transformers with relative positions: timm's Beit, whose attention adds a learned bias to its logits.

SimMIM's ViT (Xie et al., CVPR 2022, and its official code) has no position embedding. A table has one bias per head for
every distance between two patches, and three for the class token (to it, from it, to itself); all blocks add the same
one, so position reaches a mask token through attention alone. Layer scale begins at .1, queries and values have a bias
and keys have none, and the class token stands before the patches also where their mean is read. timm's Beit computes
just that; the official fine-tuning gives each block a table of its own, which Beit can have as well.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models import beit
from timm.models.beit import Beit
from torch import nn
from torch.nn import functional

POSITIONS = ("relative", "relative_per_block")  # one table for all blocks, as in pretraining; or one for each
LAYER_SCALE = 0.1
DEVIATION = 0.02  # of initial weights
TABLE = "relative_position_bias_table"


def build(*, shared: bool, **sizes: Any) -> Beit:
    """SimMIM's ViT with fresh weights; `shared` = one table of biases for all blocks, `sizes` as timm names them."""
    backbone = Beit(
        init_values=LAYER_SCALE,
        use_abs_pos_emb=False,
        use_rel_pos_bias=not shared,
        use_shared_rel_pos_bias=shared,
        **sizes,
    )
    return initialise(backbone)


def initialise(backbone: Beit, bound: float = 2.0) -> Beit:
    """The official code's initial weights: normal, cut off at +-`bound`; its pretraining cuts at one deviation.

    Unlike timm's, also of the patch embedding. Residual branches start the smaller the deeper they are.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=DEVIATION, a=-bound, b=bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(backbone.cls_token, std=DEVIATION, a=-bound, b=bound)
    backbone.fix_init_weight()
    if isinstance(backbone.head, nn.Linear):
        with torch.no_grad():
            backbone.head.weight.mul_(backbone.head_init_scale)
    return backbone


def hookable(backbone: Beit) -> Beit:
    """Make a Beit's queries, keys and values the output of a module, where timm reads its weights past the module.

    Nothing else changes: weights, their names and what is computed are timm's.
    """
    for block in backbone.blocks:
        block.attn.__class__, block.attn.qkv.__class__ = Attention, Projection
    return backbone


class Projection(nn.Linear):
    """A linear layer whose bias is given to it: `forward(inputs, bias)`."""

    def forward(self, inputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(inputs, self.weight, bias)


class Attention(beit.Attention):
    """timm's, with the projection called as a module, so that forward hooks see queries, keys and values."""

    def forward(self, x: torch.Tensor, shared_rel_pos_bias: torch.Tensor | None = None) -> torch.Tensor:
        given = None if self.q_bias is None else torch.cat((self.q_bias, self.k_bias, self.v_bias))
        stacked = self.qkv(x, given).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = stacked.permute(2, 0, 3, 1, 4).unbind(0)  # [N, heads, T, width / heads] each
        bias = shared_rel_pos_bias
        if self.relative_position_bias_table is not None:
            own = self._get_rel_pos_bias()
            bias = own if bias is None else own + bias
        if self.fused_attn:
            dropped = self.attn_drop.p if self.training else 0.0
            mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=dropped)
        else:
            logits = queries * self.scale @ keys.transpose(-2, -1)
            logits = logits if bias is None else logits + bias
            mixed = self.attn_drop(logits.softmax(-1)) @ values
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))


def bias(backbone: Beit, attend: torch.Tensor | None = None, places: torch.Tensor | None = None) -> torch.Tensor | None:
    """What all blocks add to their logits: [N or 1, heads or 1, T, T]; None = nothing.

    `attend` bool, to broadcast with [N, heads, T, T]: no query (row) attends to a key (column) where it is False.
    `places` int64 [N, K]: the tokens are those of the class and of the patches at these places, and no others.
    """
    found = None if backbone.rel_pos_bias is None else backbone.rel_pos_bias()
    if places is not None:
        if found is None:
            raise ValueError("blocks with biases of their own do not work on some of the patches alone")
        rows = torch.cat([places.new_zeros(len(places), 1), places + 1], 1)
        found = found[:, rows.unsqueeze(2), rows.unsqueeze(1)].transpose(0, 1)
    elif found is not None:
        found = found.unsqueeze(0)  # given without the images' dimension, fused attention takes thrice the time
    if attend is None:
        return found
    absent = torch.zeros(attend.shape, device=attend.device).masked_fill(~attend, -torch.inf)
    return absent if found is None else found + absent


def resampled(state: dict[str, torch.Tensor], own: dict[str, torch.Tensor], grid: tuple[int, int]) -> None:
    """Interpolate tables of biases, in place, from the square grid they were trained on to `grid`.

    By timm's version of the official rule: sampled densely at short distances, sparsely at long ones. The indices that
    the official code stores beside the tables are thrown away.
    """
    for name in [name for name in state if name.endswith("relative_position_index")]:
        del state[name]
    for name, table in state.items():
        if not name.endswith(TABLE) or name not in own or table.shape == own[name].shape or table.dim() != 2:
            continue
        if table.shape[1] == own[name].shape[1] and trained_grid(table):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # timm's, of how it indexes
                state[name] = resize_rel_pos_bias_table(table.float(), grid, tuple(own[name].shape))


def trained_grid(table: torch.Tensor) -> int | None:
    """Patches a side of the square grid that a table [(2 side - 1)^2 + 3, heads] is for; None where it is for none."""
    root = round(max(0, len(table) - 3) ** 0.5)
    return (root + 1) // 2 if root % 2 and root * root + 3 == len(table) else None
