"""Where each stage's results lie: the one place that knows the folders' names."""

from __future__ import annotations

from pathlib import Path

from unmask.config import ModelId


class Layout:
    """The folders below `results/`, in the order of the data's way."""

    def __init__(self, results: str | Path):
        self.results = Path(results)

    def domain(self, name: str) -> Path:
        """`train|val|test.safetensors` and `.csv`, `unlabelled.safetensors`, `interventions.safetensors` (of the test
        split), `card.json`, `preview.png`."""
        return self.results / "1_data" / name

    @property
    def pool(self) -> Path:
        """The images of all domains for pretraining, with labels where they have any (-1 = none); or the list of a pool
        that stays on disk."""
        return self.results / "1_data" / "pool.safetensors"

    def encoder(self, name: str, seed: int) -> Path:
        """`encoder.safetensors` with its side-car, `history.csv`; `reconstruction.png` of those that fill in."""
        return self.results / "2_pretrain" / name / f"p{seed}"

    def model(self, model: ModelId) -> Path:
        """`model.safetensors` with its side-car, `history.csv`, `predictions.parquet`, `report.json`."""
        return self.results / "3_finetune" / model.folder

    def maps(self, model: ModelId) -> Path:
        """`<explainer>.safetensors` and an index `<group>.json` per group."""
        return self.results / "4_maps" / model.folder

    def scores(self, model: ModelId) -> Path:
        """`<group>.parquet`, and `cells/<explainer>.parquet` from which it is joined."""
        return self.results / "5_scores" / model.folder

    def inside(self, model: ModelId) -> Path:
        """`layers|missingness|causes|counterfactuals|surrogates|dissection|tcav|factors.parquet`, `surrogates.json`,
        `grams|pictures|concepts.safetensors`."""
        return self.results / "5_inside" / model.folder

    @property
    def leaderboards(self) -> Path:
        """The tables."""
        return self.results / "6_leaderboards"

    @property
    def report(self) -> Path:
        """`index.html` and `figures/`."""
        return self.results / "7_report"
