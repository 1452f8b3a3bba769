"""Where torch runs, and how many images it takes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmask.errors import UserError

if TYPE_CHECKING:
    import torch


def resolve(name: str) -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU; other names are torch's (`cpu`, `cuda:1`).

    On a CPU torch is held to one thread: sums depend on the number of threads, and the DAG's parallelism comes
    from its jobs.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: '{name}' is not a torch device; use auto, cpu or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: '{name}' was asked for, but torch sees no GPU here; use auto or cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
        _keep_freed_memory()
    return device


def batch_size(device: torch.device) -> int:
    """Images per pass that keep the device busy without filling its memory."""
    return 32 if device.type == "cpu" else 1024  # more leave a core's cache


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors free: to return it and take it again for every batch costs a tenth of the time."""
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**25)  # the most that glibc allows
