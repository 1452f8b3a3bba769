"""What scoring costs: against its passes at best, against Quantus called metric by metric, and by number of images.

    python benchmarks/score.py --domain defect --encoder simmim_60
    python benchmarks/score.py --explainers saliency rise --images 4 --lengths 4 8 16

The maps of a finished run (`make run`) are scored again, in a folder that is thrown away. benchmarks/README.md says
what the columns mean.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import explaining, timed

from unmask import config as configs
from unmask import score
from unmask.config import Config, ModelId
from unmask.errors import Skip, UserError
from unmask.files import read_json, read_table, write_json
from unmask.layout import Layout
from unmask.passes import Passes, counted

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from unmask.scoring import Cell, Work

GROUP = "benchmark"
EXPLAINERS = ("saliency", "integrated_gradients", "smoothgrad", "occlusion", "rise", "kernel_shap", "random_patch")


def chosen(config: Config, model: ModelId, entries: list[str], images: int, folder: Path) -> Config:
    """The config with one model and group, in a new folder that has a finished run's data, model and maps."""
    data = copy.deepcopy(config.data)
    data["domains"] = {model.domain: data["domains"][model.domain]}
    data["encoders"] = {model.encoder: data["encoders"][model.encoder]}
    data["seeds"] = {"pretrain": [model.pretrain_seed], "finetune": [model.finetune_seed]}
    data["explain"]["groups"] = {GROUP: list(entries)}
    data["score"]["judge"]["explainers"] = []  # the metrics' judges are not among what is compared
    data["results"] = str(folder)
    old, new = Layout(config.results), Layout(folder)
    for name in ("1_data", "2_pretrain", "3_finetune"):
        (folder / name).symlink_to((config.results / name).resolve(), target_is_directory=True)
    indices = [read_json(old.maps(model) / f"{group}.json") for group in config.groups]
    records = {record["name"]: record for index in indices for record in index["explainers"]}
    missing = [entry for entry in entries if entry not in records]
    if missing:
        raise UserError(f"--explainers: the run has no maps of '{missing[0]}'; it has {', '.join(records)}")
    index = {**indices[0], "group": GROUP, "explainers": [records[entry] for entry in entries]}
    target = new.maps(model)
    target.mkdir(parents=True)
    for record in index["explainers"]:
        if record["file"]:
            _shortened(old.maps(model) / record["file"], target / record["file"], images, record)
    index["images"] = index["images"][:images]
    write_json(target / f"{GROUP}.json", index)
    return Config(data)


def _shortened(source: Path, target: Path, images: int, record: dict[str, Any]) -> None:
    """The first maps of a file, and its new hash in the record."""
    from unmask.files import read_arrays, sha256, write_arrays

    write_arrays(target, {"maps": read_arrays(source)["maps"][:images]})
    record["sha256"] = sha256(target)


def stage(config: Config, model: ModelId) -> tuple[Passes, float, pd.DataFrame]:
    """Score the group as the DAG does: passes, seconds (CPU seconds on a CPU) without imports, the scores."""
    import torch

    from unmask.device import resolve
    from unmask.models.resnet import ConvClassifier
    from unmask.models.vit import Classifier

    device, total = resolve(config["device"]), Passes()
    for name in config["score"]["metrics"]:
        config.metric(name).plugin.load()  # imports quantus

    def hook(module: torch.nn.Module, arguments: tuple, output: torch.Tensor) -> None:
        if isinstance(module, (Classifier, ConvClassifier)):
            kind = "backward" if output.requires_grad else "forward"
            setattr(total, kind, getattr(total, kind) + len(output))

    job = {"domain": model.domain, "encoder": model.encoder, "group": GROUP}
    seeds = {"pretrain_seed": model.pretrain_seed, "finetune_seed": model.finetune_seed}
    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            seconds, _ = timed(lambda: score.run(config, **job, **seeds), device.type)
    finally:
        handle.remove()
    return total, seconds, read_table(Layout(config.results).scores(model) / f"{GROUP}.parquet")


def plain(work: Work, cell: Cell, rows: list[int]) -> tuple[float, int, np.ndarray]:
    """Quantus on images `rows` of a cell, by its documentation: seconds, passes, scores.

    The metric as our plug-in sets it up, so that the definition is the same; but nothing is shared with other metrics
    or explainers, its self-checks are on, and captum or grad-cam explain anew where they have the method.
    """
    from unmask import quantus_bridge
    from unmask.case import Shared

    case = work._case(cell, rows)
    case.shared, case.engine = Shared(case.model), "quantus"
    if case.explainer is not None:
        case.explainer = _library(work, cell) or case.explainer
    result: list[np.ndarray] = []
    module, checks = cell.metric.plugin.load(), quantus_bridge.unchecked
    quantus_bridge.unchecked = contextlib.nullcontext
    try:
        with counted(case.model) as spent, warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            seconds, _ = timed(
                lambda: result.append(module.score(case, **cell.metric.options)), case.images.device.type
            )
    finally:
        quantus_bridge.unchecked = checks
    return seconds, spent.total, result[0]


def _library(work: Work, cell: Cell) -> Any:
    """The explainer of a cell as the usual library has it, an image at a time; None where none has it."""
    import naive
    import torch

    spec, loaded = cell.explainer, work.loaded
    if spec.removal not in (None, "mean"):
        return None
    subject = naive.Subject(copy.deepcopy(loaded.model), spec.options, loaded.images)
    call = naive.call(spec.plugin.id, subject)
    if call is None:
        return None

    def explain(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        maps = [call(images[i : i + 1].clone().requires_grad_(), targets[i : i + 1]) for i in range(len(images))]
        maps = [torch.as_tensor(one).detach().reshape(-1, *images.shape[-2:]) for one in maps]
        return torch.stack([one.sum(0) for one in maps]).float()

    return explain


HEAD = (f"{'metric':30}{'cells':>7}{'plain s':>10}{'plain passes':>14}{'ours alone s':>14}{'of plain':>10}"
        f"{'difference':>12}")  # fmt: skip


def compare(config: Config, model: ModelId, table: pd.DataFrame) -> float:
    """A row for each metric that Quantus has; returns the seconds of Quantus's way for all of them."""
    import numpy as np
    import pandas as pd

    from unmask.scoring import Work

    total, metrics = 0.0, [config.metric(name) for name in config["score"]["metrics"]]
    print(HEAD, flush=True)
    for metric in metrics:
        seconds, passes, cells, worst, own = 0.0, 0, 0, 0.0, 0.0
        for entry in config.groups[GROUP]:
            work = Work(config, model, GROUP)
            for cell in work.cells(config.explainer(entry)):
                if cell.metric.name != metric.name:
                    continue
                rows = _rows(table, cell).reset_index(drop=True)
                judged = rows.index[rows["status"] == "ok"].tolist()
                if not judged:
                    continue
                asked = judged if "masks" in metric.plugin.meta["needs"] else rows.index.tolist()
                try:
                    spent, count, scores = plain(work, cell, asked)
                except Skip:
                    continue
                seconds, passes, cells = seconds + spent, passes + count, cells + 1
                own += float(rows["seconds"].sum())
                if not _library(work, cell) or "explainer" not in metric.plugin.meta["needs"]:
                    found = pd.Series(scores, asked)[judged].to_numpy()
                    worst = max(worst, float(np.abs(found - rows["score"][judged].to_numpy()).max()))
        print(f"{metric.name:30}{cells:7d}{seconds:10.2f}{passes:14d}{own:14.2f}{own / max(seconds, 1e-9):10.2f}"
              f"{worst:12.1e}", flush=True)  # fmt: skip
        total += seconds
    return total


def _rows(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    same = (table["explainer"] == cell.explainer.name) & (table["metric"] == cell.metric.name)
    return table[same & (table["removal"].isna() if cell.removal is None else table["removal"] == cell.removal)]


def of_quantus(config: Config) -> Config:
    """The config with the metrics only that Quantus has, all on all images; without gates, which explain other networks
    than the libraries' explainers are bound to."""
    metas = {name: config.metric(name).plugin.meta for name in config["score"]["metrics"]}
    names = [name for name, meta in metas.items() if "quantus" in meta and not meta.get("gate")]
    return Config({**config.data, "score": {**config.data["score"], "metrics": names}})


def show(config: Config, options: argparse.Namespace) -> None:
    """Print the three tables."""
    from unmask.device import resolve

    model = _model(config, options)
    entries = options.explainers or [e for e in EXPLAINERS if any(e in group for group in config.groups.values())]
    options_of = {
        k: {o: v for o, v in given.items() if o != "images"} for k, given in config["score"]["options"].items()
    }
    everything = Config({**config.data, "score": {**config.data["score"], "options": options_of}})

    def fresh(config: Config, images: int) -> tuple[Config, Path, contextlib.ExitStack]:
        stack = contextlib.ExitStack()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return chosen(config, model, entries, images, folder), folder, stack

    made, _, stack = fresh(everything, options.images)
    with stack:
        device = resolve(made["device"])
        from unmask.scoring import Work

        network = Work(made, model, GROUP).loaded.model
        rates = explaining(network, made["image"]["size"], device)
        rates.measure()
        spent, seconds, table = stage(made, model)
        rates.measure()
        best = spent.forward / rates.forward + spent.backward / rates.backward
        ok = int((table["status"] == "ok").sum())
        print(f"{model.folder}: {options.images} images, {len(entries)} explainers, {made['score']['removals']}")
        print(
            f"the stage: {seconds:.2f} s for {ok} scores, {spent.forward} forward and {spent.backward} backward "
            f"passes, {best:.2f} s at best, ratio {seconds / best:.2f}\n"
        )
    made, _, stack = fresh(of_quantus(everything), options.images)
    with stack:
        _, ours, table = stage(made, model)
        theirs = compare(made, model, table)
        known = {*made["score"]["metrics"], *config.gates}
        left = [name for name in config["score"]["metrics"] if name not in known]
        print(f"\nQuantus has none that is sound: {', '.join(left) or '-'}")
        print(f"all of these: {theirs:.2f} s, ours {ours:.2f} s, {theirs / ours:.1f} times faster\n")
    print(f"{'images':>8}{'s':>9}{'passes':>10}{'s per image':>13}")
    for count in options.lengths:
        made, _, stack = fresh(everything, count)
        with stack:
            spent, seconds, table = stage(made, model)
        print(f"{count:8d}{seconds:9.2f}{spent.total:10d}{seconds / count:13.3f}", flush=True)


def _model(config: Config, options: argparse.Namespace) -> ModelId:
    domain = options.domain or next(iter(config["domains"]))
    encoder = options.encoder or next(iter(config["encoders"]))
    for model in config.models:
        if (model.domain, model.encoder) == (domain, encoder):
            return model
    raise UserError(f"the config has no model of domain '{domain}' and encoder '{encoder}'")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top.add_argument("--config", default="config.yaml", help="the config of a finished run (default: config.yaml)")
    top.add_argument("--domain", help="the domain (default: the config's first)")
    top.add_argument("--encoder", help="the encoder (default: the config's first)")
    top.add_argument("--explainers", nargs="+", metavar="ENTRY", help="of the run (default: seven)")
    top.add_argument("--images", type=int, default=8, help="images to score (default: 8)")
    top.add_argument("--lengths", nargs="*", type=int, default=[4, 8, 16], help="images of the last table")
    return top


def main() -> int:
    options = parser().parse_args()
    try:
        show(configs.load(options.config), options)
    except UserError as error:
        print(f"score.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
