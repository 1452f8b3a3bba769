"""What ran a benchmark: interpreter, libraries, code and machine, without the names of hosts and folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from unmask.digest import PACKAGE
from unmask.files import sha256

LOCK = PACKAGE.parents[1] / "requirements.lock"


def environment() -> dict[str, Any]:
    """Interpreter, platform, the versions of unmask's libraries and of theirs, and the lock file's hash.

    `lock` is None where unmask was installed without its checkout.
    """
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": " ".join(part for part in (platform.system(), platform.machine(), *platform.libc_ver()) if part),
        "libraries": libraries(),
        "lock": sha256(LOCK) if LOCK.is_file() else None,
    }


@cache
def direct() -> tuple[str, ...]:
    """The libraries that unmask itself asks for."""
    return tuple(_required("unmask"))


@cache
def libraries() -> dict[str, str]:
    """Versions of all libraries that unmask needs, theirs included, by normalised name."""
    found, pending = {}, list(direct())
    while pending:
        name = pending.pop()
        if name in found:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # needed on another platform only, or with an extra
            continue
        pending += _required(name)
    return dict(sorted(found.items()))


def _required(name: str) -> list[str]:
    """Names that a distribution asks for, leaving out those of extras."""
    asked = (text for text in metadata.requires(name) or [] if not re.search(r"\bextra\s*==", text))
    return [re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", text)[0]).lower() for text in asked]


def commit() -> dict[str, Any] | None:
    """The commit of the checkout that the code lies in, and whether the code was edited since; None without one."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:  # a checkout around an installed package is not ours
        return None
    return {"commit": _git("rev-parse", "HEAD"), "edited": bool(_git("status", "--porcelain", "--", "."))}


def _git(*arguments: str) -> str | None:
    try:
        ran = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None


def hardware(device: str) -> dict[str, Any]:
    """The machine that this process sees: CPU, cores, memory, GPUs by name; `device` is what the config resolves to."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": _memory(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "gpu_runtime": (torch.version.cuda or torch.version.hip) if gpus else None,
        "device": device,
    }


def _cpu() -> str:
    """The CPU's model, as far as the system says it."""
    if sys.platform == "darwin":
        ran = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return ran.stdout.strip() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory() -> float | None:
    """GiB."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not a Unix
        return None
