"""The `unmask` command: one subcommand per stage of the DAG, and a few that answer questions.

A stage's module is imported only when its subcommand runs, so `unmask --help` costs no torch.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from unmask import __version__
from unmask.errors import UserError


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--pretrain-seed", type=int, default=0)
    parser.add_argument("--finetune-seed", type=int, default=0)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="unmask", description=__doc__.partition("\n")[0])
    top.add_argument("--version", action="version", version=f"unmask {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--config", default="config.yaml", help="the config file (default: config.yaml)")
        return sub

    check = command("check", "check a config and say what it would run")
    check.add_argument("--time", action="store_true", help="also estimate the minutes on this machine")
    listing = command("list", "list the plug-ins of a kind with what is known of each")
    listing.add_argument("kind", choices=("domains", "explainers", "metrics", "removals"))

    data = command(
        "data", "stage 1: make or read a domain's images, masks and splits, or the pool of unlabelled images"
    )
    what = data.add_mutually_exclusive_group(required=True)
    what.add_argument("--domain")
    what.add_argument("--pool", action="store_true", help="join the domains' unlabelled images")
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
    command("aggregate", "stage 6: leaderboards with intervals from all scores")
    command("report", "stage 7: figures and the page")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 with one sentence on standard error for a user's mistake."""
    options = vars(parser().parse_args(arguments))
    command, path = options.pop("command"), options.pop("config")
    try:
        from unmask.config import load

        module = importlib.import_module(f"unmask.{command}")
        module.run(load(path), **options)
    except UserError as error:
        print(f"unmask: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    return 0
