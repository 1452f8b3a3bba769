"""The same attributions from the usual libraries, one image at a time: what one would write without this package.

captum and grad-cam with their defaults, except that budgets (steps, samples) are the plug-in's own, and that patches
are the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from unmask.models import rules
from unmask.models.classifier import Classifier, ConvClassifier
from unmask.patches import to_pixels

Call = Callable[[torch.Tensor, torch.Tensor], object]  # of an image [1, 3, H, W] and its target [1]


@dataclass(frozen=True)
class Subject:
    """What a library call is made for: a model, the plug-in's options, reference images [R, 3, H, W]."""

    model: Classifier | ConvClassifier
    options: dict[str, Any]
    references: torch.Tensor

    def mean(self, image: torch.Tensor) -> torch.Tensor:
        """An image of the mean colour."""
        return self.model.normalise.mean.expand_as(image).contiguous()

    def patches(self, image: torch.Tensor) -> torch.Tensor:
        """The number of each pixel's patch, int64 [1, 1, H, W]; contiguous, as captum's Shapley sampling needs it."""
        height, width = self.model.grid
        numbers = torch.arange(height * width, device=image.device).view(1, height, width)
        return to_pixels(numbers, tuple(image.shape[-2:])).unsqueeze(1).contiguous()

    @property
    def window(self) -> tuple[int, int, int]:
        """A patch in all channels."""
        return 3, self.model.patch, self.model.patch


def call(name: str, subject: Subject) -> Call | None:
    """The library's call for an explainer; None where no library has it.

    It may leave hooks on the model. Raises `ImportError` where the library is not installed.
    """
    make = _CALLS.get(name)
    return make(subject) if make else None


def _captum(name: str, given: Callable[[Subject, torch.Tensor], dict[str, Any]] = lambda subject, image: {}):
    """captum's class `name`, with the arguments `given`."""

    def make(subject: Subject) -> Call:
        from captum import attr

        method = getattr(attr, name)(subject.model)
        return lambda image, target: method.attribute(image, target=target, **given(subject, image))

    return make


def _noise_tunnel(kind: str):
    def make(subject: Subject) -> Call:
        from captum.attr import NoiseTunnel, Saliency

        method, samples = NoiseTunnel(Saliency(subject.model)), subject.options["samples"]
        return lambda image, target: method.attribute(image, nt_type=kind, nt_samples=samples, target=target)

    return make


def _cam(name: str):
    """grad-cam's class `name`, at the layer of our own rules."""

    def make(subject: Subject) -> Call:
        import pytorch_grad_cam
        from pytorch_grad_cam.ablation_layer import AblationLayerVit
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        model, given = subject.model, {}
        if model.arch == "vit":
            given["reshape_transform"] = partial(rules.tokens_to_grid, model)
            if name == "AblationCAM":
                given["ablation_layer"] = AblationLayerVit()
        method = getattr(pytorch_grad_cam, name)(model, [rules.cam_layer(model)], **given)
        return lambda image, target: method(image, [ClassifierOutputTarget(target.item())])

    return make


def _by_patches(subject: Subject, image: torch.Tensor) -> dict[str, Any]:
    return {
        "baselines": subject.mean(image),
        "feature_mask": subject.patches(image),
        "n_samples": subject.options["samples"],
    }


_CALLS = {
    "saliency": _captum("Saliency"),
    "input_x_gradient": _captum("InputXGradient"),
    "integrated_gradients": _captum(
        "IntegratedGradients", lambda s, image: {"baselines": s.mean(image), "n_steps": s.options["steps"]}
    ),
    "smoothgrad": _noise_tunnel("smoothgrad"),
    "vargrad": _noise_tunnel("vargrad"),
    "gradient_shap": _captum(
        "GradientShap", lambda s, image: {"baselines": s.references, "n_samples": s.options["samples"]}
    ),
    "deeplift": _captum("DeepLift", lambda s, image: {"baselines": s.mean(image)}),
    "guided_backprop": _captum("GuidedBackprop"),
    "deconvolution": _captum("Deconvolution"),
    "occlusion": _captum(
        "Occlusion",
        lambda s, image: {"baselines": s.mean(image), "sliding_window_shapes": s.window, "strides": s.window},
    ),
    "lime": _captum("Lime", _by_patches),
    "kernel_shap": _captum("KernelShap", _by_patches),
    "shapley_sampling": _captum("ShapleyValueSampling", _by_patches),
    "grad_cam": _cam("GradCAM"),
    "grad_cam_plusplus": _cam("GradCAMPlusPlus"),
    "hirescam": _cam("HiResCAM"),
    "xgrad_cam": _cam("XGradCAM"),
    "layer_cam": _cam("LayerCAM"),
    "eigen_cam": _cam("EigenCAM"),
    "score_cam": _cam("ScoreCAM"),
    "ablation_cam": _cam("AblationCAM"),
}
