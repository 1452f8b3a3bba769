"""The model under explanation, and what explainers and removals may ask for beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import seeds
from unmask.config import Config, ModelId
from unmask.files import read_arrays, read_json
from unmask.layout import Layout

if TYPE_CHECKING:
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier


def load_model(
    config: Config, model_id: ModelId, device: torch.device
) -> tuple[Classifier | ConvClassifier, dict[str, Any]]:
    """A fine-tuned model with its pretraining network beside it, where it has one, and its side-car."""
    from unmask.models.checkpoint import load_classifier

    layout = Layout(config.results)
    encoder = None
    if "mask_ratio" in config["encoders"][model_id.encoder]:
        encoder = layout.encoder(model_id.encoder, model_id.pretrain_seed) / "encoder.safetensors"
        if model_id.encoder not in config.masked and read_json(encoder.with_suffix(".json"))["method"] == "imported":
            encoder = None  # a file without the network that the encoder was pretrained in
    return load_classifier(layout.model(model_id) / "model.safetensors", device, encoder)


def references(config: Config, domain: str, device: torch.device) -> torch.Tensor:
    """`explain.references` images of the training split, as `draw_references` does."""
    train = Layout(config.results).domain(domain) / "train.safetensors"
    return draw_references(train, config["explain"]["references"], config["seed"], domain, device)


def draw_references(train: Path, count: int, seed: int, domain: str, device: torch.device) -> torch.Tensor:
    """`count` images of a training split (or all of a smaller one), the same for every model of the domain.

    float32 [R, 3, H, W] in [0, 1].
    """
    import torch

    images = read_arrays(train)["images"]
    generator = seeds.numpy_generator(seed, "explain", "references", domain)
    rows = generator.permutation(len(images))[:count]
    return torch.from_numpy(images[rows]).to(device).permute(0, 3, 1, 2).float().div(255).contiguous()
