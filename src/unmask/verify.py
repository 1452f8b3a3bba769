"""`unmask verify`: are the files those of the manifest, and do sampled scores come out again from weights and data?

Cells are explained and scored again beside the results, and held against the stored scores, or with `--against` against
another folder's or a published leaderboard. Exit code 0 where all fits, 1 where something does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unmask import manifest, seeds
from unmask.comparison import boards, runs
from unmask.config import Config
from unmask.errors import UserError
from unmask.layout import Layout
from unmask.provenance import hashes

if TYPE_CHECKING:
    from unmask.verification.stored import Published, Scores
    from unmask.verification.workshop import Sampled

SHOWN = 20


def run(config: Config, *, sample: int = 20, against: str | None = None, seed: int = 0, tolerance: float = 1e-4) -> int:
    """Check the hashes, then recompute `sample` cells drawn by `seed`; returns the exit code.

    tolerance  share of a score that it may differ by

    Raises `UserError` where weights, data or what to compare with are missing.
    """
    if sample < 0:
        raise UserError(f"--sample: {sample} is not a number of cells; give 0 or more")
    if not 0 <= tolerance < 1:
        raise UserError(f"--tolerance: {tolerance:g} is not a share; give 0 or more and less than 1")
    from unmask.verification.workshop import require

    reference = _reference(config, against, tolerance)
    drawn = _draw(reference.cells(), sample, seed)
    require(config, list(dict.fromkeys(cell.model for cells in drawn for cell in cells)))
    files = _published(config, Path(against)) if against else _own(config)
    cells = _cells(config, reference, drawn)
    return 1 if files or cells else 0


def _reference(config: Config, against: str | None, tolerance: float) -> Scores | Published:
    """What there is to compare with: scores if the folder has any, else its tables."""
    from unmask.verification.stored import Published, Scores
    from unmask.verification.workshop import require

    folder = Path(against) if against else config.results
    scored = any(Layout(folder).scores(model).is_dir() for model in config.models)
    if against is None and not scored:
        require(config, config.models)  # without a run there are no models either, which says more
    if against is None or scored:
        return Scores(config, folder, tolerance)
    if not folder.is_dir():
        raise UserError(f"--against: '{folder}' is not a folder; give a folder of results, such as results/reference")
    tables = boards.tables_of(folder)
    for name in ("leaderboard", "by_domain"):  # the finest that there is
        if name in tables:
            return Published(config, name, tables[name], tolerance)
    raise UserError(f"'{folder}' has neither scores nor a table `leaderboard` or `by_domain` to compare with")


def _draw(cells: list[tuple[Sampled, ...]], sample: int, seed: int) -> list[tuple[Sampled, ...]]:
    """`sample` of the cells (or all of fewer), in their order."""
    if not cells and sample:
        raise UserError("there is no scored cell to draw from; run the stage score first")
    generator = seeds.numpy_generator(seed, "verify")
    chosen = sorted(generator.permutation(len(cells))[:sample].tolist())
    return [cells[i] for i in chosen]


def _own(config: Config) -> int:
    """Hold the files against the run's own manifest; how many differ."""
    found = manifest.read(config.results)
    if found is None:
        print(f"{config.results} has no {manifest.NAME}: hashes are not checked (`unmask manifest` writes one)")
        return 0
    known = {name: value for section in found["hashes"].values() for name, value in section.items()}
    wrong = hashes.changed(config.results, known)
    _print_makers(config, found)
    for name, problem in list(wrong.items())[:SHOWN]:
        print(f"DIFFERS  {config.results / name} {problem}")
    if len(wrong) > SHOWN:
        print(f"         ... and {len(wrong) - SHOWN} more")
    print(f"hashes: {len(known) - len(wrong)} of {len(known)} files are those of the manifest", flush=True)
    return len(wrong)


def _published(config: Config, folder: Path) -> int:
    """Hold the other folder's tables against its manifest, and say which files of this run it describes.

    Weights of another machine differ, and that is no mistake; tables that are not those of their manifest are.
    """
    found = runs.read(folder)
    if found is None:
        print(f"{folder} has no {manifest.NAME}: what made it is not known")
        return 0
    _print_makers(config, found)
    stale = runs.stale(folder, found, list(boards.tables_of(folder).values()))
    for name in stale:
        print(f"DIFFERS  {folder / name} is not the file that its manifest describes")
    for section in hashes.SECTIONS[:3]:  # what cells are recomputed from
        known = found["hashes"].get(section, {})
        same = len(known) - len(hashes.changed(config.results, known))
        print(f"{section}: {same} of {len(known)} files are those of {folder}", flush=True)
    return len(stale)


def _print_makers(config: Config, found: dict) -> None:
    """What has changed since the manifest: a reason to expect other scores, no mistake in itself."""
    for topic, text in runs.makers(found, manifest.maker(config)).items():
        if not text.startswith("the same"):  # a commit may differ without a line of code
            print(f"{topic} since the manifest: {text}")


def _cells(config: Config, reference: Scores | Published, drawn: list[tuple[Sampled, ...]]) -> int:
    """Recompute and judge, a line per cell; how many differ."""
    from unmask.verification.stored import DIFFERS, SAME, WITHIN
    from unmask.verification.workshop import recompute

    statuses, made = [], {}
    pending = {cell: cells for cells in drawn for cell in cells}
    for one in recompute(config, sorted(pending, key=lambda cell: config.models.index(cell.model))):
        made[one.cell] = one
        cells = pending[one.cell]
        if all(cell in made for cell in cells):
            verdict = reference.judge([made.pop(cell) for cell in cells])
            print(f"{verdict.status:<8} {verdict.name}  {verdict.text}", flush=True)
            statuses.append(verdict.status)
    if drawn:
        within = f", {statuses.count(WITHIN)} within the published intervals" if WITHIN in statuses else ""
        print(
            f"cells: {statuses.count(SAME)} of {len(drawn)} recomputed the same (tolerance {reference.tolerance:g})"
            f"{within}, {statuses.count(DIFFERS)} differ"
        )
    return statuses.count(DIFFERS)
