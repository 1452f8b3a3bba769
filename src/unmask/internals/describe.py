"""What a network's layers, units and patches stand for: the families that are about concepts, run on one network.

A family that raises costs itself alone: its table gets a row with the reason. Nothing is kept between two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unmask.errors import Skip
from unmask.internals import dissection, factors, observe, tcav, visualisation
from unmask.internals.catalogue import PICTURED_CLASSES, PICTURED_UNITS
from unmask.internals.concepts import FEWEST
from unmask.internals.known import Concept, without_evidence
from unmask.internals.measure import mean_tokens, scaled

if TYPE_CHECKING:
    from unmask.internals.measure import Found, Labelled
    from unmask.internals.rendered import Shown
    from unmask.models.classifier import Classifier, ConvClassifier

DECIDING = ("visualisation", "factors")  # families that ask what a network decides
TABLES = {"dissection": "dissection", "concepts": "tcav", "factors": "factors"}  # of the families that have one
MAPPED = 4  # images on which a unit or a factor is shown
UNDECIDED = "the encoder makes no decisions before it is fine-tuned"
RANDOM = Concept("random", "random")


@dataclass(frozen=True)
class Options:
    """How much is done; and images made or given for concepts that none of the others have a mask of."""

    runs: int = 10
    random: int = 30
    factors: int = 8
    steps: int = 40
    shown: Sequence[Shown] = ()


@dataclass
class Described:
    """Rows of the tables by name, arrays to draw from, and what these are of."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in TABLES.values()})
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def describe(
    network: Classifier | ConvClassifier,
    phase: str,
    test: Labelled,
    train: Labelled | None,
    found: Found,
    families: Iterable[str],
    *,
    classes: list[str] | None,
    ids: list[str],
    rng: Callable[..., np.random.Generator],
    options: Options,
) -> Described:
    """Run `families` on one network; `found` holds the tokens and features of its pass over the images.

    phase    before or after fine-tuning
    classes  None = the network makes no decisions
    rng      a numpy generator for the parts that name a draw: the same for every network of a domain
    """
    from threadpoolctl import threadpool_limits

    work = _Work(network, phase, test, train, found, classes, ids, rng, options, Described())
    with threadpool_limits(1):  # sums depend on the number of threads
        for name, step in (
            ("dissection", work.dissect),
            ("concepts", work.test_concepts),
            ("visualisation", work.visualise),
            ("factors", work.factorise),
        ):
            if name in families:
                work.attempt(name, step)
    return work.made


@dataclass
class _Work:
    network: Classifier | ConvClassifier
    phase: str
    test: Labelled
    train: Labelled | None
    found: Found
    classes: list[str] | None
    ids: list[str]
    rng: Callable[..., np.random.Generator]
    options: Options
    made: Described

    def attempt(self, family: str, step: Callable[[], None]) -> None:
        """Run a family; what it raises is a row of its table, or stands among what is known of the pictures."""
        try:
            step()
        except Skip as reason:
            self.leave_out(family, "skipped", str(reason))
        except Exception as error:  # of linear algebra on what is not finite, say
            self.leave_out(family, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")

    def leave_out(self, family: str, status: str, reason: str) -> None:
        if family in TABLES:
            row = {"phase": self.phase, "status": status, "reason": reason}
            self.made.rows[TABLES[family]] = [*self.made.rows[TABLES[family]], row]
        else:
            self.made.about[f"{family}_{self.phase}_{status}"] = reason

    def need_decisions(self) -> None:
        if self.classes is None or self.phase == "before":
            raise Skip(UNDECIDED)

    def targets(self) -> torch.Tensor:
        """The classes whose logits are asked for: the labels, or what is predicted where there are none; int64 [N]."""
        if self.test.labels is not None:
            return torch.from_numpy(self.test.labels)
        with torch.no_grad():
            return torch.cat([self.network(batch).argmax(1).cpu() for batch in observe.batches(self.test.images)])

    # --- units -------------------------------------------------------------------------------------------------------

    def dissect(self) -> None:
        shown = {concept: int(pixels.any((1, 2)).sum()) for concept, pixels in self.test.concepts.items()}
        masks = {one: self.test.concepts[one] for one, count in shown.items() if count >= dissection.LEAST}
        rows = self.made.rows["dissection"]
        for one, count in shown.items():
            if one not in masks:
                reason = f"{count} of the {len(self.ids)} images show it; {dissection.LEAST} are needed"
                rows.append({"phase": self.phase, **one._asdict(), "status": "skipped", "reason": reason})
        if not masks:
            raise Skip("no concept's pixels are known in these images: give masks of the evidence or of distractors")
        layers = []
        for layer, (tokens, grid) in enumerate(zip(self.found.tokens, self.found.grids, strict=True)):
            layers.append(dissection.dissect(tokens, grid, masks, self.rng("dissection", layer)))
            for one, iou in zip(masks, layers[-1].iou, strict=True):
                where = {"phase": self.phase, "layer": layer, **one._asdict()}
                rows += [{**where, "unit": unit, "value": value} for unit, value in enumerate(iou.tolist())]
        for name in ("best", "counts", "chance", "chance_iou"):
            self.made.arrays[f"dissection_{name}_{self.phase}"] = np.stack([getattr(one, name) for one in layers])
        self.made.about[f"dissection_{self.phase}"] = [list(one) for one in masks]
        if self.phase == "after":
            self.map_units(list(masks), layers)

    def map_units(self, concepts: list[Concept], layers: list[dissection.Layer]) -> None:
        """Of every concept the unit of the largest IoU in any block, with its maps of the images it answers to most."""
        units = []
        for place, one in enumerate(concepts):
            ious = [found.iou[place, found.best[place]] for found in layers]
            layer = 1 + int(np.argmax(ious[1:]))
            unit = int(layers[layer].best[place])
            tokens = self.found.tokens[layer][:, :, unit].float().cpu().numpy()
            most = np.argsort(-tokens.max(1), kind="stable")[:MAPPED]
            self.made.arrays[f"unit_{place}"] = tokens[most].reshape(len(most), *self.found.grids[layer])
            units.append(
                {
                    **one._asdict(),
                    "layer": layer,
                    "unit": unit,
                    "iou": float(ious[layer]),
                    "threshold": float(layers[layer].thresholds[unit]),
                    "images": [self.ids[row] for row in most],
                }
            )
        self.made.about["units"] = units

    # --- concept activation vectors ----------------------------------------------------------------------------------

    def test_concepts(self) -> None:
        if self.found.means is None:
            raise Skip("there are no training images to fit concept activation vectors to")
        draws, reasons = self.draws()
        for one, reason in reasons.items():
            self.made.rows["tcav"].append({"phase": self.phase, **one._asdict(), "status": "skipped", "reason": reason})
        if not draws:
            raise Skip("no concept is known in these images: give masks, or folders of images that show it")
        layers = tcav.chosen_layers(observe.depth(self.network))
        decides = self.classes is not None and self.phase == "after"
        if decides:
            targets = self.targets()
            slopes = tcav.slopes(self.network, self.test.images, targets, layers)
            draws[RANDOM] = self.random_draws()
        device = self.test.images.device
        others = [mean_tokens(self.network, scaled(one.images, device)) for one in self.options.shown]
        for layer in layers:
            space = tcav.Space(self.found.means[layer])
            features = np.concatenate([space.features, *(space.standardised(means[layer]) for means in others)])
            for one, rows in draws.items():
                runs = tcav.fit(space, features, rows)
                where = {"phase": self.phase, "layer": layer, **one._asdict()}
                self.put_accuracy(where, runs)
                if decides:
                    self.put_scores(where, runs, slopes[layer], targets.numpy())

    def draws(self) -> tuple[dict[Concept, list[np.ndarray]], dict[Concept, str]]:
        """Pairs of images with and without each concept, `runs` times; and why a concept has none.

        Rows are of the training images and, one after the other below them, of those that are shown.
        """
        found: dict[Concept, list[np.ndarray]] = {}
        reasons = {}
        for one, (shows, lacks, matched) in self.sides().items():
            rows = [
                tcav.pairs(shows, lacks, matched, self.rng("concepts", *one, run)) for run in range(self.options.runs)
            ]
            if len(rows[0]) < FEWEST:
                of = " of the same class" if matched is not None else ""
                reasons[one] = (
                    f"there are {len(rows[0])} pairs of images{of} with it and without it; {FEWEST} are needed"
                )
            else:
                found[one] = rows
        return found, reasons

    def sides(self) -> dict[Concept, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """The rows with and without each concept, and the labels where both of a pair must have the same."""
        labels, masks = self.train.labels, self.train.concepts
        found: dict[Concept, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {}
        for one, pixels in masks.items():
            shown = pixels.any((1, 2))
            none = without_evidence(masks, labels)
            lacks = none if one.kind == "evidence" and none.any() else ~shown
            matched = labels if one.kind in ("distractor", "tag") else None
            found[one] = np.flatnonzero(shown), np.flatnonzero(lacks), matched
        start = len(self.train.images)
        for some in self.options.shown:
            rows = start + np.arange(len(some.images))
            for place, name in enumerate(some.names):
                own = some.which == place
                lacks = np.arange(len(self.train.images)) if own.all() else rows[~own]
                found[Concept(some.kind, name)] = rows[own], lacks, None
            start += len(some.images)
        return found

    def random_draws(self) -> list[np.ndarray]:
        """Pairs of any images, `random` times: what a vector of nothing in particular is."""
        count = len(self.train.images) // 2
        return [
            self.rng("concepts", "random", run).permutation(len(self.train.images))[: 2 * count].reshape(count, 2)
            for run in range(self.options.random)
        ]

    def put_accuracy(self, where: dict[str, Any], runs: tcav.Runs) -> None:
        sizes = {"measure": "accuracy", "fitted": runs.fitted, "held": runs.held}
        self.made.rows["tcav"] += [
            {**where, **sizes, "run": run, "value": value} for run, value in enumerate(runs.accuracy.tolist())
        ]

    def put_scores(self, where: dict[str, Any], runs: tcav.Runs, slopes: np.ndarray, targets: np.ndarray) -> None:
        rows = self.made.rows["tcav"]
        if not slopes.any():
            reason = "the decision does not read the patch tokens of this layer"
            rows.append({**where, "measure": "score", "status": "skipped", "reason": reason})
            return
        derivatives = tcav.derivatives(runs.vectors, slopes)
        for target in np.unique(targets):
            own = np.flatnonzero(targets == target)
            positive = derivatives[:, own] > 0
            named = {**where, "target": self.classes[target]}
            for measure, values in (("score", positive.mean(1)), ("sensitivity", derivatives[:, own].mean(1))):
                rows += [
                    {**named, "measure": measure, "run": run, "value": value}
                    for run, value in enumerate(values.tolist())
                ]
            if where["kind"] != RANDOM.kind:
                shares = positive.mean(0).tolist()
                rows += [
                    {**named, "measure": "positive", "image_id": self.ids[row], "value": value}
                    for row, value in zip(own, shares, strict=True)
                ]

    # --- activation maximisation -------------------------------------------------------------------------------------

    def visualise(self) -> None:
        self.need_decisions()
        goals = [visualisation.Goal(index) for index in range(min(len(self.classes), PICTURED_CLASSES))]
        named: list[dict[str, Any]] = [{"class": self.classes[goal.index]} for goal in goals]
        units = sorted(self.made.about.get("units", []), key=lambda unit: -unit["iou"])[:PICTURED_UNITS]
        for unit in units:
            goals.append(visualisation.Goal(unit["unit"], unit["layer"]))
            named.append({name: unit[name] for name in ("kind", "name", "layer", "unit", "iou")})
        seed = int(self.rng("visualisation").integers(2**63))
        made = visualisation.maximise(
            self.network,
            goals,
            self.test.images,
            steps=self.options.steps,
            generator=torch.Generator().manual_seed(seed),
        )
        self.made.arrays["visualisations"] = (
            made.images.permute(0, 2, 3, 1).mul(255).round().to(torch.uint8).cpu().numpy()
        )
        numbers = zip(made.reached.tolist(), made.natural.tolist(), strict=True)
        self.made.about["visualisations"] = [
            {**one, "reached": reached, "natural": natural}
            for one, (reached, natural) in zip(named, numbers, strict=True)
        ]

    # --- factors -----------------------------------------------------------------------------------------------------

    def factorise(self) -> None:
        self.need_decisions()
        layer = factors.read_layer(self.network)
        tokens = self.found.tokens[layer].float().cpu().numpy()
        found = factors.factorise(tokens, self.options.factors, self.rng("factors"))
        prefix = factors.before(self.network, layer, self.test.images)
        targets = self.targets()
        losses, logits = factors.importance(self.network, layer, found, prefix, targets)
        device = self.test.images.device
        whole = factors.rest(self.network, layer, self.found.tokens[layer].to(device), prefix)
        same = (logits.argmax(1) == whole.cpu().numpy().argmax(1)).astype(np.float64)
        where = {"phase": self.phase, "layer": layer}
        rows = self.made.rows["factors"]
        rows.append({**where, "measure": "reconstruction_error", "value": found.error})
        rows += [
            {**where, "measure": "agreement", "image_id": name, "value": value}
            for name, value in zip(self.ids, same.tolist(), strict=True)
        ]
        for factor, values in enumerate(losses.T.tolist()):
            rows += [
                {
                    **where,
                    "measure": "importance",
                    "factor": factor,
                    "target": self.classes[target],
                    "image_id": name,
                    "value": value,
                }
                for name, target, value in zip(self.ids, targets.tolist(), values, strict=True)
            ]
        names = self.name_factors(found.parts, self.found.grids[layer])
        for factor, (one, iou) in names.items():
            rows.append({**where, "measure": "iou", "factor": factor, **one._asdict(), "value": iou})
        self.map_factors(found.parts, layer)

    def name_factors(self, parts: np.ndarray, grid: tuple[int, int]) -> dict[int, tuple[Concept, float]]:
        """The known concept whose pixels each factor marks best, and the IoU, as if it was a unit."""
        masks = {
            one: pixels for one, pixels in self.test.concepts.items() if pixels.any((1, 2)).sum() >= dissection.LEAST
        }
        if not masks:
            return {}
        iou = dissection.dissect(torch.from_numpy(parts), grid, masks, self.rng("factors"), permutations=0).iou
        concepts = list(masks)
        return {factor: (concepts[int(place)], float(iou[place, factor])) for factor, place in enumerate(iou.argmax(0))}

    def map_factors(self, parts: np.ndarray, layer: int) -> None:
        """Each factor's maps of the images that hold most of it."""
        kept, images = [], []
        for factor in range(parts.shape[2]):
            own = parts[:, :, factor]
            most = np.argsort(-own.max(1), kind="stable")[:MAPPED]
            kept.append(own[most].reshape(len(most), *self.found.grids[layer]))
            images.append([self.ids[row] for row in most])
        self.made.arrays["factors"] = np.stack(kept)
        self.made.about["factors"] = {"layer": layer, "images": images}
