"""Stage 2: pretrain an encoder on the pool, by the method that the config names; or bring one in from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import digest, encoders, seeds
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import copy, read_json, sha256, write_json, write_table
from unmask.layout import Layout

if TYPE_CHECKING:
    import torch
    from torch import nn

    from unmask.processes import World
    from unmask.tasks import Task
    from unmask.training import Epoch

COLLAPSED = 2.0  # effective rank of the held-out images' features; with less they lie on a line
ENOUGH = 10  # held-out images, of which fewer have no rank to speak of


def settings(config: Config, *, encoder: str, pretrain_seed: int) -> dict[str, Any]:
    """All that decides this stage's result besides the pool."""
    spec = encoders.pretraining(config["encoders"][encoder])
    return {
        "seed": [config["seed"], pretrain_seed],
        "encoder": spec,
        **_shared(config, encoder),
        **({"weights": sha256(spec["weights"])} if spec["method"] == "imported" else {}),
        "image": config["image"],
        "model": config["model"],
        "pretrain": _recipe(config),
        "training": config.numerics,
        "code": digest.code("unmask.pretrain"),
        "versions": digest.versions("torch", "timm"),
    }


def run(config: Config, *, encoder: str, pretrain_seed: int) -> None:
    """Pretrain `encoder`; writes checkpoint and `history.csv`, and `reconstruction.png` where it learns to fill in.

    Masks, crops and the order of an epoch are drawn from a generator of (seed, encoder, epoch), so a run that was
    killed and resumed goes the way an unbroken one would have gone.
    """
    if encoder not in config.pretrained:
        known = ", ".join(config.pretrained) or "(this config has none)"
        raise UserError(f"--encoder: '{encoder}' is not an encoder that is pretrained; it must be one of {known}")
    if config.pretraining_of(encoder) != encoder:
        _take_over(config, encoder, pretrain_seed)
    elif config["encoders"][encoder]["method"] == "imported":
        _bring_in(config, encoder, pretrain_seed)
    else:
        from unmask.device import resolve
        from unmask.processes import spread

        spread(_train, config["pretrain"]["processes"], resolve(config["device"]), config, encoder, pretrain_seed)


def _recipe(config: Config) -> dict[str, Any]:
    """The section `pretrain`, less what changes no result: how many processes train, and read the pool."""
    recipe = {key: value for key, value in config["pretrain"].items() if key != "processes"}
    if "pool" in recipe:
        recipe["pool"] = {key: value for key, value in recipe["pool"].items() if key != "workers"}
    return recipe


def _shared(config: Config, encoder: str) -> dict[str, str]:
    source = config.pretraining_of(encoder)
    return {"pretrained_as": source} if source != encoder else {}


def _take_over(config: Config, encoder: str, pretrain_seed: int) -> None:
    """The finished pretraining of another encoder, which differs in its fine-tuning alone: copies of its files."""
    from unmask.models import checkpoint

    layout, source = Layout(config.results), config.pretraining_of(encoder)
    old, new = layout.encoder(source, pretrain_seed), layout.encoder(encoder, pretrain_seed)
    sidecar = read_json(old / "encoder.json")
    checkpoint.load_state(old / "encoder.safetensors")  # says what is wrong with a file that is not whole
    own = settings(config, encoder=encoder, pretrain_seed=pretrain_seed)
    for name in ("history.csv", "reconstruction.png"):
        if (old / name).is_file():
            copy(old / name, new / name)
    write_json(new / "encoder.json", {**sidecar, "encoder": encoder, "settings": own})
    copy(old / "encoder.safetensors", new / "encoder.safetensors")  # last: it vouches for the others
    print(f"{encoder}: the pretraining of {source}")


def _train(world: World, config: Config, encoder: str, pretrain_seed: int) -> None:
    import time

    import torch

    from unmask.events import Events
    from unmask.tasks import task_of
    from unmask.training import Resume, Trainer

    started, device = time.perf_counter(), world.device
    layout, recipe, method = Layout(config.results), config["pretrain"], config["encoders"][encoder]["method"]
    folder = layout.encoder(encoder, pretrain_seed)
    base = (config["seed"], "pretrain", encoder, pretrain_seed)
    task = task_of(config, encoder)
    held = task.held.permute(0, 3, 1, 2).float().div(255).to(device)
    held_given = task.held_given.to(device)

    torch.manual_seed(seeds.derive(*base, "weights"))
    model = task.build().to(device)
    optimiser = _optimiser(model, recipe)
    own = settings(config, encoder=encoder, pretrain_seed=pretrain_seed)
    trainer = Trainer(
        model,
        optimiser,
        recipe,
        config["training"],
        label=f"pretrain {encoder}",
        images=len(task.images),
        resume=Resume(folder / "resume.safetensors", digest.of([own, sha256(layout.pool)])),
        world=world,
    )

    def epoch(number: int) -> Epoch:
        return _epoch(task, recipe, seeds.torch_generator(*base, "epoch", number), device)

    def measure() -> dict[str, float]:
        return {**_held_out(model, held, held_given), "learning_rate": optimiser.param_groups[0]["lr"]}

    with Events(folder / "tensorboard" if config["training"]["tensorboard"] else None) as events:
        trainer.fit(epoch, measure, events)
    if world.rank:
        return

    model.eval()
    last = trainer.history[-1]
    _write(
        folder,
        model,
        trainer.history,
        {
            "architecture": {**config["image"], **config["model"]},
            "encoder": encoder,
            "method": method,
            **task.facts,
            "pretrain_seed": pretrain_seed,
            "images": len(task.images),
            "held_out": len(held),
            "loss": last["loss"],
            "held_out_loss": last["held_out_loss"],
            "effective_rank": last["effective_rank"],
            "pool_sha256": sha256(layout.pool),
            "settings": own,
        },
        (held[:6], held_given[:6], config.ratio_words(encoder)) if method != "supervised" else None,
    )
    trainer.resume.clear()
    losses = f"loss {last['loss']:.4f}, held-out {last['held_out_loss']:.4f}"
    print(f"{encoder}: {losses}, effective rank {last['effective_rank']:.1f}, {time.perf_counter() - started:.0f} s")
    if len(held) >= ENOUGH and last["effective_rank"] < COLLAPSED:
        print(f"{encoder}: COLLAPSED, the features of different images are nearly alike")


def _bring_in(config: Config, encoder: str, pretrain_seed: int) -> None:
    """Weights from a file in place of pretraining: there is no seed to them and no pool behind them."""
    from unmask.models import checkpoint, imported
    from unmask.models.simmim import SimMIM
    from unmask.tasks import mask_facts

    spec = config["encoders"][encoder]
    imported.check(f"encoders.{encoder}", spec, config["image"])
    model, sizes, left_out = imported.bring(spec, config["image"])
    sidecar = {
        "architecture": sizes,
        "encoder": encoder,
        # With its network, an encoder is what that network made it, here as elsewhere.
        "method": "simmim" if isinstance(model, SimMIM) else "imported",
        **(mask_facts(config, encoder) if "mask_ratio" in spec else {"mask_ratio": None}),
        "pretrain_seed": pretrain_seed,
        "left_out": left_out,
        "settings": settings(config, encoder=encoder, pretrain_seed=pretrain_seed),
    }
    folder = Layout(config.results).encoder(encoder, pretrain_seed)
    checkpoint.save(folder / "encoder.safetensors", checkpoint.network_state(model), sidecar)
    beside = f"; left out: {', '.join(left_out)}" if left_out else ""
    print(f"{encoder}: {spec['architecture']} from {spec['weights']}{beside}")


def _held_out(model: nn.Module, images: torch.Tensor, given: torch.Tensor) -> dict[str, float]:
    """The loss and its parts on held-out images, and in how many directions the features of the whole ones vary."""
    import torch

    from unmask.internals.rank import effective_rank

    model.eval()
    with torch.inference_mode():
        loss, parts = model(images, given)
        rank = effective_rank(model.features(images).unsqueeze(1)).mean()
    found = {"loss": loss, **parts}
    return {f"held_out_{name}": value.item() for name, value in found.items()} | {"effective_rank": rank.item()}


def _optimiser(model: nn.Module, recipe: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW as in the official recipe: no decay on vectors, biases and position; the 3-d mask token is decayed."""
    import torch

    def plain(name: str, parameter: torch.Tensor) -> bool:
        return parameter.ndim == 1 or name.endswith((".bias", "pos_embed", "cls_token"))

    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for n, p in named if not plain(n, p)], "weight_decay": recipe["weight_decay"]},
        {"params": [p for n, p in named if plain(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=model.betas, eps=1e-8, fused=True)


def _epoch(task: Task, recipe: dict[str, Any], generator: torch.Generator, device: torch.device) -> Epoch:
    """One pass over the images, its crops, order and masks drawn; a part's weight is what its loss is a mean over."""
    import torch

    from unmask.training import Epoch

    batches, given = task.epoch(recipe["batch"], generator, tuple(recipe["crop_scale"]), device)

    def loss(network: nn.Module, images: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, dict]:
        return network(images, given[index].to(device))

    def weight(index: torch.Tensor) -> float:
        found = given[index]
        return float(found.sum()) if found.dtype == torch.bool else float(len(found))  # masked patches, or images

    return Epoch(batches, loss, weight)


def _write(
    folder: Path,
    model: nn.Module,
    history: list[dict[str, float]],
    sidecar: dict[str, Any],
    shown: tuple[torch.Tensor, torch.Tensor, str] | None,
) -> None:
    """The table, the picture of images and masks `shown` under these words (if any) and, last, the checkpoint."""
    import pandas as pd
    import torch

    from unmask.figures import reconstruction
    from unmask.models import checkpoint

    write_table(folder / "history.csv", pd.DataFrame(history))
    if shown:
        images, mask, words = shown
        with torch.inference_mode():
            colours = model.pixels(images, mask)
        pictures = (tensor.permute(0, 2, 3, 1).cpu().numpy() for tensor in (images, colours))
        if sidecar["network"].get("target") == "normalised":
            words += "\npixels are predicted normalised, and shown with the image's own mean and contrast"
        title = f"{sidecar['encoder']}: {words}"
        reconstruction.draw(folder / "reconstruction.png", *pictures, mask.cpu().numpy(), title=title)
    checkpoint.save(folder / "encoder.safetensors", checkpoint.network_state(model), sidecar)
