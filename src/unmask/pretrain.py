"""Stage 2: pretrain an encoder by SimMIM on the pool of unlabelled images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest, seeds
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_arrays, sha256, write_table
from unmask.layout import Layout
from unmask.progress import bar

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

    from unmask.models.simmim import SimMIM

HELD_OUT = 0.02  # of the pool, never trained on: the history's second curve and the pictures


def settings(config: Config, *, encoder: str, pretrain_seed: int) -> dict[str, Any]:
    """All that decides this stage's result besides the pool."""
    return {
        "seed": [config["seed"], pretrain_seed],
        "encoder": config["encoders"][encoder],
        "image": config["image"],
        "model": config["model"],
        "pretrain": config["pretrain"],
        "code": digest.code("unmask.pretrain"),
        "versions": digest.versions("torch", "timm"),
    }


def run(config: Config, *, encoder: str, pretrain_seed: int) -> None:
    """Pretrain `encoder`; writes checkpoint, `history.csv` and `reconstruction.png`, resuming where it was killed.

    Masks, crops and the order of an epoch are drawn from a generator of (seed, encoder, epoch), so a resumed run
    goes the way an unbroken one would have gone.
    """
    if encoder not in config.pretrained:
        known = ", ".join(config.pretrained) or "(this config has none)"
        raise UserError(f"--encoder: '{encoder}' is not an encoder that is pretrained; it must be one of {known}")
    import time

    import torch

    from unmask.device import resolve
    from unmask.models.simmim import SimMIM, draw_masks
    from unmask.training import Resume

    started, device = time.perf_counter(), resolve(config["device"])
    layout, recipe = Layout(config.results), config["pretrain"]
    folder = layout.encoder(encoder, pretrain_seed)
    base = (config["seed"], "pretrain", encoder, pretrain_seed)
    train, held = _split(layout.pool, seeds.torch_generator(config["seed"], "pretrain", "held out"))
    draw = partial(
        draw_masks,
        size=config["image"]["size"],
        cell=recipe["mask_cell"],
        patch=config["image"]["patch"],
        ratio=config["encoders"][encoder]["mask_ratio"],
    )
    held_mask = draw(len(held), generator=seeds.torch_generator(config["seed"], "pretrain", "held-out masks"))
    held, held_mask = held.permute(0, 3, 1, 2).float().div(255).to(device), held_mask.to(device)

    torch.manual_seed(seeds.derive(*base, "weights"))
    model = SimMIM(**config["image"], **config["model"]).to(device)
    optimiser = _optimiser(model, recipe)
    own = settings(config, encoder=encoder, pretrain_seed=pretrain_seed)
    resume = Resume(folder / "resume.safetensors", digest.of([own, sha256(layout.pool)]))
    restored = resume.load(model, optimiser)
    history = restored[0]["history"] if restored else []
    if history:
        print(f"{encoder}: resuming after epoch {len(history)} of {recipe['epochs']}")

    with bar(recipe["epochs"] * len(train), f"pretrain {encoder}", " images") as progress:
        progress.update(len(history) * len(train))
        for epoch in range(len(history), recipe["epochs"]):
            generator = seeds.torch_generator(*base, "epoch", epoch)
            loss = _epoch(model, optimiser, train, draw, recipe, epoch, generator, progress, f"pretrain {encoder}")
            model.eval()
            with torch.inference_mode():
                held_loss = model(held, held_mask)[0].item()
            rate = optimiser.param_groups[0]["lr"]
            history.append({"epoch": epoch + 1, "loss": loss, "held_out_loss": held_loss, "learning_rate": rate})
            progress.set_postfix(loss=f"{loss:.4f}", held_out=f"{held_loss:.4f}")
            resume.save(model, optimiser, {"history": history})

    _write(
        folder,
        model,
        held[:6],
        held_mask[:6],
        history,
        {
            "architecture": {**config["image"], **config["model"]},
            "encoder": encoder,
            "method": config["encoders"][encoder]["method"],
            "mask_ratio": config.mask_ratio(encoder),
            "nominal_mask_ratio": config["encoders"][encoder]["mask_ratio"],
            "mask_cell": recipe["mask_cell"],
            "pretrain_seed": pretrain_seed,
            "images": len(train),
            "held_out": len(held),
            "loss": history[-1]["loss"],
            "held_out_loss": history[-1]["held_out_loss"],
            "pool_sha256": sha256(layout.pool),
            "settings": own,
        },
    )
    resume.clear()
    losses = f"loss {history[-1]['loss']:.4f}, held-out {history[-1]['held_out_loss']:.4f}"
    print(f"{encoder}: {losses}, {time.perf_counter() - started:.0f} s")


def _split(pool: Path, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and held-out images, uint8 [N, H, W, 3], the same for every encoder."""
    import torch

    images = torch.from_numpy(read_arrays(pool)["images"])
    if len(images) < 2:
        raise UserError(f"{pool} holds {len(images)} images; pretraining needs at least 2")
    order = torch.randperm(len(images), generator=generator)
    held_out = max(1, min(256, round(HELD_OUT * len(images))))
    return images[order[held_out:]], images[order[:held_out]]


def _optimiser(model: SimMIM, recipe: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW as in the official recipe: no decay on vectors, biases and position; the 3-d mask token is decayed."""
    import torch

    def plain(name: str, parameter: torch.Tensor) -> bool:
        return parameter.ndim == 1 or name.endswith((".bias", "pos_embed", "cls_token"))

    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if not plain(n, p)], "weight_decay": recipe["weight_decay"]},
        {"params": [p for n, p in named if plain(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


def _epoch(
    model: SimMIM,
    optimiser: torch.optim.Optimizer,
    images: torch.Tensor,
    draw: Callable[..., torch.Tensor],
    recipe: dict[str, Any],
    epoch: int,
    generator: torch.Generator,
    progress: tqdm,
    label: str,
) -> float:
    """One pass over the images; returns the mean loss."""
    from unmask.augment import Augmented
    from unmask.training import cosine, scaled_rate, set_learning_rate, train_step

    device = next(model.parameters()).device
    batches = Augmented(images, recipe["batch"], generator, crop_scale=tuple(recipe["crop_scale"]))
    masks = draw(len(images), generator=generator)
    rate = scaled_rate(recipe["base_learning_rate"], recipe["batch"])
    steps, warmup = len(batches) * recipe["epochs"], round(len(batches) * recipe["warmup_epochs"])
    model.train()
    total = 0.0
    for step, (batch, index) in enumerate(batches):
        set_learning_rate(optimiser, rate * cosine(epoch * len(batches) + step, steps=steps, warmup=warmup))
        loss, _ = model(batch.to(device), masks[index].to(device))
        where = f"{label}, epoch {epoch + 1}"
        total += train_step(loss, model, optimiser, recipe["gradient_clip"], where) * len(index)
        progress.update(len(index))
    return total / len(images)


def _write(
    folder: Path,
    model: SimMIM,
    images: torch.Tensor,
    mask: torch.Tensor,
    history: list[dict[str, float]],
    sidecar: dict[str, Any],
) -> None:
    """The table, the picture and, last, the checkpoint."""
    import pandas as pd
    import torch

    from unmask.figures import reconstruction
    from unmask.models import checkpoint

    with torch.inference_mode():
        colours = model.reconstruct(images, mask) * model.encoder.normalise.std + model.encoder.normalise.mean
    write_table(folder / "history.csv", pd.DataFrame(history))
    pictures = (tensor.permute(0, 2, 3, 1).cpu().numpy() for tensor in (images, colours))
    title = f"{sidecar['encoder']}: effective mask ratio {sidecar['mask_ratio']:.3g}"
    reconstruction.draw(folder / "reconstruction.png", *pictures, mask.cpu().numpy(), title=title)
    decoder = {f"decoder.{name}": tensor for name, tensor in model.decoder.state_dict().items()}
    checkpoint.save(folder / "encoder.safetensors", {**model.encoder.state_dict(), **decoder}, sidecar)
