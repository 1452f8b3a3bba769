"""The `unmask` command: one subcommand per stage of the DAG, and a few that answer questions.

A subcommand's module has its name (`explain-image` is `unmask.explain_image`) and is imported only when it runs, so
`unmask --help` costs no torch. `figures` is a package that early stages draw with, too: its command is a module inside.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from unmask import __version__
from unmask.errors import Stopped, UserError

MODULES = {"figures": "figures.command", "inside": "internals.command"}


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--pretrain-seed", type=int, default=0)
    parser.add_argument("--finetune-seed", type=int, default=0)


def _explain_image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="a model.safetensors below results/3_finetune")
    parser.add_argument("--image", required=True, help="a file of any size and mode")
    parser.add_argument(
        "--explainers", nargs="+", metavar="ENTRY", help="such as saliency or occlusion@token_drop (default: a handful)"
    )
    parser.add_argument("--target", help="the class to explain, by name or index (default: the predicted one)")
    parser.add_argument("--output", help="the PNG to write (default: <image>_explained.png here)")
    parser.add_argument("--plugins", nargs="+", default=(), metavar="FILE", help="plug-in files of yours")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="FIRST", help="a folder of results")
    parser.add_argument(
        "second",
        metavar="SECOND",
        nargs="?",
        default="results/reference",
        help="another, or published tables (default: results/reference)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="SHARE",
        help="numbers closer than this share of their metric's largest are equal (default: 1e-5)",
    )
    parser.add_argument(
        "--allow",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the numbers that may lie beyond their intervals, such as .05 for other seeds (default: 0)",
    )
    parser.add_argument("--exact", action="store_true", help="let intervals excuse nothing")
    parser.add_argument("--csv", metavar="FILE", help="write every difference to a table")


def _inside_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", dest="config_file", default="config.yaml", help="the config file (default: config.yaml)"
    )
    parser.add_argument("--domain")
    parser.add_argument("--encoder")
    parser.add_argument("--pretrain-seed", type=int, default=0)
    parser.add_argument("--finetune-seed", type=int, default=0)
    alone = parser.add_argument_group("a checkpoint alone, without a config")
    alone.add_argument("--model", help="a model.safetensors or encoder.safetensors with its JSON side-car")
    alone.add_argument(
        "--architecture", metavar="NAME", help="of timm, or simmim_vit, for weights of --model without a side-car"
    )
    alone.add_argument("--size", type=int, metavar="PIXELS", help="of its images (default: the architecture's own)")
    alone.add_argument("--images", metavar="FOLDER", help="images, or a folder per class (default: its test split)")
    alone.add_argument("--what", nargs="+", metavar="NAME", help="such as attention,cka (default: all there is)")
    alone.add_argument(
        "--concepts", nargs="+", metavar="NAME=FOLDER", help="images of your own concepts, for the family concepts"
    )
    alone.add_argument("--most", type=int, default=100, metavar="N", help="images to take (default: 100)")
    alone.add_argument("--output", metavar="FOLDER", help="write the tables with intervals there, as CSV")
    alone.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="unmask", description=__doc__.partition("\n")[0])
    top.add_argument("--version", action="version", version=f"unmask {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if config:
            sub.add_argument("--config", default="config.yaml", help="the config file (default: config.yaml)")
        return sub

    check = command("check", "check a config and say what it would run")
    check.add_argument("--time", action="store_true", help="also estimate the minutes on this machine")
    listing = command("list", "list the plug-ins of a kind with what is known of each")
    listing.add_argument("kind", choices=("domains", "explainers", "metrics", "removals"))
    listing.add_argument("--markdown", action="store_true", help="as a page, with all that is known of explainers")
    _explain_image_arguments(command("explain-image", "explain one image to a picture sheet", config=False))
    plugin = command("check-plugin", "hold plug-in files of yours to the contract", config=False)
    plugin.add_argument("files", nargs="+", metavar="FILE", help="Python files; they may name one another")
    plugin.add_argument("--time-limit", type=float, default=60.0, help="seconds that a check may take (default: 60)")
    submit = command("submit", "write the scores of an explainer of a run as a submission to others' leaderboards")
    submit.add_argument("--explainer", required=True, metavar="ENTRY", help="as explain.groups has it")
    submit.add_argument("--card", required=True, metavar="FILE", help="JSON with authors, contact, licence")
    submit.add_argument("-o", "--output", required=True, metavar="FILE", help="the .parquet to write, and its .json")
    template = command("submit-template", "write what somebody needs to score an explainer on a run's models")
    template.add_argument("--explainer", required=True, metavar="NAME", help="a name that no explainer has")
    template.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the folder to write it to")
    checking = command("submit-check", "say whether a submission can enter the leaderboards, or all that is wrong")
    checking.add_argument("file", metavar="FILE", help="its .parquet, beside which its card lies")

    data = command(
        "data", "stage 1: make or read a domain's images, masks and splits, or the pool of unlabelled images"
    )
    what = data.add_mutually_exclusive_group(required=True)
    what.add_argument("--domain")
    what.add_argument("--pool", action="store_true", help="join the domains' unlabelled images, or list pretrain.pool")
    pretrain = command("pretrain", "stage 2: pretrain an encoder on the pool")
    pretrain.add_argument("--encoder", required=True)
    pretrain.add_argument("--pretrain-seed", type=int, default=0)
    _model_arguments(command("finetune", "stage 3: fine-tune an encoder on a domain"))
    for name, text in (
        ("explain", "stage 4: attribution maps of a group of explainers for a model"),
        ("score", "stage 5: score the maps of a group of explainers for a model"),
    ):
        stage = command(name, text)
        _model_arguments(stage)
        stage.add_argument("--group", required=True)
    _inside_arguments(
        command("inside", "stage 5, beside the scores: what is inside a model, or any checkpoint", config=False)
    )
    aggregate = command("aggregate", "stage 6: leaderboards with intervals from all scores")
    aggregate.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that work on it (default: 1)")
    report = command("report", "stage 7: figures and the page")
    report.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that draw figures (default: 1)")
    command("manifest", "write results/manifest.json: config, hashes, code, environment, seeds and times of a run")
    _compare_arguments(
        command("compare", "set two leaderboards side by side; exit code 1 where they differ", config=False)
    )
    verify = command("verify", "check a run's hashes, and recompute sampled cells from its weights and data")
    verify.add_argument("--sample", type=int, default=20, metavar="N", help="cells to recompute (default: 20)")
    verify.add_argument("--against", metavar="FOLDER", help="compare with these results or published tables instead")
    verify.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    verify.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="SHARE", help="of a score, allowed (default: 1e-4)"
    )
    publish = command("publish", "write the small tables of a finished run with its manifest, for others to compare")
    publish.add_argument("--to", metavar="FOLDER", default="results/reference", help="default: results/reference")
    figures = command("figures", "draw figures again from the tables, without computing any")
    figures.add_argument("--only", nargs="+", metavar="NAME", help="such as ranks, pareto_medical, or pareto for all")
    figures.add_argument("--list", action="store_true", dest="names", help="name the figures instead")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 where something of the user's is wrong, 143 or 130 after a signal.

    A mistake is one sentence on standard error, and so is that a training was stopped.
    """
    options = vars(parser().parse_args(arguments))
    command = options.pop("command").replace("-", "_")
    command = MODULES.get(command, command)
    try:
        from unmask.config import load

        configs = [load(options.pop("config"))] if "config" in options else []
        return importlib.import_module(f"unmask.{command}").run(*configs, **options) or 0
    except UserError as error:
        print(f"unmask: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"unmask: {stopped}", file=sys.stderr)
        return stopped.code
    except BrokenPipeError:
        return 0
