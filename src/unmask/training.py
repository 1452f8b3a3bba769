"""What both trainings share: the schedule, and the loop over epochs and steps, which can be stopped and resumed."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unmask.errors import Stopped, UserError
from unmask.processes import LOOK, World
from unmask.progress import bar
from unmask.resume import Resume
from unmask.stopping import asked_to_stop

if TYPE_CHECKING:
    from unmask.events import Events

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cosine(step: int, *, steps: int, warmup: int) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up over `warmup` steps, then half a cosine down to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set every group to `rate` times its layer's `lr_scale`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def scaled_rate(base: float, batch: int) -> float:
    """The published rule of SimMIM and MAE, `base * batch / 512` (SimMIM's divisor)."""
    return base * batch / 512


@dataclass(frozen=True)
class Epoch:
    """One pass over the images, all its draws made.

    batches   yields (images, index) in the order of its list `batches` of index tensors. The trainer replaces that list
              with the parts of them that are left to do here: what yields must follow the list, and draw nothing.
    loss      (network, images, index) -> (loss, its parts by name), a mean over what `weight` counts
    weight    an index tensor -> how much of that there is: images, or masked patches
    """

    batches: Any
    loss: Callable[[nn.Module, torch.Tensor, torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]]
    weight: Callable[[torch.Tensor], float]


def parts(batch: torch.Tensor, *, rank: int, size: int, accumulate: int) -> list[torch.Tensor]:
    """What process `rank` of `size` takes of a batch of indices, in `accumulate` passes, of two images or more where it
    can; none where the batch has too few."""
    own = batch.tensor_split(size)[rank]
    return list(own.tensor_split(max(1, min(accumulate, len(own) // 2)))) if len(own) else []


class Trainer:
    """Trains a network by a recipe (`pretrain`, `finetune`), run as `how` (the section `training`) says.

    `history` has a row per finished epoch. Where `best` says that the last row of a history is the best one, the
    weights are kept in `kept`. Losses are looked at every few steps, which a GPU need not wait for in between; one that
    is not finite is a `UserError` before anything is saved.
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        recipe: dict[str, Any],
        how: dict[str, Any],
        *,
        label: str,
        images: int,
        resume: Resume,
        world: World,
        best: Callable[[list[dict[str, float]]], dict[str, float]] | None = None,
    ):
        self.network, self.optimiser, self.recipe, self.how = network, optimiser, recipe, how
        self.label, self.images, self.resume, self.world, self.best = label, images, resume, world, best
        kind, precision = world.device.type, PRECISIONS[how["precision"]]
        if kind == "cuda" and precision is torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
            raise UserError("training.precision: this GPU has no bf16; use fp16 or fp32")
        self._autocast = torch.autocast(kind, precision, enabled=precision is not torch.float32)
        self._scaler = torch.amp.GradScaler(kind, enabled=precision is torch.float16)
        self.history: list[dict[str, float]] = []
        self.kept: dict[str, torch.Tensor] = {}
        self._done, self._sums, self._random = 0, {}, None
        self._restore()
        if hasattr(network, "world"):
            network.world = world
        self._wrapped = world.wrap(network)
        self._called = torch.compile(self._wrapped) if how["compile"] else self._wrapped

    def fit(self, epoch: Callable[[int], Epoch], measure: Callable[[], dict[str, float]], events: Events) -> None:
        """Train what is left of the epochs; `measure` gives the rest of a row of the history, `events` follow it.

        Raises `Stopped` when a signal asked to end, and the state is saved.
        """
        first, epochs = self.world.rank == 0, self.recipe["epochs"]
        given = {"done": len(self.history) * self.images, "shown": first}
        with bar(epochs * self.images, self.label, " images", **given) as progress, asked_to_stop() as asked:
            self._progress, self._asked, self._saved = progress, asked, time.monotonic()
            for number in range(len(self.history), epochs):
                losses = self._epoch(epoch(number), number)
                found = measure()
                self.history.append({"epoch": number + 1, **losses, **found})
                shown = {"loss": losses["loss"], **dict([*found.items()][:1])}
                progress.set_postfix({name: f"{value:.4f}" for name, value in shown.items()}, refresh=False)
                if self.best and self.best(self.history) is self.history[-1]:
                    self.kept = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
                self._save(0, {})
                if first:
                    events.follow(self.history)
                if self.world.agreed(asked.signal is not None, 0) and number + 1 < epochs:
                    self._stop(f"after epoch {number + 1} of {epochs}")

    def _epoch(self, made: Epoch, number: int) -> dict[str, float]:
        """One pass over the images, or the rest of it; returns the mean loss and the means of its parts."""
        recipe, world, where = self.recipe, self.world, f"{self.label}, epoch {number + 1}"
        whole, done, sums = made.batches.batches, self._done, self._sums
        if self._random is not None:
            self._set_random()
        self._done, self._sums = 0, {}
        split = {"rank": world.rank, "size": world.size, "accumulate": self.how["accumulate"]}
        # Every process takes part in every step: one that has nothing of a batch takes an image that does not count.
        plan = [parts(batch, **split) or [batch[:1]] for batch in whole[done:]]
        made.batches.batches = [part for step in plan for part in step]
        rate = scaled_rate(recipe["base_learning_rate"], recipe["batch"])
        steps, warmup = len(whole) * recipe["epochs"], round(len(whole) * recipe["warmup_epochs"])
        self.network.train()
        self._progress.update(sum(map(len, whole[:done])))
        seen: list[tuple[torch.Tensor, int]] = []
        batches = iter(made.batches)
        for step in range(done, len(whole)):
            set_learning_rate(self.optimiser, rate * cosine(number * len(whole) + step, steps=steps, warmup=warmup))
            names, values = self._step(made, batches, whole[step], parts(whole[step], **split))
            seen.append((values, len(whole[step])))
            self._progress.update(len(whole[step]))
            last = step + 1 == len(whole)
            leave = not last and world.agreed(self._wanted(), step + 1)
            if last or leave or len(seen) == LOOK:
                self._look(seen, names, sums, where)
            if leave:
                self._save(step + 1, sums)
                if world.agreed(self._asked.signal is not None, 0):
                    self._stop(f"in epoch {number + 1} of {recipe['epochs']}, after step {step + 1} of {len(whole)}")
        means = {name: total / sum(map(len, whole)) for name, total in sums.items()}
        if "skipped_steps" in means:
            means["skipped_steps"] = int(sums["skipped_steps"])
        return means

    def _step(
        self, made: Epoch, batches: Any, batch: torch.Tensor, own: list[torch.Tensor]
    ) -> tuple[list[str], torch.Tensor]:
        """Forward and backward over one's `own` parts of a batch, clip, step; returns the names of the loss and its
        parts, and their values, of which each is this process's share of the batch's."""
        self.optimiser.zero_grad(set_to_none=True)
        self.world.counts, seen = bool(own), None
        for place in range(max(1, len(own))):
            images, index = next(batches)
            share = self._share(made, index, batch) if own else 0.0
            with self.world.unsynchronised(self._wrapped) if place + 1 < len(own) else nullcontext():
                with self._autocast, self._compiling():
                    loss, named = made.loss(self._called, images, index)
                # Gradients are means over the processes; what counts is their sum.
                self._scaler.scale(loss * (share * self.world.size)).backward()
            values = torch.stack([one.detach().float() for one in (loss, *named.values())]) * share
            seen = values if seen is None else seen + values
        names = ["loss", *named]
        self._scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe["gradient_clip"])
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self._scaler.is_enabled():
            names.append("skipped_steps")
            seen = torch.cat([seen, (~norm.isfinite()).float().view(1) / self.world.size])
        return names, seen

    @contextmanager
    def _compiling(self) -> Iterator[None]:
        """Where torch.compile cannot, such as without a C++ compiler, that is a `UserError`."""
        try:
            yield
        except Exception as error:
            if not self.how["compile"] or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"training.compile: torch cannot compile the network here ({reason}); set it to false"
            ) from error

    @staticmethod
    def _share(made: Epoch, index: torch.Tensor, batch: torch.Tensor) -> float:
        """A part's share of the batch's loss."""
        return 1.0 if len(index) == len(batch) else made.weight(index) / made.weight(batch)

    def _look(self, seen: list[tuple[torch.Tensor, int]], names: list[str], sums: dict[str, float], where: str) -> None:
        """Add what the steps since the last look lost to `sums`, weighted by their images."""
        rows = self.world.sum(torch.stack([values for values, _ in seen])).tolist()
        for row, (_, images) in zip(rows, seen, strict=True):
            if not math.isfinite(row[0]):
                others = ", use training.precision fp32" if self._scaler.is_enabled() else ""
                raise UserError(
                    f"{where}: the loss is {row[0]}; lower the base_learning_rate{others}, or look for broken images "
                    "in the data"
                )
            for name, value in zip(names, row, strict=True):
                sums[name] = sums.get(name, 0.0) + value * (1 if name == "skipped_steps" else images)
        if self._scaler.is_enabled() and self._scaler.get_scale() < 1:
            raise UserError(f"{where}: gradients overflow in fp16; use training.precision bf16 or fp32")
        self._progress.set_postfix(loss=f"{rows[-1][0]:.4f}", refresh=False)
        seen.clear()

    def _wanted(self) -> bool:
        """Whether the state is to be saved now: it is time to, or a signal asks to end."""
        return self._asked.signal is not None or time.monotonic() - self._saved > 60 * self.how["checkpoint_minutes"]

    def _stop(self, where: str) -> None:
        number = self._asked.signal
        name, code = (number.name if number else "a signal to another process"), 128 + (number or signal.SIGTERM)
        raise Stopped(
            f"{self.label}: stopped by {name} {where}; the same command goes on from there (exit code {code})", code
        )

    def _save(self, step: int, sums: dict[str, float]) -> None:
        """Keep the state after so many steps of the epoch that comes after the history."""
        extra = {f"kept.{name}": tensor for name, tensor in self.kept.items()}
        if step:
            extra["random"] = self.world.stack(self._get_random())
        if self.world.rank == 0:
            progress = {"history": self.history, "step": step, "sums": sums, "scaler": self._scaler.state_dict()}
            self.resume.save(self.network, self.optimiser, progress, extra)
        self._saved = time.monotonic()

    def _restore(self) -> None:
        restored = self.resume.load(self.network, self.optimiser)
        if restored is None:
            return
        progress, extra = restored
        self.history, self._done, self._sums = progress["history"], progress["step"], progress["sums"]
        self._scaler.load_state_dict(progress["scaler"])
        self.kept = {name.removeprefix("kept."): t for name, t in extra.items() if name.startswith("kept.")}
        states = extra.get("random")
        if states is not None and self.world.rank < len(states):
            self._random = states[self.world.rank]
        within = f" and step {self._done} of the next" if self._done else ""
        print(f"{self.label}: resuming after epoch {len(self.history)} of {self.recipe['epochs']}{within}")

    def _get_random(self) -> torch.Tensor:
        """The state of the generator that stochastic depth draws from."""
        device = self.world.device
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def _set_random(self) -> None:
        device = self.world.device
        if device.type == "cuda":
            torch.cuda.set_rng_state(self._random, device)
        else:
            torch.set_rng_state(self._random)
        self._random = None
