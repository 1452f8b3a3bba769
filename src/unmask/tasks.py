"""What each method of pretraining trains on: images of the pool, with masks to fill in or labels to tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from unmask import seeds
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_arrays, read_metadata
from unmask.layout import Layout

if TYPE_CHECKING:
    import torch
    from torch import nn

    from unmask.augment import Augmented
    from unmask.streaming import Given, Stored, Streamed

HELD_OUT = 0.02  # of the pool, never trained on: the history's second curve and the pictures
DISTANCES = 256  # masks that AvgDist is the mean over


@dataclass(frozen=True)
class Task:
    """What a method trains on.

    images                  to train on: uint8 [N, H, W, 3], or where they are on disk
    held                    held out, uint8 [N, H, W, 3]
    given                   a number and a generator to what goes with so many of `images`: masks bool [n, gh, gw], or
                            the labels [N] of all
    held_given              the same of `held`
    build                   the network with fresh weights
    facts                   for the side-car
    """

    images: torch.Tensor | Stored
    given: Callable[[int, torch.Generator], torch.Tensor]
    held: torch.Tensor
    held_given: torch.Tensor
    build: Callable[[], nn.Module]
    facts: dict[str, Any]

    def epoch(
        self,
        batch: int,
        generator: torch.Generator,
        crop_scale: tuple[float, float],
        device: torch.device | None = None,
    ) -> tuple[Augmented | Streamed, torch.Tensor | Given]:
        """An epoch's batches, which yield images and their indices, and what goes with the images, by index."""
        import torch

        if isinstance(self.images, torch.Tensor):
            from unmask.augment import Augmented

            batches = Augmented(self.images, batch, generator, crop_scale, device)
            return batches, self.given(len(self.images), generator)
        from unmask.streaming import Given, Streamed

        streamed = Streamed(self.images, batch, generator, crop_scale, device)
        return streamed, Given(streamed, self.given)


def task_of(config: Config, encoder: str) -> Task:
    """What an encoder's method trains on; raises `UserError` where the pool has not got it."""
    labelled = config["encoders"][encoder]["method"] == "supervised"
    return _labels(config, encoder) if labelled else _masks(config, encoder)


def _masks(config: Config, encoder: str) -> Task:
    """Filling in what is masked, on all images of the pool."""
    from unmask.encoders import METHODS
    from unmask.models import pretraining

    spec, draw = config["encoders"][encoder], _masks_of(config, encoder)
    train, held, about = _from_disk(config) if config["pretrain"].get("pool") else (*_split(config)[:2], {})
    options = {key: spec[key] for key in METHODS[spec["method"]].defaults}
    return Task(
        train,
        lambda n, generator: draw(n, generator=generator),
        held,
        draw(len(held), generator=seeds.torch_generator(config["seed"], "pretrain", "held-out masks")),
        lambda: pretraining.build(spec["method"], {**config["image"], **config["model"]}, options),
        {"network": options, **mask_facts(config, encoder), **about},
    )


def _masks_of(config: Config, encoder: str) -> Callable[..., torch.Tensor]:
    """Draws so many masks of an encoder's pretraining, from a generator."""
    from unmask.models.simmim import draw_masks

    image, ratio = config["image"], config["encoders"][encoder]["mask_ratio"]
    return partial(draw_masks, size=image["size"], cell=config.mask_cell(encoder), patch=image["patch"], ratio=ratio)


def mask_facts(config: Config, encoder: str) -> dict[str, Any]:
    """What a side-car says of the masks that an encoder is pretrained with, or was."""
    from unmask.models.avg_dist import average_distance

    generator = seeds.torch_generator(config["seed"], "pretrain", "average distance")
    distances = _masks_of(config, encoder)(DISTANCES, generator=generator)
    return {
        "mask_ratio": config.mask_ratio(encoder),
        "nominal_mask_ratio": config["encoders"][encoder]["mask_ratio"],
        "mask_cell": config.mask_cell(encoder),
        "average_distance": average_distance(distances.numpy(), config["image"]["patch"]),
    }


def _labels(config: Config, encoder: str) -> Task:
    """Telling apart the classes of all domains, on the labelled images of the pool."""
    from unmask.models import pretraining

    pool = Layout(config.results).pool
    train, held, known = _split(config)
    names = read_metadata(pool).get("classes")
    if known is None or not names:
        raise UserError(f"encoders.{encoder}: {pool} holds no labels; run `unmask data --pool` again")
    classes = names.split("\n")
    labels, held_labels = known
    some, some_held = labels >= 0, held_labels >= 0
    if not some.any() or not some_held.any():
        raise UserError(
            f"encoders.{encoder}: {int(some.sum())} images of {pool} to train on and {int(some_held.sum())} held-out "
            "ones have labels; pretraining with labels needs one of each"
        )
    options = {"classes": len(classes)}
    return Task(
        train[some],
        lambda n, generator: labels[some],
        held[some_held],
        held_labels[some_held],
        lambda: pretraining.build("supervised", {**config["image"], **config["model"]}, options),
        {"network": options, "mask_ratio": None, "classes": classes},
    )


def _from_disk(config: Config) -> tuple[Stored, torch.Tensor, dict[str, Any]]:
    """As `_split`, of the pool in the config: images to train on, which stay on disk, held-out ones, and facts."""
    from unmask import pool
    from unmask.streaming import Stored

    given, size = config["pretrain"]["pool"], config["image"]["size"]
    listed, counts = pool.load(Layout(config.results).pool, given["path"])
    train, held = (Stored(listed, rows.numpy(), size, given["workers"]) for rows in _held_out(config, len(listed)))
    return train, held.whole(), {"pool": {"kind": given["kind"], **counts}}


def _held_out(config: Config, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of the images to train on and of those held out, of `n`, the same for every encoder."""
    import torch

    order = torch.randperm(n, generator=seeds.torch_generator(config["seed"], "pretrain", "held out"))
    held_out = max(1, min(256, round(HELD_OUT * n)))
    return order[held_out:], order[:held_out]


def _split(config: Config) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """Training and held-out images, uint8 [N, H, W, 3], the same for every encoder; and their labels, -1 = none."""
    import torch

    pool = Layout(config.results).pool
    arrays = read_arrays(pool)
    if "images" not in arrays:
        raise UserError(f"{pool} is the list of another pool; run `unmask data --pool` again")
    images = torch.from_numpy(arrays["images"])
    if len(images) < 2:
        raise UserError(f"{pool} holds {len(images)} images; pretraining needs at least 2")
    train, held = _held_out(config, len(images))
    labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
    return images[train], images[held], None if labels is None else (labels[train], labels[held])
