"""Training in several processes at once: who is who, what they add up, and how they are started.

One process is `Alone` and pays for nothing. Several are held together by Accelerate (torch.distributed: NCCL between
GPUs, gloo between CPU processes): each takes its part of every batch, gradients are added up, the first one writes.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any, Protocol

import torch
from torch import nn

from unmask.errors import Stopped, UserError

LOOK = 10  # steps between two agreements of several processes: on a GPU each waits for all that was asked of it
PATIENCE = 10  # seconds for the others to end once the first process has


class World(Protocol):
    """The processes of one training. `rank` of `size`, on `device`; the first has rank 0.

    `counts` is whether what this one holds of the batch does: where images do not suffice for all it is a stand-in.
    """

    rank: int
    size: int
    device: torch.device
    counts: bool

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network to call in training, whose gradients are means over the processes."""

    def unsynchronised(self, network: nn.Module) -> AbstractContextManager:
        """A block in which gradients stay with each process: a later backward pass adds them up."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over the processes, the same in each."""

    def stack(self, values: torch.Tensor) -> torch.Tensor:
        """Everybody's `values`, [size, ...]."""

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Everybody's `rows` [n, ...] in the order of ranks, and where this process's begin; gradients go back to whose
        they are."""

    def agreed(self, wish: bool, step: int) -> bool:
        """Whether any process wishes it; of several, only every so many steps."""


class Alone:
    """One process."""

    rank, size, counts = 0, 1, True

    def __init__(self, device: torch.device):
        self.device = device

    def wrap(self, network: nn.Module) -> nn.Module:
        return network

    def unsynchronised(self, network: nn.Module) -> AbstractContextManager:
        return nullcontext()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def stack(self, values: torch.Tensor) -> torch.Tensor:
        return values.unsqueeze(0)

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        return rows, 0

    def agreed(self, wish: bool, step: int) -> bool:
        return wish


class _Summed(torch.autograd.Function):
    """Sums over the processes; their gradients are sums, too."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, world: World) -> torch.Tensor:
        ctx.world = world
        return world.sum(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.world.sum(gradient), None


class Together:
    """One of several processes, by Accelerate."""

    counts = True

    def __init__(self, accelerator: Any):
        self._accelerator = accelerator
        self.rank, self.size = accelerator.process_index, accelerator.num_processes
        self.device = accelerator.device

    def wrap(self, network: nn.Module) -> nn.Module:
        return self._accelerator.prepare_model(network)

    def unsynchronised(self, network: nn.Module) -> AbstractContextManager:
        return self._accelerator.no_sync(network)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return self._accelerator.reduce(values, "sum")

    def stack(self, values: torch.Tensor) -> torch.Tensor:
        return self._accelerator.gather(values.unsqueeze(0).to(self.device))

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        lengths = self.stack(torch.tensor(len(rows))).tolist()
        before, behind = sum(lengths[: self.rank]), sum(lengths[self.rank + 1 :])
        empty = [rows.new_zeros(n, *rows.shape[1:]) for n in (before, behind)]
        return _Summed.apply(torch.cat([empty[0], rows, empty[1]]), self), before

    def agreed(self, wish: bool, step: int) -> bool:
        if step % LOOK:
            return False
        return bool(self.sum(torch.tensor(float(wish), device=self.device)))


def spread(train: Callable[..., None], count: int, device: torch.device, *arguments: Any) -> None:
    """`train(world, *arguments)` in `count` processes, of which this is the first; errors are those of the first.

    Where `torchrun` or `accelerate launch` started this process, on one machine or several, it is one of theirs and
    starts none. On GPUs, process i of a machine takes its GPU i. Raises `UserError` where there are too few.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= set(os.environ):
        with _joined(device) as world:
            train(world, *arguments)
        return
    if count == 1:
        train(Alone(device), *arguments)
        return
    if device.type == "cuda" and (device.index is not None or torch.cuda.device_count() < count):
        raise UserError(
            f"pretrain.processes: {count} processes need a GPU each, and there are {torch.cuda.device_count()} with "
            f"device: {device}; set processes to their number, and device to auto or cuda"
        )
    shared = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")  # a GPU that is in use does not survive a fork
    others = [
        context.Process(
            target=_other, args=({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, device, train, arguments)
        )
        for rank in range(1, count)
    ]
    patience = 0.0
    try:
        for other in others:
            other.start()
        with _environment(shared), _joined(device) as world:
            train(world, *arguments)
        patience = PATIENCE
    except (UserError, Stopped):  # which the others mostly meet, too
        patience = PATIENCE
        raise
    except RuntimeError as error:  # a connection that broke is one
        for rank, other in enumerate(others, 1):
            other.join(1)
            if (other.exitcode or 0) < 0:
                raise UserError(
                    f"process {rank} of {count} was killed by signal {-other.exitcode} (9 is mostly a lack of memory); "
                    "run the same command again, with fewer processes or a smaller batch"
                ) from error
        raise
    finally:
        for other in others:
            if other.pid is not None:
                other.join(patience)
                other.kill()
                other.join()


def _other(place: dict[str, str], device: torch.device, train: Callable[..., None], arguments: tuple) -> None:
    """What a process that was started does; what ends the training is for the first one to say."""
    os.environ.update(place)
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with _joined(device) as world:
            train(world, *arguments)
    except (UserError, Stopped) as ended:
        sys.exit(ended.code if isinstance(ended, Stopped) else 2)
    except RuntimeError as error:
        # What another process's end looks like from here.
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            sys.exit(1)
        raise


@contextmanager
def _joined(device: torch.device) -> Iterator[Together]:
    """This process as one of those that its environment speaks of; all but the first are silent."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")  # precision is the trainer's own
    world = Together(accelerator)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere) if world.rank else nullcontext():
            yield world
    finally:
        accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
