"""SimMIM: a simple framework for masked image modelling (Xie et al., CVPR 2022, arXiv:2111.09886).

Whole cells of an image are masked; their patch embeddings become one learned mask token; all tokens go through the
encoder; a linear head predicts the pixels; the loss is the mean absolute error over masked pixels.
"""

from __future__ import annotations

import torch
from timm.models.beit import Beit
from torch import nn
from torch.nn import functional

from unmask.encoders import WINDOW, masked_cells
from unmask.models import relative
from unmask.models.resnet import ConvClassifier
from unmask.models.vit import Classifier, MaskedImages, in_full_precision

FRESH = ("backbone.norm.", "backbone.fc_norm.", "backbone.head.", "backbone.fc.")  # what fine-tuning begins anew


def draw_masks(
    n: int, *, size: int, cell: int, patch: int, ratio: float | list[float], generator: torch.Generator
) -> torch.Tensor:
    """Random masks bool [n, gh, gw] on the patch grid, True = MASKED (the paper's polarity).

    As in the official generator: of the `(size / cell)^2` cells, `ceil(count * ratio)` drawn without replacement are
    masked, and each covers `cell / patch` patches a side. Of a range [low, high] each image draws its own ratio,
    uniformly.
    """
    side = size // cell
    cells = side * side
    order = torch.rand(n, cells, generator=generator).argsort(1)
    if isinstance(ratio, list):
        low, high = ratio
        drawn = low + (high - low) * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        # A draw that is rounded up to the very end of the range must not mask one more.
        count = (drawn * cells).ceil().clamp(max=masked_cells(cells, high))
    else:
        count = torch.full((n, 1), masked_cells(cells, ratio))
    mask = torch.zeros(n, cells, dtype=torch.bool)
    mask.scatter_(1, order, torch.arange(cells) < count)
    scale = cell // patch
    return mask.view(n, side, side).repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def masked_l1(target: torch.Tensor, prediction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean absolute error over masked pixels and channels (SimMIM, eq. 1 and official code).

    `target`, `prediction` float [N, C, H, W]; `mask` bool [N, gh, gw], True = masked. A scalar >= 0.
    """
    channels, height = target.shape[1], target.shape[2]
    scale = height // mask.shape[1]
    pixels = mask.repeat_interleave(scale, 1).repeat_interleave(scale, 2).unsqueeze(1)  # [N, 1, H, W]
    error = (target - prediction).abs() * pixels
    return error.sum() / (pixels.sum() + 1e-5) / channels


def windowed(colours: torch.Tensor, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel in a square around every pixel: [N, C, H, W] each.

    The square has `window` (odd) pixels a side, less what lies outside of the image; the variance is unbiased. From the
    official code (its NORM_TARGET).
    """

    def mean(values: torch.Tensor) -> torch.Tensor:
        for kernel in ((window, 1), (1, window)):  # a mean over a rectangle is one of means
            around = tuple(side // 2 for side in kernel)
            values = functional.avg_pool2d(values, kernel, 1, around, count_include_pad=False)
        return values

    inside = torch.ones_like(colours[:1, :1])
    count = functional.avg_pool2d(inside, window, 1, window // 2, count_include_pad=True) * window**2
    centre = mean(colours)
    variance = (mean(colours.square()) - centre.square()) * (count / (count - 1))
    return centre, (variance.clamp(min=0) + 1e-6).sqrt()


class SimMIM(nn.Module):
    """The pretraining network around a classifier's backbone.

    `target` is "pixels", or "normalised": each pixel less the mean of the `target_window` around it, over their
    deviation.
    `forward(images [N, 3, H, W] in [0, 1], mask bool [N, gh, gw])` gives the loss and its parts, of which there are
    none here. What explainers and pictures ask of every network that reconstructs: `target` and `reconstruct`
    ([N, 3, H, W], here in the units in which the loss is taken), `loss`, `pixels`, and `colours`: whether what it
    predicts are colours, which can stand in for those removed.
    """

    betas = (0.9, 0.999)  # of AdamW

    def __init__(self, *, target: str = "pixels", target_window: int = WINDOW, **architecture):
        super().__init__()
        self.colours, self.window = target == "pixels", target_window
        # The classifier's head is unused here, and its final norm is SimMIM's: the encoder ends in a LayerNorm.
        self.encoder = Classifier(classes=0, **architecture)
        width, patch = self.encoder.backbone.embed_dim, self.encoder.patch
        if isinstance(self.encoder.backbone, Beit):
            relative.initialise(self.encoder.backbone, bound=relative.DEVIATION)
        self.encoder.backbone.norm = nn.LayerNorm(width, eps=1e-6)
        self.encoder.backbone.fc_norm = nn.Identity()
        self.encoder.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.encoder.mask_token, std=0.02, a=-0.02, b=0.02)
        self.decoder = nn.Sequential(nn.Conv2d(width, patch**2 * 3, kernel_size=1), nn.PixelShuffle(patch))

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.loss(self.target(images), self.reconstruct(images, mask), mask), {}

    def target(self, images: torch.Tensor) -> torch.Tensor:
        """What is to be predicted, [N, 3, H, W]: normalised colours, or those normalised again within the window."""
        colours = self.encoder.normalise(images)
        if self.colours:
            return colours
        mean, deviation = windowed(colours, self.window)
        return (colours - mean) / deviation

    def loss(self, target: torch.Tensor, prediction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`masked_l1`"""
        return masked_l1(target, prediction, mask)

    def reconstruct(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The prediction of every pixel, [N, 3, H, W], in units of the target."""
        return self.decode(self.encode(MaskedImages(images, ~mask)))

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """From encoded tokens [N, prefix + gh * gw, width] to pixels [N, 3, H, W], in units of the target."""
        height, width = self.encoder.grid
        tokens = tokens[:, self.encoder.prefix :].transpose(1, 2)  # [N, D, gh * gw]
        return in_full_precision(self.decoder, tokens.reshape(len(tokens), -1, height, width))

    def pixels(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The reconstruction of `images` [N, 3, H, W] under `mask` bool [N, gh, gw] (True = masked), cut to [0, 1].

        Of the target "normalised" it has the mean and deviation that `images` have around each pixel: good for a
        picture, but of masked patches it tells what was hidden.
        """
        normalise, predicted = self.encoder.normalise, self.reconstruct(images, mask)
        if not self.colours:
            mean, deviation = windowed(normalise(images), self.window)
            predicted = predicted * deviation + mean
        return (predicted * normalise.std + normalise.mean).clamp(0, 1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the encoder makes of whole images: its tokens pooled, [N, width]."""
        keep = torch.ones(len(images), *self.encoder.grid, dtype=torch.bool, device=images.device)
        return self.encoder.pooled(self.encode(MaskedImages(images, keep)))

    def encode(self, masked: MaskedImages) -> torch.Tensor:
        """Tokens after the last block and norm: [N, prefix + gh * gw, width]."""
        encoder = self.encoder
        tokens = encoder.replace(encoder.embed(masked.images), masked.keep)
        return encoder.backbone.norm(encoder.through(encoder.enter(tokens)))


def transfer(encoder: dict[str, torch.Tensor], model: Classifier | ConvClassifier) -> None:
    """Put a pretrained encoder's weights into a classifier; its final norm and head stay as initialised.

    As in the official fine-tuning, the encoder's last norm is not carried over where the mean of the tokens is
    normalised after pooling. The mask token comes along, frozen, so that removal by mask token stays possible.
    """
    own = model.state_dict()
    shared = {k: v for k, v in encoder.items() if k in own and not k.startswith(FRESH)}
    absent = [k for k in own if k not in shared and not k.startswith(FRESH)]
    if absent:
        raise ValueError(f"the encoder lacks {', '.join(absent[:3])}")
    other = [f"{k} {tuple(v.shape)} for {tuple(own[k].shape)}" for k, v in shared.items() if v.shape != own[k].shape]
    if other:
        raise ValueError(f"the encoder has {', '.join(other[:3])}{' ...' if len(other) > 3 else ''}")
    model.load_state_dict({**own, **shared})
    if "mask_token" in encoder:
        model.mask_token = nn.Parameter(encoder["mask_token"].clone(), requires_grad=False)
