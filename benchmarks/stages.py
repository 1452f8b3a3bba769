"""What each stage costs, against what its passes through the model would cost at best.

    python benchmarks/stages.py --config config/smoke.yaml

One domain and one encoder of the config go through all stages, each in a process of its own, in a new results folder.
benchmarks/README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import builtins
import copy
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask import config as configs
from unmask import plan
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import read_json, write_json
from unmask.passes import Passes

if TYPE_CHECKING:
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier

REPEATS = 5  # of a throughput, before and after a stage; the best counts


def stages(config: Config) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, module, wildcards) of every job of a config with one model and one group, in the order of the DAG."""
    (model,) = config.models
    seeds = {"pretrain_seed": model.pretrain_seed, "finetune_seed": model.finetune_seed}
    names = {"domain": model.domain, "encoder": model.encoder, **seeds}
    groups = [{**names, "group": group} for group in config.groups]
    pretrained = [
        ("pool", "data", {"pool": True}),
        ("pretrain", "pretrain", {"encoder": model.encoder, "pretrain_seed": model.pretrain_seed}),
    ]
    return [
        ("data", "data", {"domain": model.domain}),
        *(pretrained if config.pretrained else []),
        ("finetune", "finetune", names),
        *(("explain", "explain", group) for group in groups),
        *(("score", "score", group) for group in groups),
        *([("inside", "inside", names)] if config["inside"]["what"] else []),
        ("aggregate", "aggregate", {}),
        ("report", "report", {}),
    ]


def reduced(config: Config, results: Path, options: argparse.Namespace) -> Config:
    """The config with one domain, one encoder, one pair of seeds, all explainers in one group, and the limits asked
    for."""
    data = copy.deepcopy(config.data)
    for section, chosen in (("domains", options.domain), ("encoders", options.encoder)):
        name = chosen or next(iter(data[section]))
        if name not in data[section]:
            raise UserError(f"--{section[:-1]}: '{name}' is not in the config; it has {', '.join(data[section])}")
        data[section] = {name: data[section][name]}
    data["seeds"] = {key: values[:1] for key, values in data["seeds"].items()}
    data["explain"]["groups"] = {"all": [entry for group in config.groups.values() for entry in group]}
    data["explain"]["images"] = min(options.images or sys.maxsize, data["explain"]["images"])
    for training in ("pretrain", "finetune"):
        data[training]["epochs"] = min(options.epochs or sys.maxsize, data[training]["epochs"])
    data["results"] = str(results)
    return Config(data)


class Imports:
    """Seconds (CPU, wall) spent in import statements, the outermost ones, so that none counts twice."""

    def __init__(self):
        self.cpu = self.wall = 0.0
        self._depth, self._import = 0, builtins.__import__
        builtins.__import__ = self

    def __call__(self, *arguments, **named):
        self._depth += 1
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            return self._import(*arguments, **named)
        finally:
            self._depth -= 1
            if not self._depth:
                self.cpu += time.process_time() - cpu
                self.wall += time.perf_counter() - wall


def count_passes() -> Passes:
    """Count the images through every classifier and pretraining network made from now on."""
    from unmask.models.mae import MAE
    from unmask.models.simmim import SimMIM
    from unmask.models.vit import Classifier

    passes = Passes()

    def hook(module, arguments, output):
        first = output[0] if isinstance(output, tuple) else output
        if first.requires_grad:
            passes.backward += len(arguments[0])
        else:
            passes.forward += len(arguments[0])

    def hooked(original):
        @wraps(original)
        def made(self, *arguments, **named):
            original(self, *arguments, **named)
            self.register_forward_hook(hook)

        return made

    for network in (SimMIM, MAE, Classifier):
        network.__init__ = hooked(network.__init__)
    return passes


class Throughput:
    """Best images per second, forward and forward with backward, of `loss()` over one full batch of `count` images."""

    def __init__(self, loss: Callable[[], torch.Tensor], count: int, device: torch.device):
        self.device = device
        self.forward = self.backward = 0.0
        self._loss, self._count = loss, count

    def measure(self) -> None:
        """Take the better of what is known and some more repeats."""
        import torch

        def forward():
            with torch.no_grad():
                self._loss()

        self.forward = max(self.forward, self._rate(forward))
        self.backward = max(self.backward, self._rate(lambda: self._loss().backward()))

    def _rate(self, step: Callable[[], None]) -> float:
        step()
        return self._count / min(timed(step, self.device.type)[0] for _ in range(REPEATS))


def explaining(network: Classifier | ConvClassifier, size: int, device: torch.device) -> Throughput:
    """Of a frozen classifier of images `size` pixels a side, whose gradient goes to the images."""
    import torch

    from unmask.device import batch_size

    images = torch.rand(batch_size(device), 3, size, size, device=device, requires_grad=True)
    return Throughput(lambda: network(images).sum(), len(images), device)


def throughput(config: Config, stage: str) -> Throughput:
    """Of the network that a stage works with."""
    import torch

    from unmask.device import batch_size, resolve
    from unmask.models.vit import Classifier
    from unmask.tasks import task_of

    device, architecture = resolve(config["device"]), {**config["image"], **config["model"]}
    size, count = config["image"]["size"], batch_size(device)
    if stage not in ("pretrain", "finetune"):
        return explaining(Classifier(classes=4, **architecture).to(device).eval().requires_grad_(False), size, device)
    images = torch.rand(count, 3, size, size, device=device)
    encoder = config.models[0].encoder
    if stage == "finetune" or encoder not in config.masked:
        classifier = Classifier(classes=4, **architecture).to(device)
        return Throughput(lambda: classifier(images).sum(), count, device)
    task = task_of(config, encoder)
    network = task.build().to(device)
    masks = task.given(torch.Generator()).repeat(-(-count // len(task.images)), 1, 1)[:count].to(device)
    return Throughput(lambda: network(images, masks)[0], count, device)


def timed(work: Callable[[], None], device: str) -> tuple[float, float]:
    """(seconds, wall seconds) of `work()`: CPU seconds on a CPU, whose wall seconds depend on what else runs there."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started, wall = clock(), time.perf_counter()
    work()
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return clock() - started, time.perf_counter() - wall


def one(config: Config, number: int) -> dict[str, Any]:
    """Run a stage in this process, its output to <results>/<stage>.log, and say what it cost."""
    imports = Imports()
    name, module, wildcards = stages(config)[number]
    stage = importlib.import_module(f"unmask.{module}")
    own = time.process_time() - imports.cpu  # the interpreter, the config and the stage's own module
    passes, rates, device = Passes(), None, "cpu"
    if name in ("pretrain", "finetune", "explain", "score", "inside"):
        rates = throughput(config, name)
        rates.measure()
        passes, device = count_passes(), rates.device.type
    before_cpu, before_wall = imports.cpu, imports.wall
    with open(config.results / f"{name}.log", "w") as log, redirect_stdout(log), redirect_stderr(log):
        seconds, wall = timed(partial(stage.run, config, **wildcards), device)
    late_wall = imports.wall - before_wall
    late = imports.cpu - before_cpu if device == "cpu" else late_wall
    made = {"stage": name, "wall": wall - late_wall, "seconds": seconds - late, "start": own + imports.cpu,
            "forward": passes.forward, "backward": passes.backward}  # fmt: skip
    if rates:
        rates.measure()
        made |= {"forward_rate": rates.forward, "backward_rate": rates.backward}
        made["best"] = passes.forward / rates.forward + passes.backward / rates.backward
    return made


def measure(config: Config) -> list[dict[str, Any]]:
    """Run every stage in a process of its own, as the DAG does."""
    path, made = config.results / "benchmark.json", []
    write_json(config.results / "config.json", config.data)
    for number, (name, _, _) in enumerate(stages(config)):
        command = [sys.executable, __file__, "--config", config.results / "config.json", "--one", str(number), path]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise UserError(f"the stage {name} ended with exit code {ran.returncode}:\n{ran.stderr}")
        made.append(read_json(path))
        print(row(made[-1]), flush=True)
    path.unlink()
    return made


HEAD = (f"{'stage':10}{'wall s':>9}{'s':>9}{'forward':>10}{'backward':>10}{'forward/s':>11}{'backward/s':>12}"
        f"{'best s':>9}{'ratio':>8}")  # fmt: skip


def row(made: dict[str, Any]) -> str:
    line = f"{made['stage']:10}{made['wall']:9.2f}{made['seconds']:9.2f}"
    if "best" not in made:
        return line
    line += f"{made['forward']:10d}{made['backward']:10d}{made['forward_rate']:11.0f}{made['backward_rate']:12.0f}"
    return f"{line}{made['best']:9.2f}{made['seconds'] / made['best']:8.2f}"


def starts(whole: Config, small: Config, made: list[dict[str, Any]]) -> str:
    """The share of process starts in the whole config, whose work is scaled from what was measured by its passes."""
    jobs, cost, measured = plan.jobs(whole), plan.passes(whole), plan.passes(small)
    lines = [f"{'stage':10}{'jobs':>6}{'start s':>10}{'work s':>10}{'jobs x start':>15}{'work in all':>14}"]
    start_total = work_total = 0.0
    for entry in made:
        name = entry["stage"]
        if name == "pool":
            number = 1
        elif name == "data":
            number = len(whole["domains"])
        else:
            number = jobs[name]
        scale = cost[name].total / measured[name].total if name in cost else number
        start, work = number * entry["start"], scale * entry["seconds"]
        start_total, work_total = start_total + start, work_total + work
        lines.append(f"{name:10}{number:6d}{entry['start']:10.2f}{entry['seconds']:10.2f}{start:15.1f}{work:14.1f}")
    share = start_total / (start_total + work_total)
    lines.append(f"process starts: {start_total:.0f} s of {start_total + work_total:.0f} s, {share:.0%}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top.add_argument("--config", default="config.yaml", help="the config file (default: config.yaml)")
    top.add_argument("--results", help="an empty folder to leave the results in (default: a temporary one)")
    top.add_argument("--domain", help="the domain (default: the config's first)")
    top.add_argument("--encoder", help="the encoder (default: the config's first)")
    top.add_argument("--images", type=int, help="explain at most so many images")
    top.add_argument("--epochs", type=int, help="train at most so many epochs")
    top.add_argument("--one", nargs=2, metavar=("NUMBER", "FILE"), help=argparse.SUPPRESS)
    return top


def main() -> int:
    options = parser().parse_args()
    try:
        config = configs.load(options.config)
        if options.one:
            write_json(options.one[1], one(config, int(options.one[0])))
            return 0
        with tempfile.TemporaryDirectory() as temporary:
            results = Path(options.results or temporary)
            results.mkdir(parents=True, exist_ok=True)
            if any(results.iterdir()):
                raise UserError(f"--results: '{results}' is not empty; what lies there would not be computed again")
            small = reduced(config, results, options)
            print(f"{small.models[0].folder}, {small['explain']['images']} images explained\n\n{HEAD}", flush=True)
            made = measure(small)
            print(f"\nStarts in the whole of {options.config}:\n\n{starts(config, small, made)}")
    except UserError as error:
        print(f"stages.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
