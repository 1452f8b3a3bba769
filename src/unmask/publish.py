"""`unmask publish`: the small tables of a finished run with its manifest, for `results/reference/` or an archive.

Tables are rounded to 6 significant digits, larger ones compressed, all of it deterministic; what `unmask compare` and
`unmask verify --against` read comes first, and what does not fit into `LIMIT` is left out and named.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from unmask import manifest
from unmask.config import Config
from unmask.errors import UserError
from unmask.files import atomic, read_table, write_json
from unmask.layout import Layout
from unmask.provenance import hashes

if TYPE_CHECKING:
    import pandas as pd

TABLES = (  # in the order in which they are given room
    "overall",
    "ranking",
    "by_domain",
    "accuracy",
    "encoders",
    "hypotheses",
    "explainers",
    "metric_clusters",
    "friedman",
    "ratio_effects",
    "stability",
    "agreement",
    "critical_difference",
    "chance",
    "reliability",
    "inside",
    "missingness",
    "causes",
    "causal_model",
    "cka",
    "tcav",
    "dissection",
    "concept_factors",
    "leaderboard",
)
LIMIT = 1_000_000  # bytes in all
PLAIN = 50_000  # bytes up to which a table stays a plain CSV
DIGITS = 6


def run(config: Config, *, to: str = "results/reference") -> None:
    """Write the tables and the manifest to the folder `to`, in place of what was published there before.

    Raises `UserError` where the results are not those of their manifest, or the folder holds something else.
    """
    target, found = Path(to), _checked(config)
    _check_target(target, config)
    layout = Layout(config.results)
    sources = {name: layout.leaderboards / f"{name}.csv" for name in TABLES}
    texts = {name: _text(read_table(path)) for name, path in sources.items() if path.is_file()}
    left = LIMIT - len(str(found)) * 2  # the manifest with its indents, at most
    chosen, out = {}, []
    for name, text in texts.items():
        suffix, data = (".csv", text) if len(text) <= PLAIN else (".csv.gz", gzip.compress(text, 9, mtime=0))
        if len(data) > left:
            out.append(name)
            continue
        left -= len(data)
        chosen[f"{layout.leaderboards.name}/{name}{suffix}"] = data
    if target.exists():
        shutil.rmtree(target)
    for name, data in chosen.items():
        with atomic(target / name) as temporary:
            temporary.write_bytes(data)
    found["published"] = {name: hashes.fingerprint(target / name) for name in chosen}
    write_json(target / manifest.NAME, found)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {len(chosen)} tables and the manifest, {size / 1000:.0f} kB")
    if out:
        print(f"left out, since all must stay below {LIMIT / 1000:.0f} kB: {', '.join(out)}")


def _checked(config: Config) -> dict:
    """The run's manifest, if it is that of the config and of the files."""
    found = manifest.read(config.results)
    if found is None:
        raise UserError(f"{config.results} has no {manifest.NAME}; let the run end, or run `unmask manifest`")
    if found["config"]["digest"] != manifest.described(config)["digest"]:
        raise UserError(f"{config.results / manifest.NAME} is of another config than this one; run the benchmark again")
    for section in found["hashes"].values():
        for name, problem in hashes.changed(config.results, section).items():
            raise UserError(f"{config.results / name} {problem}; run the benchmark again before it is published")
    return found


def _check_target(target: Path, config: Config) -> None:
    if target.exists() and not target.is_dir():
        raise UserError(f"--to: '{target}' is a file; give a folder")
    if target.resolve() == config.results.resolve():
        raise UserError(f"--to: '{target}' is the folder of the results; give another, such as results/reference")
    if target.is_dir() and any(target.iterdir()):
        old = manifest.read(target)
        if old is None or "published" not in old:
            raise UserError(f"--to: '{target}' holds something else than published tables; give an empty folder")


def _text(table: pd.DataFrame) -> bytes:
    floats = table.select_dtypes("float").columns
    rounded = {name: table[name].map(lambda value: float(f"{value:.{DIGITS}g}")) for name in floats}
    return table.assign(**rounded).to_csv(index=False, lineterminator="\n").encode()
