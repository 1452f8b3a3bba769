"""What a step of pretraining costs beside its forward pass, backward pass and optimiser step, and where the rest goes.

    python benchmarks/pretrain.py
    python benchmarks/pretrain.py --config config/models.yaml --encoder mae_75 --steps 50

An encoder of the config trains on random images as the stage does; between its runs, a bare loop of forward + backward
+ step takes the same network over batches that are in memory already. benchmarks/README.md says what is printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import timed

from unmask import config as configs
from unmask.config import Config
from unmask.errors import UserError

if TYPE_CHECKING:
    import torch

    from unmask.tasks import Task
    from unmask.training import Trainer

GOAL = 0.9  # of the bare loop's throughput


def task_of(config: Config, encoder: str, count: int) -> Task:
    """What the encoder's method trains on, with `count` random images in memory in place of the pool's."""
    from unittest.mock import patch

    import torch

    from unmask import tasks

    if encoder not in config.masked:
        known = ", ".join(config.masked) or "(this config has none)"
        raise UserError(f"--encoder: '{encoder}' fills in no masks; it must be one of {known}")
    size = config["image"]["size"]
    images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)
    config.data["pretrain"].pop("pool", None)
    with patch.object(tasks, "_split", lambda _: (images, images[:1], None)):
        return tasks.task_of(config, encoder)


def trainer_of(config: Config, network: torch.nn.Module, count: int, device: torch.device) -> Trainer:
    """The stage's trainer for one epoch, which keeps no state: saving is once in minutes, not a step's."""
    from unmask.pretrain import _optimiser
    from unmask.processes import Alone
    from unmask.resume import Resume
    from unmask.training import Trainer

    class Nowhere(Resume):
        def save(self, *arguments: Any) -> None:
            pass

    recipe = {**config["pretrain"], "epochs": 1, "warmup_epochs": 0}
    where = {"label": "pretrain", "images": count, "resume": Nowhere(Path("nowhere"), ""), "world": Alone(device)}
    return Trainer(network, _optimiser(network, recipe), recipe, config["training"], **where)


def loops(config: Config, encoder: str, steps: int) -> tuple[torch.device, dict[str, Callable[[], None]]]:
    """What is timed, by name: as much as `steps` steps do of it. The first is ours, the second the bare loop."""
    import torch

    from unmask.device import resolve
    from unmask.events import Events
    from unmask.pretrain import _epoch

    device, batch = resolve(config["device"]), config["pretrain"]["batch"]
    task = task_of(config, encoder, steps * batch)
    torch.manual_seed(0)
    network = task.build().to(device)
    epoch = _epoch(task, config["pretrain"], torch.Generator(), device)
    ready = [(images.clone(), index) for images, index in epoch.batches]
    bare = trainer_of(config, network, len(task.images), device)
    made: list[torch.Tensor] = []

    def ours() -> None:
        one = trainer_of(config, network, len(task.images), device)
        one.fit(lambda _: _epoch(task, config["pretrain"], torch.Generator(), device), dict, Events(None))

    def plain() -> None:
        network.train()
        for images, index in ready:
            bare.optimiser.zero_grad(set_to_none=True)
            with bare._autocast:
                loss, _ = epoch.loss(network, images, index)
            loss.backward()
            bare.optimiser.step()
        made[:] = [loss.detach()] * len(ready)

    def draws() -> None:
        _epoch(task, config["pretrain"], torch.Generator(), device)

    def data() -> None:
        for _ in epoch.batches:
            pass

    def clip() -> None:
        for _ in ready:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config["pretrain"]["gradient_clip"])

    def look() -> None:
        for one in made:
            one.item()

    return device, {
        "training": ours,
        "bare loop": plain,
        "draws": draws,
        "images": data,
        "clip": clip,
        "losses": look,
    }


def measure(config: Config, encoder: str, steps: int, repeats: int) -> tuple[dict[str, list[float]], str]:
    """The seconds of each loop in each of `repeats` runs, taken in turns; and what they are seconds of."""
    import os
    from contextlib import redirect_stderr

    device, work = loops(config, encoder, steps)
    spent: dict[str, list[float]] = {name: [] for name in work}
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        for repeat in range(repeats + 1):  # the first one warms up
            for name, one in work.items():
                seconds = timed(one, device.type)[0]
                if repeat:
                    spent[name].append(seconds)
    return spent, "CPU" if device.type == "cpu" else "wall"


def report(spent: dict[str, list[float]], images: int, clock: str) -> str:
    """The lines that are printed: of each loop the best run, of the two throughputs the median over pairs of runs."""
    from statistics import median

    best = {name: min(seconds) for name, seconds in spent.items()}
    ratios = sorted(bare / ours for ours, bare in zip(spent["training"], spent["bare loop"], strict=True))
    whole, bare = best["training"], best["bare loop"]
    lines = [f"{'':12}{'images/s':>10}{f'{clock} s':>10}{'share':>8}"]
    for name, seconds in best.items():
        rate = f"{images / seconds:10.0f}" if name in ("training", "bare loop", "images") else f"{'':10}"
        lines.append(f"{name:12}{rate}{seconds:10.3f}{seconds / whole:8.1%}")
    rest = whole - bare - sum(best[name] for name in ("draws", "images", "clip", "losses"))
    lines.append(f"{'rest':12}{'':10}{rest:10.3f}{rest / whole:8.1%}")
    lines.append(
        f"training runs at {median(ratios):.1%} of the bare loop's throughput ({ratios[0]:.1%} to {ratios[-1]:.1%} "
        f"over {len(ratios)} runs; goal: {GOAL:.0%})"
    )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top.add_argument("--config", default="config.yaml", help="the config file (default: config.yaml)")
    top.add_argument("--encoder", help="an encoder that fills in masks (default: the config's first)")
    top.add_argument("--steps", type=int, default=20, help="steps of a run (default: 20)")
    top.add_argument("--repeats", type=int, default=5, help="runs of each, by turns (default: 5)")
    return top


def main() -> int:
    options = parser().parse_args()
    try:
        config = configs.load(options.config)
        encoder = options.encoder or next(iter(config.masked), "")
        spent, clock = measure(config, encoder, options.steps, options.repeats)
    except UserError as error:
        print(f"pretrain.py: {error}", file=sys.stderr)
        return 2
    batch = config["pretrain"]["batch"]
    print(f"{encoder}, {options.steps} steps of {batch} images, {config['training']['precision']}")
    print(report(spent, options.steps * batch, clock))
    return 0


if __name__ == "__main__":
    sys.exit(main())
