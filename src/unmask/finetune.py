"""Stage 3: fine-tune an encoder on a domain; the recipe is the same for every encoder, `scratch` included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest, seeds
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table, sha256, write_json, write_table
from unmask.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier
    from unmask.training import Epoch


def settings(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int) -> dict[str, Any]:
    """All that decides this stage's result besides the data and the encoder's weights."""
    return {
        "seed": [config["seed"], pretrain_seed, finetune_seed],
        "domain": domain,
        "encoder": config["encoders"][encoder],
        "image": config["image"],
        "model": config["model"],
        "finetune": config["finetune"],
        "training": config.numerics,
        "code": digest.code("unmask.finetune"),
        "versions": digest.versions("torch", "timm", "scikit-learn"),
    }


def run(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int) -> None:
    """Fine-tune one model; writes the checkpoint that is best on the validation split, and its test predictions."""
    model_id = ModelId(domain, encoder, pretrain_seed, finetune_seed)
    if domain not in config["domains"] or encoder not in config["encoders"]:
        raise UserError(f"--domain, --encoder: the config has no model {domain} x {encoder}")
    import torch

    from unmask import missing
    from unmask.device import resolve
    from unmask.events import Events
    from unmask.processes import Alone
    from unmask.training import Resume, Trainer

    device, layout, recipe = resolve(config["device"]), Layout(config.results), config["finetune"]
    folder, data = layout.model(model_id), layout.domain(domain)
    classes = read_json(data / "card.json")["classes"]
    splits = {name: read_arrays(data / f"{name}.safetensors") for name in ("train", "val", "test")}
    architecture = _architecture(config, model_id, len(classes))
    base = (config["seed"], "finetune", model_id.folder)
    torch.manual_seed(seeds.derive(*base, "weights"))
    model, origin = _start(config, model_id, architecture)
    model.to(device)
    removal = missing.chosen(config.missing(encoder), model, encoder)
    optimiser = _optimiser(model, recipe)

    own = settings(config, domain=domain, encoder=encoder, pretrain_seed=pretrain_seed, finetune_seed=finetune_seed)
    train_sha256 = sha256(data / "train.safetensors")
    key = digest.of([own, origin["encoder_sha256"], train_sha256, sha256(data / "val.safetensors")])
    trainer = Trainer(
        model,
        optimiser,
        recipe,
        config["training"],
        label=f"finetune {model_id.folder}",
        images=len(splits["train"]["images"]),
        resume=Resume(folder / "resume.safetensors", key),
        world=Alone(device),
        best=_best,
    )

    def epoch(number: int) -> Epoch:
        torch.manual_seed(seeds.derive(*base, "drop path", number))
        return _epoch(splits["train"], recipe, model, removal, seeds.torch_generator(*base, "epoch", number))

    with Events(folder / "tensorboard" if config["training"]["tensorboard"] else None) as events:
        trainer.fit(epoch, lambda: _validate(model, splits["val"], device), events)

    model.load_state_dict(trainer.kept)
    chosen = _best(trainer.history)
    accuracy = _test(model, splits["test"], read_table(data / "test.csv"), classes, device, folder)
    _save(
        folder,
        trainer.kept,
        trainer.history,
        {
            "architecture": architecture,
            "domain": domain,
            "encoder": encoder,
            **origin,
            "pretrain_seed": pretrain_seed,
            "finetune_seed": finetune_seed,
            "classes": classes,
            **({"missing": removal} if removal else {}),
            "epoch": chosen["epoch"],
            "accuracy": {"val": chosen["val_accuracy"], "test": accuracy},
            "train_sha256": train_sha256,
            "settings": own,
        },
    )
    trainer.resume.clear()
    print(f"{model_id.folder}: test accuracy {accuracy:.3f} (epoch {chosen['epoch']} of {recipe['epochs']})")


def _architecture(config: Config, model_id: ModelId, classes: int) -> dict[str, Any]:
    """What `unmask.models.classifier.build` makes the model from."""
    spec = config["encoders"][model_id.encoder]
    if spec["method"] == "resnet18":
        return {"arch": "resnet", **config["image"], "classes": classes}
    if spec["method"] == "imported":
        return {**read_json(_encoder(config, model_id).with_suffix(".json"))["architecture"], "classes": classes}
    return {**config["image"], "classes": classes, **config["model"]}


def _encoder(config: Config, model_id: ModelId) -> Path:
    """The checkpoint of the encoder that a model starts from."""
    return Layout(config.results).encoder(model_id.encoder, model_id.pretrain_seed) / "encoder.safetensors"


def _start(
    config: Config, model_id: ModelId, architecture: dict[str, Any]
) -> tuple[Classifier | ConvClassifier, dict[str, Any]]:
    """The model before training, and where its weights come from."""
    from unmask.models import checkpoint
    from unmask.models.classifier import build
    from unmask.models.simmim import transfer

    model = build({**architecture, "drop_path": config["finetune"]["drop_path"]})
    if model_id.encoder not in config.pretrained:
        method = config["encoders"][model_id.encoder]["method"]
        return model, {"method": method, "mask_ratio": None, "encoder_sha256": None}
    path = _encoder(config, model_id)
    sidecar = read_json(path.with_suffix(".json"))
    try:
        transfer(checkpoint.load_state(path), model)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} does not fit the model in the config: {' '.join(str(error).split())}; give image and model the "
            "sizes that it was pretrained with, or run the stage pretrain again"
        ) from None
    return model, {"method": sidecar["method"], "mask_ratio": sidecar["mask_ratio"], "encoder_sha256": sha256(path)}


def _optimiser(model: Classifier, recipe: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW with timm's layer-wise decay: block i learns at `layer_decay ** (depth - i)` of the head's rate."""
    import torch
    from timm.optim import param_groups_layer_decay

    groups = param_groups_layer_decay(
        model.backbone,
        weight_decay=recipe["weight_decay"],
        layer_decay=recipe["layer_decay"],
        no_weight_decay_list=model.backbone.no_weight_decay() if hasattr(model.backbone, "no_weight_decay") else (),
    )
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


def _epoch(
    train: dict[str, np.ndarray],
    recipe: dict[str, Any],
    model: Classifier,
    removal: str | None,
    generator: torch.Generator,
) -> Epoch:
    """One pass over the training images, in an order drawn at random, flipped, patches `missing` by a removal."""
    import torch
    from torch.nn import functional

    from unmask import missing
    from unmask.augment import Augmented
    from unmask.training import Epoch

    device = next(model.parameters()).device
    labels = torch.from_numpy(train["labels"])
    batches = Augmented(torch.from_numpy(train["images"]), recipe["batch"], generator, device=device)
    lacking = missing.lacking(removal, model, len(labels), generator, recipe.get("missing_share", 1.0))

    def loss(network: torch.nn.Module, images: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, dict]:
        logits, given = network(lacking(images, index)), labels[index].to(device)
        return functional.cross_entropy(logits, given, label_smoothing=recipe["label_smoothing"]), {}

    return Epoch(batches, loss, len)


def _validate(model: Classifier, val: dict[str, np.ndarray], device: torch.device) -> dict[str, float]:
    import torch
    from torch.nn import functional

    logits, labels = predict(model, val["images"], device), torch.from_numpy(val["labels"])
    return {
        "val_loss": functional.cross_entropy(logits, labels).item(),
        "val_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }


def _best(history: list[dict[str, float]]) -> dict[str, float]:
    """Accuracy decides, the loss breaks its ties: of 200 validation images many epochs share the best one."""
    return max(history, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))


def _test(
    model: Classifier,
    test: dict[str, np.ndarray],
    table: pd.DataFrame,
    classes: list[str],
    device: torch.device,
    folder: Path,
) -> float:
    """Write the predictions and the classification report of the test split; returns the accuracy."""
    import pandas as pd
    from sklearn.metrics import classification_report

    logits, labels = predict(model, test["images"], device), test["labels"]
    prediction, probabilities = logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
    predictions = pd.DataFrame(
        {
            "image_id": table["image_id"].astype(str),
            "label": labels,
            "prediction": prediction,
            "correct": prediction == labels,
            **{f"prob_{i}": probabilities[:, i] for i in range(len(classes))},
        }
    )
    report = classification_report(
        labels, prediction, labels=range(len(classes)), target_names=classes, output_dict=True, zero_division=0
    )
    write_table(folder / "predictions.parquet", predictions)
    write_json(folder / "report.json", report)
    return float((prediction == labels).mean())


def _save(folder: Path, weights: dict[str, torch.Tensor], history: list[dict[str, float]], sidecar: dict) -> None:
    """The history and, last, the checkpoint."""
    import pandas as pd

    from unmask.models import checkpoint

    write_table(folder / "history.csv", pd.DataFrame(history))
    checkpoint.save(folder / "model.safetensors", weights, sidecar)


def predict(model: Classifier, images: np.ndarray, device: torch.device) -> torch.Tensor:
    """Logits float32 [N, classes] on the CPU for uint8 images [N, H, W, 3], in evaluation mode."""
    import torch

    from unmask.device import batch_size

    model.eval()
    with torch.inference_mode():
        parts = torch.from_numpy(images).split(batch_size(device))
        return torch.cat([model(part.permute(0, 3, 1, 2).float().div(255).to(device)).cpu() for part in parts])
