"""`unmask submit-check FILE`: can a submission enter the leaderboards of a config, and if not, what is wrong?"""

from __future__ import annotations

from pathlib import Path

from unmask.config import Config
from unmask.submissions import enter, task
from unmask.submissions.checks import problems
from unmask.submissions.summary import summary


def run(config: Config, file: str) -> int:
    """Print every problem, or what will enter where; returns 2 where there is a problem, else 0."""
    asked = task.of_run(config, enter.own_scores(config))
    card, table, found = problems(file, asked)
    named = {Path(path).resolve() for path in config["submissions"]}
    if card is not None and Path(file).resolve() not in named:
        others = {one.name: one.path for one in config.submitted.values()}
        owner = others.get(card.name) or config.owner(card.name)
        if owner:
            found.append(f"the name '{card.name}' is taken by {owner}; rename the submitted explainer")
    for problem in found:
        print(f"FAIL  {problem}")
    if found:
        count = f"the {len(found)} problems" if len(found) > 1 else "the problem"
        print(f"{file} cannot enter the leaderboards of '{config.results}' for {count} above")
        return 2
    print(f"{file} can enter the leaderboards of '{config.results}'", *summary(card, table, asked), sep="\n")
    unknown = _unknown(asked)
    if unknown:
        print(f"not checked, since '{config.results}' has not got that far: {', '.join(unknown)}")
    print(
        "its scores are not computed again: tables, figures and the page mark it as submitted\n"
        + (
            "the config names it; the next run enters it"
            if Path(file).resolve() in named
            else f"to enter it, write `submissions: [{file}]` into the config and run again"
        )
    )
    return 0


def _unknown(asked: task.Task) -> list[str]:
    """What the run does not know yet."""
    return [
        what
        for what, known in (
            ("the hashes of the models", None not in asked.models.values()),
            ("the hashes of the data", None not in asked.data.values()),
            ("images, classes and skipped scores", asked.rows is not None),
        )
        if not known
    ]
