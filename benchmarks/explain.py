"""What each explainer costs, against what its passes would cost at best, and against the libraries one would else use.

    python benchmarks/explain.py
    python benchmarks/explain.py --explainers rise occlusion@mask_token --images 16

A model of the config's size with random weights explains random images, every explainer in this one process.
benchmarks/README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import copy
import io
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages import explaining, timed

from unmask import config as configs
from unmask import registry
from unmask.config import Config, ExplainerSpec
from unmask.errors import Skip, UserError
from unmask.passes import Passes

if TYPE_CHECKING:
    import torch

    from unmask.models.classifier import Classifier, ConvClassifier

CLASSES, MASK_RATIO = 4, 0.6
SHORTEST = 0.2  # seconds of a measurement, in which what is quick is repeated


@dataclass(frozen=True)
class Inputs:
    """What the stage explain would hold: images [N, 3, H, W], targets [N], masks [N, H, W], references [R, 3, H, W]."""

    model: Classifier | ConvClassifier
    images: torch.Tensor
    targets: torch.Tensor
    masks: torch.Tensor
    references: torch.Tensor


@dataclass(frozen=True)
class Cost:
    """Of one image: passes, seconds, the passes' seconds in full batches, the library's seconds (None: it has none)."""

    passes: Passes
    wall: float
    seconds: float
    best: float
    library: float | None


def inputs(config: Config, arch: str, images: int) -> Inputs:
    """A model of the config's size with random weights, as `subject.load_model` gives it, and random images."""
    import torch

    from unmask.device import resolve
    from unmask.models.classifier import build
    from unmask.models.simmim import SimMIM
    from unmask.models.vit import Pretraining

    device, size = resolve(config["device"]), config["image"]["size"]
    torch.manual_seed(config["seed"])
    model = build({"arch": arch, "classes": CLASSES, **config["image"], **(config["model"] if arch == "vit" else {})})
    if arch == "vit":
        network = SimMIM(**config["image"], **config["model"]).eval().requires_grad_(False).to(device)
        model.mask_token = torch.nn.Parameter(network.encoder.mask_token.detach().clone())
        model.pretraining = Pretraining(network, MASK_RATIO, config["pretrain"]["mask_cell"])
    pixels = torch.rand(images + config["explain"]["references"], 3, size, size).to(device)
    return Inputs(
        model.eval().requires_grad_(False).to(device),
        pixels[:images].contiguous(),
        (torch.arange(images) % CLASSES).to(device),
        torch.rand(images, size, size) > 0.9,
        pixels[images:].contiguous(),
    )


def measure(config: Config, spec: ExplainerSpec, given: Inputs, repeats: int, library_images: int) -> Cost:
    """Explain the images `repeats` times, the best counts; raises `Skip` where the explainer does not apply."""
    import torch

    from unmask import explainers, removals
    from unmask.passes import counted

    device, images = given.images.device, given.images
    removal = None
    if spec.removal:
        removal = removals.bind(registry.find("removals", spec.removal, config.plugins), given.model)
    explain = explainers.bind(spec, given.model, removal, given.references)

    def run() -> None:
        generator = torch.Generator().manual_seed(0)
        for part in explainers.split(images, 4):  # as in the stage explain
            explain(images[part], given.targets[part], generator, given.masks[part])

    with counted(given.model) as passes:
        run()  # the first run imports what it needs, and is not timed
    rates = explaining(given.model, images.shape[-1], device)
    rates.measure()
    times = []
    for _ in range(repeats):
        times.append(fastest(run, device.type))
        rates.measure()
    count, (seconds, wall) = len(images), map(min, zip(*times, strict=True))
    best = passes.forward / rates.forward + passes.backward / rates.backward
    library = _library(spec, given, min(count, library_images), repeats)
    each = Passes(passes.forward // count, passes.backward // count)
    return Cost(each, wall / count, seconds / count, best / count, library)


def _library(spec: ExplainerSpec, given: Inputs, count: int, repeats: int) -> float | None:
    """Seconds of the library's own call for one image, the mean of `count`; None where there is no such library."""
    import naive

    if spec.removal not in (None, "mean"):  # the libraries know no other
        return None
    try:  # a model of their own, since they may leave hooks behind
        call = naive.call(spec.plugin.id, naive.Subject(copy.deepcopy(given.model), spec.options, given.references))
    except ImportError:
        return None
    if call is None:
        return None

    def run() -> None:
        for i in range(count):
            call(given.images[i : i + 1].clone().requires_grad_(), given.targets[i : i + 1])

    with redirect_stderr(io.StringIO()):  # their progress bars
        run()
        return min(fastest(run, given.images.device.type)[0] for _ in range(repeats)) / count


def fastest(work: Callable[[], None], device: str) -> tuple[float, float]:
    """(seconds, wall seconds) of `work()`, each the least of as many runs as begin within `SHORTEST`."""
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < SHORTEST:
        times.append(timed(work, device))
    return tuple(map(min, zip(*times, strict=True)))


HEAD = (f"{'explainer':26}{'family':13}{'forward':>9}{'backward':>9}{'wall ms':>10}{'ms':>10}{'best ms':>10}"
        f"{'efficiency':>12}{'library ms':>12}{'of library':>12}")  # fmt: skip


def row(spec: ExplainerSpec, cost: Cost) -> str:
    family, passes = spec.plugin.meta["family"], cost.passes
    efficiency = f"{cost.best / cost.seconds:.2f}" if passes.total else "-"
    library, share = ("-", "-") if cost.library is None else (_ms(cost.library), f"{cost.seconds / cost.library:.2f}")
    line = f"{spec.name:26}{family:13}{passes.forward:9d}{passes.backward:9d}{_ms(cost.wall):>10}"
    return f"{line}{_ms(cost.seconds):>10}{_ms(cost.best):>10}{efficiency:>12}{library:>12}{share:>12}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top.add_argument("--config", default="config.yaml", help="the config file (default: config.yaml)")
    top.add_argument("--arch", choices=["vit", "resnet"], default="vit", help="the model (default: vit)")
    top.add_argument("--images", type=int, default=8, help="images to explain (default: 8)")
    top.add_argument("--explainers", nargs="+", metavar="ENTRY", help="as in explain.groups (default: all there are)")
    top.add_argument("--repeats", type=int, default=3, help="of each measurement; the best counts (default: 3)")
    top.add_argument("--library-images", type=int, default=2, help="images for the libraries (default: 2)")
    return top


def show(config: Config, options: Any) -> None:
    """Print a row for each explainer as it is measured."""
    import torch

    known = registry.available("explainers", config.plugins)
    families = list(dict.fromkeys(plugin.meta["family"] for plugin in known.values()))
    every = sorted(known, key=lambda name: (families.index(known[name].meta["family"]), name))
    specs = [config.explainer(entry, "--explainers") for entry in options.explainers or every]
    given = inputs(config, options.arch, options.images)
    where = torch.cuda.get_device_name(given.images.device) if given.images.is_cuda else "CPU, one thread"
    print(f"{options.arch}, {options.images} images of {config['image']['size']} pixels, {where}\n\n{HEAD}", flush=True)
    for spec in specs:
        try:
            print(row(spec, measure(config, spec, given, options.repeats, options.library_images)), flush=True)
        except UserError:
            raise
        except Exception as error:  # one explainer costs its own row
            reason = str(error) if isinstance(error, Skip) else f"{type(error).__name__}: {error}"
            print(f"{spec.name:26}{spec.plugin.meta['family']:13}{reason}", flush=True)


def main() -> int:
    options = parser().parse_args()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' about hooks and gradients
            show(configs.load(options.config), options)
    except UserError as error:
        print(f"explain.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
