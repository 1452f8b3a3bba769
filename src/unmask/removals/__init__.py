"""What "absent" means for a patch: operators that perturbation explainers and faithfulness metrics share.

A removal's file holds `META` and `remove(model, images, keep)`. One that only paints pixels also has
`absent(model, images)`, the images with every patch removed, which is then made once for many subsets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.errors import Skip

if TYPE_CHECKING:
    import torch

    from unmask.models.vit import Classifier, DroppedImages, MaskedImages
    from unmask.registry import Plugin


class Removal:
    """A removal operator bound to a model."""

    def __init__(self, plugin: Plugin, model: Classifier):
        self.id = plugin.id
        self._model, self._module = model, plugin.load()
        self._last: tuple[torch.Tensor, int, torch.Tensor] | None = None

    def remove(self, images: torch.Tensor, keep: torch.Tensor) -> torch.Tensor | MaskedImages | DroppedImages:
        """What the model is called with to see `images` float32 [N, 3, H, W] in [0, 1] with patches absent.

        `keep` bool [N, gh, gw], True = present; or [N, K, gh, gw], K subsets of each image, for N * K inputs, those of
        the first image first.
        """
        many = keep.dim() == 4
        if hasattr(self._module, "absent"):
            filled = blend(images.unsqueeze(1), keep if many else keep.unsqueeze(1), self._absent(images).unsqueeze(1))
            return filled.flatten(0, 1)
        if many:
            images, keep = images.repeat_interleave(keep.shape[1], 0), keep.flatten(0, 1)
        return self._module.remove(self._model, images, keep)

    def _absent(self, images: torch.Tensor) -> torch.Tensor:
        # Curves ask for the same tensor at each of their steps; its version tells whether it was written to since.
        if self._last is None or self._last[0] is not images or self._last[1] != images._version:
            self._last = images, images._version, self._module.absent(self._model, images)
        return self._last[2]


def bind(plugin: Plugin, model: Classifier) -> Removal:
    """A removal for a model; raises `Skip` with the reason where the model cannot use it."""
    if model.arch not in plugin.meta["architectures"]:
        raise Skip(f"the removal {plugin.id} does not apply to the architecture {model.arch}")
    if "mask_token" in plugin.meta.get("needs", []) and model.mask_token is None:
        raise Skip(f"the removal {plugin.id} needs a mask token in the encoder, which only SimMIM pretrains")
    if "pretraining" in plugin.meta.get("needs", []) and model.pretraining is None:
        raise Skip(f"the removal {plugin.id} needs the encoder's pretraining network, and this encoder has none")
    if "colours" in plugin.meta.get("needs", []) and not model.pretraining.network.colours:
        raise Skip(f"the removal {plugin.id} needs colours, and this encoder's pretraining predicts normalised pixels")
    return Removal(plugin, model)


def blend(images: torch.Tensor, keep: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
    """`images` [..., 3, H, W] where `keep` [..., gh, gw] is True, `absent` elsewhere; leading dimensions broadcast."""
    import torch

    from unmask.patches import to_pixels

    return torch.where(to_pixels(keep, tuple(images.shape[-2:])).unsqueeze(-3), images, absent)
