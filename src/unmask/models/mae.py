"""MAE: masked autoencoders are scalable vision learners (He et al., CVPR 2022, arXiv:2111.06377).

The encoder sees the visible patches alone. A light decoder takes their tokens and, for every masked patch, one learned
token, each with its position, and predicts the pixels; the loss is the mean squared error over masked patches, by
default of pixels normalised per patch. Positions are fixed sines and cosines, in the encoder (where fine-tuning then
trains them) and in the decoder. Where `pooling` is "avg" there is no class token, as in this project's other encoders.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import nn

from unmask.models.vit import Classifier, in_full_precision

EPSILON = 1e-6  # of a patch's variance, as in the official code


def sincos_positions(width: int, grid: tuple[int, int], prefix: int = 0) -> torch.Tensor:
    """Fixed positions float32 [1, prefix + gh * gw, width]: sines and cosines of the column, then those of the row.

    The official `get_2d_sincos_pos_embed`; tokens before the patches have 0. `width` is a multiple of 4.
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    down, across = (torch.arange(side, dtype=torch.float64) for side in grid)
    rows, columns = torch.meshgrid(down, across, indexing="ij")
    parts = []
    for place in (columns, rows):
        angles = place.reshape(-1, 1) * frequencies
        parts += [angles.sin(), angles.cos()]
    positions = torch.cat(parts, 1)
    return torch.cat([positions.new_zeros(prefix, width), positions]).float().unsqueeze(0)


def to_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Pixels by patch, [N, gh * gw, patch * patch * C], of images [N, C, H, W] (the official `patchify`)."""
    n, channels, height, width = images.shape
    parts = images.reshape(n, channels, height // patch, patch, width // patch, patch)
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * channels)


def from_patches(patches: torch.Tensor, patch: int, grid: tuple[int, int]) -> torch.Tensor:
    """Images [N, C, H, W] of what `to_patches` gives (the official `unpatchify`)."""
    parts = patches.reshape(len(patches), *grid, patch, patch, -1)
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, grid[0] * patch, grid[1] * patch)


class Decoder(nn.Module):
    """Tokens of visible patches to the pixels of all, by `depth` transformer blocks of `width`."""

    def __init__(
        self, encoder_width: int, patch: int, grid: tuple[int, int], prefix: int, width: int, depth: int, heads: int
    ):
        super().__init__()
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", sincos_positions(width, grid, prefix))
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, patch**2 * 3)

    def forward(self, tokens: torch.Tensor, places: torch.Tensor, visible: torch.Tensor, prefix: int) -> torch.Tensor:
        """Predictions [N, P, patch * patch * 3] of tokens [N, prefix + K, D] that stand at `places` [N, K] of P.

        `visible` bool [N, P]; of places that are not, the token does not count.
        """
        tokens = self.embed(tokens)
        front, patches = tokens[:, :prefix], tokens[:, prefix:]
        whole = self.mask_token.to(tokens.dtype).repeat(*visible.shape, 1)
        whole = whole.scatter(1, places.unsqueeze(-1).expand_as(patches), patches)
        whole = torch.where(visible.unsqueeze(-1), whole, self.mask_token)
        tokens = torch.cat([front, whole], 1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return in_full_precision(lambda tokens: self.predict(self.norm(tokens)), tokens)[:, prefix:]


class MAE(nn.Module):
    """The pretraining network around a classifier's backbone: as `SimMIM`, whose interface it has.

    `target` is "normalised" (each patch less its mean, over its deviation: the paper's better features) or "pixels".
    `reconstruct` is in the units of that target; `pixels` has colours, and so needs the target "pixels".
    """

    betas = (0.9, 0.95)  # of AdamW

    def __init__(
        self,
        *,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
        target: str = "normalised",
        **architecture,
    ):
        super().__init__()
        self.normalised = target == "normalised"
        self.colours = not self.normalised
        self.encoder = Classifier(classes=0, **architecture)
        vit = self.encoder.backbone
        vit.norm, vit.fc_norm = nn.LayerNorm(vit.embed_dim, eps=1e-6), nn.Identity()
        grid, prefix = self.encoder.grid, self.encoder.prefix
        if vit.pos_embed is not None:  # relative positions are the blocks' own
            vit.pos_embed = nn.Parameter(sincos_positions(vit.embed_dim, grid, prefix), requires_grad=False)
        self.decoder = Decoder(
            vit.embed_dim, self.encoder.patch, grid, prefix, decoder_width, decoder_depth, decoder_heads
        )
        self.apply(_initialise)
        nn.init.xavier_uniform_(vit.patch_embed.proj.weight.view(vit.embed_dim, -1))

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.loss(self.target(images), self.reconstruct(images, mask), mask), {}

    def target(self, images: torch.Tensor) -> torch.Tensor:
        """What is to be predicted, [N, 3, H, W]: normalised colours, or those normalised again within each patch."""
        colours = self.encoder.normalise(images)
        if not self.normalised:
            return colours
        mean, deviation = self._scale(colours)
        return (colours - mean) / deviation

    def loss(self, target: torch.Tensor, prediction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean squared error over masked patches; `mask` bool [N, gh, gw]. A scalar >= 0."""
        error = to_patches((target - prediction).square(), self.encoder.patch).mean(-1)
        masked = mask.flatten(1)
        return (error * masked).sum() / masked.sum()

    def reconstruct(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The prediction of every patch from the visible ones, [N, 3, H, W], in the units of the target."""
        visible = ~mask.flatten(1)
        tokens, places = self.encode(images, visible)
        patches = self.decoder(tokens, places, visible, self.encoder.prefix)
        return from_patches(patches, self.encoder.patch, self.encoder.grid)

    def encode(self, images: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded tokens [N, prefix + K, width] of the visible patches, and their places [N, K]; `visible` bool [N, P].

        K is the largest number of visible patches. An image that has fewer is filled up with others of its own, to
        which no token attends; where they stand, nothing is read.
        """
        encoder, prefix = self.encoder, self.encoder.prefix
        tokens = encoder.enter(encoder.embed(images))
        counts = visible.sum(1)
        most = max(1, int(counts.max()))
        places = (~visible).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        patches = tokens[:, prefix:].gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        tokens, attend = torch.cat([tokens[:, :prefix], patches], 1), None
        if int(counts.min()) < most:
            real = torch.cat([visible.new_ones(len(visible), prefix), visible.gather(1, places)], 1)
            # What fills up attends to itself, since a row without any key is not a number.
            attend = (real.unsqueeze(1) | torch.eye(real.shape[1], dtype=torch.bool, device=real.device)).unsqueeze(1)
        return encoder.backbone.norm(encoder.through(tokens, attend=attend, places=places)), places

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the encoder makes of whole images: its tokens pooled, [N, width]."""
        height, width = self.encoder.grid
        visible = torch.ones(len(images), height * width, dtype=torch.bool, device=images.device)
        return self.encoder.pooled(self.encode(images, visible)[0])

    def pixels(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The reconstruction of `images` [N, 3, H, W] under `mask` (True = masked), cut to [0, 1].

        Of the target "normalised" it has the mean and deviation that each patch has in `images`: good for a picture,
        but of masked patches it tells what was hidden.
        """
        normalise, predicted = self.encoder.normalise, self.reconstruct(images, mask)
        if self.normalised:
            mean, deviation = self._scale(normalise(images))
            predicted = predicted * deviation + mean
        return (predicted * normalise.std + normalise.mean).clamp(0, 1)

    def _scale(self, colours: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of each patch over its pixels and channels, at every pixel: [N, C, H, W]."""
        patches = to_patches(colours, self.encoder.patch)
        mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
        pair = (part.expand_as(patches) for part in (mean, (variance + EPSILON).sqrt()))
        return tuple(from_patches(part, self.encoder.patch, self.encoder.grid) for part in pair)


def _initialise(module: nn.Module) -> None:
    """As the official code: Xavier's uniform weights, no biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
