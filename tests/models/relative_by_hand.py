"""A transformer with relative positions, written out from its weights: SimMIM's official forward pass, step by step.

Nothing of timm or of the classifier is used but the tensors in a state dict of timm's (and the official) names.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def bias(table: torch.Tensor, grid: int) -> torch.Tensor:
    """[heads, 1 + P, 1 + P] of a table [(2 grid - 1)^2 + 3, heads], query by key, the class token first."""
    count, last = grid * grid + 1, len(table)
    rows = torch.zeros(count, count, dtype=torch.long)
    for query in range(count):
        for key in range(count):
            if query == key == 0:
                rows[query, key] = last - 1
            elif key == 0:
                rows[query, key] = last - 2
            elif query == 0:
                rows[query, key] = last - 3
            else:
                down = (query - 1) // grid - (key - 1) // grid
                across = (query - 1) % grid - (key - 1) % grid
                rows[query, key] = (down + grid - 1) * (2 * grid - 1) + across + grid - 1
    return table[rows].permute(2, 0, 1)


def embed(state, images, patch):
    """Patch embeddings [N, P, D] of normalised images."""
    parts = functional.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    return parts.flatten(2).transpose(1, 2)


def blocks(state, tokens, heads, grid, kept=None):
    """Patch tokens [N, P, D] after the class token is put before them and all blocks; and the blocks' attentions.

    `kept`: those of the patches that the tokens are, where they are not all.
    """
    places = torch.tensor([0, *(one + 1 for one in (range(grid * grid) if kept is None else kept))])
    tokens = torch.cat([state["cls_token"].expand(len(tokens), -1, -1), tokens], 1)
    width, maps = tokens.shape[2], []
    for number in range(1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))):
        own = {name.split(".", 2)[2]: t for name, t in state.items() if name.startswith(f"blocks.{number}.")}
        table = own.get("attn.relative_position_bias_table", state.get("rel_pos_bias.relative_position_bias_table"))
        inner = functional.layer_norm(tokens, (width,), own["norm1.weight"], own["norm1.bias"], 1e-6)
        given = torch.cat([own["attn.q_bias"], torch.zeros(width).to(tokens), own["attn.v_bias"]])
        n, t, _ = inner.shape
        stacked = functional.linear(inner, own["attn.qkv.weight"], given).reshape(n, t, 3, heads, -1)
        q, k, v = stacked.permute(2, 0, 3, 1, 4)
        logits = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
        attention = (logits + bias(table, grid)[:, places][:, :, places]).softmax(-1)
        maps.append(attention)
        mixed = (attention @ v).transpose(1, 2).reshape(n, t, width)
        tokens = tokens + own["gamma_1"] * functional.linear(mixed, own["attn.proj.weight"], own["attn.proj.bias"])
        inner = functional.layer_norm(tokens, (width,), own["norm2.weight"], own["norm2.bias"], 1e-6)
        inner = functional.gelu(functional.linear(inner, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
        tokens = tokens + own["gamma_2"] * functional.linear(inner, own["mlp.fc2.weight"], own["mlp.fc2.bias"])
    return tokens, maps


def decide(state, tokens, pooling="avg"):
    """Logits: the mean patch token, normalised (the official fine-tuning), or the normalised class token."""
    name = "fc_norm" if pooling == "avg" else "norm"
    read = tokens[:, 1:].mean(1) if pooling == "avg" else tokens[:, 0]
    read = functional.layer_norm(read, read.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)
    return functional.linear(read, state["head.weight"], state["head.bias"])
