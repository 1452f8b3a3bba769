"""The leaderboards for papers: LaTeX tables for the package booktabs, a document each for `\\input`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

WIDTH = 4  # metrics side by side on a page
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{letter: f"\\{letter}" for letter in "&%$#_"},
}
NOTE = (
    "Brackets: {confidence} bootstrap intervals. Superscripts: tie groups of the explainers (1, bold, is the best; "
    "none in a group is shown worse than its best), from paired tests on the same images, corrected for all pairs. "
    "Controls in italics."
)
DAGGER = r" \dag: the metric does not tell the oracle (or the other controls) from the random control."
NEEDS = ("by_domain", "overall", "ranking")
STAR = r" $\ast$: submitted; the scores were not computed here."
RULES = (
    "Mean rank over the metrics; Borda, the share of the others beaten image by image; the median difference to the "
    "random control in standard deviations; in parentheses the rank under each rule, controls included. Best: the "
    "share of resamples in which an explainer has the best mean rank. "
)


def documents(tables: dict[str, pd.DataFrame], confidence: float) -> dict[str, str]:
    """The text of each file by its stem."""
    note, ranking = NOTE.format(confidence=escaped(f"{confidence:.0%}")), tables["ranking"]
    return {
        "by_domain": _joined(
            table
            for domain, board in tables["by_domain"].groupby("domain", sort=False)
            for table in _boards(board, _order(ranking, "domain", domain), str(domain), note)
        ),
        "overall": _joined(_boards(tables["overall"], _order(ranking, "all"), "All domains", note)),
        "ranking": _joined(
            _ranking(rows, str(domain) if scope == "domain" else "All domains", RULES + note)
            for (scope, domain), rows in ranking[ranking["category"] == "all"].groupby(
                ["scope", "domain"], sort=False, dropna=False
            )
            if scope != "model"
        ),
    }


def escaped(text: str) -> str:
    """Any text as LaTeX that prints it."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def number(value: float, digits: int = 3) -> str:
    """A number to `digits` significant digits, a dash for none."""
    if value != value:
        return "--"
    text = f"{value:#.{digits}g}".rstrip(".")
    mantissa, _, exponent = text.partition("e")
    mantissa = mantissa.replace("-", "$-$")
    return f"{mantissa}$\\cdot10^{{{int(exponent)}}}$" if exponent else mantissa


def _interval(low: float, high: float) -> str:
    return "" if low != low else f" {{\\scriptsize[{number(low)}, {number(high)}]}}"


def _name(row: dict[str, Any]) -> str:
    name = escaped(row["explainer"]) + (r"$^\ast$" if row.get("submitted") else "")
    return f"\\textit{{{name}}}" if row["is_control"] else name


def _grouped(text: str, group: Any) -> str:
    """A number with its tie group, bold in the first."""
    import pandas as pd

    if pd.isna(group):
        return text
    return (f"\\textbf{{{text}}}" if group == 1 else text) + f"\\textsuperscript{{{int(group)}}}"


def _order(ranking: pd.DataFrame, scope: str, domain: str | None = None) -> list[str]:
    """The explainers of a scope from best to worst by mean rank."""
    rows = ranking[(ranking["scope"] == scope) & (ranking["category"] == "all")]
    return (rows if domain is None else rows[rows["domain"] == domain])["explainer"].tolist()


def _boards(board: pd.DataFrame, order: list[str], title: str, note: str) -> Iterator[str]:
    """A table per category, or several where it has many metrics."""
    keys = ["metric", "removal", "variant"]
    board = board[board["explainer"].isin(order)].fillna({"removal": "", "variant": ""})
    for category, rows in board.groupby("category", sort=False):
        columns = [(key, part.to_dict("records")) for key, part in rows.groupby(keys, sort=False)]
        for start in range(0, len(columns), WIDTH):
            chosen = columns[start : start + WIDTH]
            unclear = any(part[0]["controls_separated"] is False for _, part in chosen)
            yield _table(
                f"{escaped(title)}, {escaped(category)}: means. {note}" + DAGGER * unclear + STAR * _submitted(rows),
                ["", *(_head(key[0], part[0]) for key, part in chosen)],
                ["", *(escaped(", ".join(name for name in key[1:] if name)) for key, _ in chosen)],
                _body(order, [{row["explainer"]: row for row in part} for _, part in chosen]),
            )


def _head(metric: str, row: dict[str, Any]) -> str:
    dagger = r"\textsuperscript{\dag}" if row["controls_separated"] is False else ""
    arrow = r"$\uparrow$" if row["direction"] == "higher" else r"$\downarrow$"
    return f"{escaped(metric.replace('_', ' '))} {arrow}{dagger}"


def _body(order: list[str], columns: list[dict[str, dict[str, Any]]]) -> list[tuple[bool, list[str]]]:
    """Whether it is a control, and the cells, of every explainer that one of the metrics knows."""
    made = []
    for name in order:
        known = [column.get(name) for column in columns]
        first = next((row for row in known if row), None)
        if first:
            cells = [
                "--"
                if not row
                else _grouped(number(row["mean"]), row["tie_group"]) + _interval(row["low"], row["high"])
                for row in known
            ]
            made.append((first["is_control"], [_name(first), *cells]))
    return made


def _ranking(rows: pd.DataFrame, title: str, note: str) -> str:
    body = [
        (
            row["is_control"],
            [
                _name(row),
                _grouped(number(row["mean_rank"]), row["tie_group"])
                + _interval(row["low"], row["high"])
                + f" ({row['rank']:g})",
                number(row["borda"]) + _interval(row["borda_low"], row["borda_high"]) + f" ({row['borda_rank']:g})",
                "--"
                if row["rescaled"] != row["rescaled"]
                else number(row["rescaled"])
                + _interval(row["rescaled_low"], row["rescaled_high"])
                + f" ({row['rescaled_rank']:g})",
                "" if row["p_best"] != row["p_best"] else f"{row['p_best']:.2f}",
            ],
        )
        for row in rows.to_dict("records")
    ]
    head = ["", r"mean rank $\downarrow$", r"Borda $\uparrow$", r"rescaled $\uparrow$", r"best $\uparrow$"]
    caption = f"{escaped(title)}: ranking across metrics. {note}" + STAR * _submitted(rows)
    return _table(caption, head, None, body)


def _submitted(rows: pd.DataFrame) -> bool:
    return "submitted" in rows and bool(rows["submitted"].any())


def _table(caption: str, head: list[str], about: list[str] | None, body: list[tuple[bool, list[str]]]) -> str:
    """A floating table; controls below a rule of their own."""
    lines = [" & ".join(head) + r" \\", *([" & ".join(about) + r" \\"] if about and any(about) else [])]
    parts = [[" & ".join(cells) + r" \\" for is_control, cells in body if is_control == kind] for kind in (False, True)]
    rows = [line for part in parts if part for line in (r"\midrule", *part)]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{{'l' * len(head)}}}",
            r"\toprule",
            *lines,
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
        ]
    )


def _joined(tables: Iterator[str]) -> str:
    return "\n\n".join([r"% needs \usepackage{booktabs}", *tables]) + "\n"
