"""Stage 3: fine-tune an encoder on a domain; the recipe is the same for every encoder, `scratch` included."""

from __future__ import annotations

from typing import Any

from unmask import digest, seeds
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.files import read_arrays, read_json, read_table, sha256, write_json, write_table
from unmask.layout import Layout
from unmask.progress import bar


def settings(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int) -> dict[str, Any]:
    """All that decides this stage's result besides the data and the encoder's weights."""
    return {
        "seed": [config["seed"], pretrain_seed, finetune_seed],
        "domain": domain,
        "encoder": config["encoders"][encoder],
        "image": config["image"],
        "model": config["model"],
        "finetune": config["finetune"],
        "code": digest.code("unmask.finetune"),
        "versions": digest.versions("torch", "timm", "scikit-learn"),
    }


def run(config: Config, *, domain: str, encoder: str, pretrain_seed: int, finetune_seed: int) -> None:
    """Fine-tune one model; writes the checkpoint that is best on the validation split, and its test predictions."""
    model_id = ModelId(domain, encoder, pretrain_seed, finetune_seed)
    if domain not in config["domains"] or encoder not in config["encoders"]:
        raise UserError(f"--domain, --encoder: the config has no model {domain} x {encoder}")
    import pandas as pd
    import torch
    from sklearn.metrics import classification_report
    from timm.optim import param_groups_layer_decay
    from torch.nn import functional

    from unmask.augment import Augmented
    from unmask.device import resolve
    from unmask.models import checkpoint
    from unmask.models.simmim import transfer
    from unmask.models.vit import Classifier
    from unmask.training import Resume, cosine, scaled_rate, set_learning_rate, train_step

    device = resolve(config["device"])
    layout, recipe = Layout(config.results), config["finetune"]
    folder, data = layout.model(model_id), layout.domain(domain)
    classes = read_json(data / "card.json")["classes"]
    splits = {name: read_arrays(data / f"{name}.safetensors") for name in ("train", "val", "test")}
    images = torch.from_numpy(splits["train"]["images"])
    labels = torch.from_numpy(splits["train"]["labels"])
    own = settings(config, domain=domain, encoder=encoder, pretrain_seed=pretrain_seed, finetune_seed=finetune_seed)
    base = (config["seed"], "finetune", model_id.folder)

    architecture = {
        "size": config["image"]["size"],
        "patch": config["image"]["patch"],
        "classes": len(classes),
        **config["model"],
    }
    torch.manual_seed(seeds.derive(*base, "weights"))
    model = Classifier(**architecture, drop_path=recipe["drop_path"])
    source, sidecar = None, {"method": "scratch", "mask_ratio": None}
    if config["encoders"][encoder]["method"] != "scratch":
        path = layout.encoder(encoder, pretrain_seed) / "encoder.safetensors"
        sidecar, source = read_json(path.with_suffix(".json")), sha256(path)
        try:
            transfer(checkpoint.load_state(path), model)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path} does not fit the model in the config: {' '.join(str(error).split())}") from None
    model.to(device)

    groups = param_groups_layer_decay(
        model.backbone,
        weight_decay=recipe["weight_decay"],
        layer_decay=recipe["layer_decay"],
        no_weight_decay_list=model.backbone.no_weight_decay(),
    )
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    rate = scaled_rate(recipe["base_learning_rate"], recipe["batch"])
    per_epoch = -(-len(images) // recipe["batch"])
    schedule = {"steps": per_epoch * recipe["epochs"], "warmup": round(per_epoch * recipe["warmup_epochs"])}

    key = digest.of([own, source, sha256(data / "train.safetensors"), sha256(data / "val.safetensors")])
    resume = Resume(folder / "resume.safetensors", key)
    restored = resume.load(model, optimiser)
    history, best = (restored[0]["history"], restored[1]) if restored else ([], {})

    with bar(recipe["epochs"] * len(images), f"finetune {model_id.folder}", "images") as progress:
        progress.update(len(history) * len(images))
        for epoch in range(len(history), recipe["epochs"]):
            torch.manual_seed(seeds.derive(*base, "drop path", epoch))
            generator = seeds.torch_generator(*base, "epoch", epoch)
            model.train()
            total = 0.0
            for step, (batch, index) in enumerate(Augmented(images, recipe["batch"], generator)):
                set_learning_rate(optimiser, rate * cosine(epoch * per_epoch + step, **schedule))
                loss = functional.cross_entropy(
                    model(batch.to(device)), labels[index].to(device), label_smoothing=recipe["label_smoothing"]
                )
                where = f"finetune {model_id.folder}, epoch {epoch + 1}"
                total += train_step(loss, model, optimiser, recipe["gradient_clip"], where) * len(index)
                progress.update(len(index))
            val = predict(model, splits["val"]["images"], device)
            val_labels = torch.from_numpy(splits["val"]["labels"])
            history.append(
                {
                    "epoch": epoch + 1,
                    "loss": total / len(images),
                    "val_loss": functional.cross_entropy(val, val_labels).item(),
                    "val_accuracy": (val.argmax(1) == val_labels).double().mean().item(),
                }
            )
            # Accuracy decides, the loss breaks its ties: of 200 validation images many epochs share the best one.
            if max(history, key=lambda e: (e["val_accuracy"], -e["val_loss"])) is history[-1]:
                best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
            progress.set_postfix(loss=f"{history[-1]['loss']:.3f}", val=f"{history[-1]['val_accuracy']:.3f}")
            resume.save(model, optimiser, {"history": history}, best)

    model.load_state_dict(best)
    chosen = max(history, key=lambda e: (e["val_accuracy"], -e["val_loss"]))
    logits = predict(model, splits["test"]["images"], device)
    labels, prediction = splits["test"]["labels"], logits.argmax(1).numpy()
    probabilities = logits.double().softmax(1).numpy()
    table = pd.DataFrame(
        {
            "image_id": read_table(data / "test.csv")["image_id"].astype(str),
            "label": labels,
            "prediction": prediction,
            "correct": prediction == labels,
            **{f"prob_{i}": probabilities[:, i] for i in range(len(classes))},
        }
    )
    report = classification_report(
        labels, prediction, labels=range(len(classes)), target_names=classes, output_dict=True, zero_division=0
    )
    write_table(folder / "history.csv", pd.DataFrame(history))
    write_table(folder / "predictions.parquet", table)
    write_json(folder / "report.json", report)
    checkpoint.save(
        folder / "model.safetensors",
        best,
        {
            "architecture": architecture,
            "domain": domain,
            "encoder": encoder,
            "method": sidecar["method"],
            "mask_ratio": sidecar["mask_ratio"],
            "pretrain_seed": pretrain_seed,
            "finetune_seed": finetune_seed,
            "classes": classes,
            "epoch": chosen["epoch"],
            "accuracy": {"val": chosen["val_accuracy"], "test": float((prediction == labels).mean())},
            "encoder_sha256": source,
            "train_sha256": sha256(data / "train.safetensors"),
            "settings": own,
        },
    )
    resume.clear()
    accuracy = (prediction == labels).mean()
    print(f"{model_id.folder}: test accuracy {accuracy:.3f} (epoch {chosen['epoch']} of {recipe['epochs']})")


def predict(model: Any, images: Any, device: Any) -> Any:
    """Logits float32 [N, classes] on the CPU for uint8 images [N, H, W, 3], in evaluation mode."""
    import torch

    from unmask.device import batch_size

    model.eval()
    with torch.inference_mode():
        parts = torch.from_numpy(images).split(batch_size(device))
        return torch.cat([model(part.permute(0, 3, 1, 2).float().div(255).to(device)).cpu() for part in parts])
