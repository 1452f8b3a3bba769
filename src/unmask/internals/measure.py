"""All that is measured of one network on some images, in as few passes as there can be.

A family that raises costs itself alone: its quantities get a reason instead of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from unmask.errors import Skip
from unmask.internals import attention, attribution, frequency, mask_token, norms, observe, probes, rank
from unmask.internals.catalogue import OVER_HEADS, QUANTITIES

if TYPE_CHECKING:
    import numpy as np

    from unmask.internals.known import Concept
    from unmask.models.classifier import Classifier, ConvClassifier

NEED_TOKENS = {"rank", "cka", "norms", "dissection", "factors"}
NEED_TRAINING = {"probes", "concepts"}
ONE_PASS = {*OVER_HEADS, "frequency", "pictures", *NEED_TOKENS, *NEED_TRAINING}


@dataclass(frozen=True)
class Block:
    """A quantity's values of every image at a layer: float64 [N]; of one head, or of all of them (None)."""

    quantity: str
    layer: int
    head: int | None
    values: np.ndarray


@dataclass
class Found:
    """What was measured; by quantity why something was not: (status, reason); Gram matrices float32 [L + 1, N, N]; the
    mean patch tokens of the last layer, float32 [N, D], where pictures are asked for.

    For the families about concepts also, layer by layer: all `tokens` float32 [N, P, D] of the test images with their
    `grids`, and the `means` of the training images' patch tokens, float64 [M, D]."""

    blocks: list[Block] = field(default_factory=list)
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)
    grams: np.ndarray | None = None
    features: np.ndarray | None = None
    tokens: list[torch.Tensor] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)
    means: list[np.ndarray] | None = None


@dataclass(frozen=True)
class Labelled:
    """Images float32 [N, 3, H, W] in [0, 1] on the model's device, and labels int64 [N], None where not known; and
    where it is known which pixels show which concept, bool [N, H, W]."""

    images: torch.Tensor
    labels: np.ndarray | None
    concepts: dict[Concept, np.ndarray] = field(default_factory=dict)


def scaled(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """Images uint8 [N, H, W, 3] as networks take them, float32 [N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div(255).contiguous()


def measure(
    model: Classifier | ConvClassifier,
    test: Labelled,
    families: Iterable[str],
    *,
    train: Labelled | None = None,
    keep: torch.Tensor | None = None,
    maps: Callable[[torch.Tensor], torch.Tensor] | None = None,
    neighbours: int = 20,
) -> Found:
    """Measure the `families` that are about layers.

    train  for the probes; None = there are none
    keep   bool [N, gh, gw] for the mask token, True = visible
    maps   images [n, 3, H, W] to attributions [n, gh, gw], signed; None = the model makes no decisions
    """
    work = _Work(model, Found(), set(families))
    labelled = train is not None and train.labels is not None and test.labels is not None
    work.leave_out(labelled, keep, maps)
    if work.families & ONE_PASS:
        _one_pass(work, test, train, maps, neighbours)
    work.attempt("mask_token", lambda: _masked(work, test.images, keep))
    return work.found


@dataclass
class _Work:
    model: Classifier | ConvClassifier
    found: Found
    families: set[str]
    parts: dict[tuple[str, int], list[torch.Tensor]] = field(default_factory=dict)

    def leave_out(self, labelled: bool, keep: torch.Tensor | None, maps: object) -> None:
        """Say of the families that do not apply to the model why."""
        if self.model.arch != "vit":
            for family in ("attention", "attribution", "mask_token"):
                self.skip(family, f"the architecture {self.model.arch} has no attention and no tokens to mask")
        if self.model.mask_token is None:
            self.skip("mask_token", "the encoder has no mask token: none went through it in pretraining")
        if keep is None:
            self.skip("mask_token", "no patches were chosen to be masked")
        if maps is None:
            self.skip("attribution", "the encoder makes no decisions before it is fine-tuned")
        if not labelled:
            self.skip("probes", "there are no labelled images to fit and to test them on")

    def skip(self, family: str, reason: str, status: str = "skipped") -> None:
        """Leave a family out for a reason, the first of several."""
        if family in self.families:
            self.families.remove(family)
            for name, quantity in QUANTITIES.items():
                if quantity.family == family:
                    self.found.missing[name] = status, reason
                    self.found.blocks = [block for block in self.found.blocks if block.quantity != name]
                    self.parts = {key: part for key, part in self.parts.items() if key[0] != name}
            if family in ("cka", "pictures"):  # they have no values by layer
                self.found.missing[family] = status, reason

    def attempt(self, family: str, step: Callable[[], None]) -> None:
        """Run a step of a family, if it is asked for; whatever it raises costs the family."""
        if family in self.families:
            try:
                step()
            except Skip as reason:
                self.skip(family, str(reason))
            except Exception as error:  # of linear algebra on what is not finite, say
                self.skip(family, f"{type(error).__name__}: {' '.join(str(error).split())}", "failed")

    def put(self, quantity: str, layer: int, values: torch.Tensor) -> None:
        """Values [n] of a batch or, over heads, [n, h]."""
        self.parts.setdefault((quantity, layer), []).append(values.cpu())

    def close(self) -> None:
        """Join the batches to blocks; a quantity that is not finite somewhere has failed."""
        for (quantity, layer), parts in self.parts.items():
            values = torch.cat(parts).numpy()
            if not torch.from_numpy(values).isfinite().all():
                self.found.missing[quantity] = "failed", f"it is not finite at layer {layer}"
            columns = {None: values} if values.ndim == 1 else {None: values.mean(1), **dict(enumerate(values.T))}
            self.found.blocks += [Block(quantity, layer, head, column) for head, column in columns.items()]
        self.found.blocks = [block for block in self.found.blocks if block.quantity not in self.found.missing]
        self.parts = {}


def _one_pass(
    work: _Work,
    test: Labelled,
    train: Labelled | None,
    maps: Callable[[torch.Tensor], torch.Tensor] | None,
    neighbours: int,
) -> None:
    model = work.model
    tokens: list[list[torch.Tensor]] = []
    means: list[list[torch.Tensor]] = []
    for batch in observe.batches(test.images):
        seen, grids = observe.observe(model, batch, bool(work.families & set(OVER_HEADS)))
        work.attempt("attention", lambda seen=seen: _attention(work, seen.attention))
        work.attempt("attribution", lambda seen=seen, batch=batch: _attribution(work, seen.attention, maps(batch)))
        work.attempt("frequency", lambda seen=seen, grids=grids: _frequency(work, seen.tokens, grids))
        if work.families & NEED_TOKENS:
            tokens.append(seen.tokens)
        means.append([layer.mean(1) for layer in seen.tokens])
    work.found.grids = grids
    for layer, parts in enumerate(zip(*tokens, strict=True)):
        whole = torch.cat(parts)
        if work.families & {"dissection", "factors"}:
            work.found.tokens.append(whole)
        work.attempt(
            "rank", lambda whole=whole, layer=layer: work.put("effective_rank", layer, rank.effective_rank(whole))
        )
        work.attempt(
            "norms", lambda whole=whole, layer=layer: work.put("high_norm_share", layer, norms.high_norms(whole))
        )
    work.attempt("cka", lambda: _grams(work, tokens))
    work.attempt("pictures", lambda: _features(work, [parts[-1] for parts in means]))
    if work.families & NEED_TRAINING and train is not None:
        work.found.means = mean_tokens(model, train.images)
    work.attempt("probes", lambda: _probes(work, means, test.labels, train.labels, neighbours))
    work.close()


def _attention(work: _Work, maps: list[torch.Tensor]) -> None:
    model = work.model
    for layer, whole in enumerate(maps, 1):
        among = attention.patches_only(whole, model.prefix)
        work.put("attention_distance", layer, attention.distance(among, model.grid) * model.patch)
        work.put("attention_entropy", layer, attention.entropy(among))
        work.put("mutual_information", layer, attention.mutual_information(among))
        if among.shape[1] > 1:
            work.put("head_divergence", layer, attention.head_divergence(among))
        else:
            work.found.missing["head_divergence"] = "skipped", "the model has one head"
        if model.prefix:
            work.put("class_token_self_attention", layer, attention.class_self_attention(whole))
            work.put("class_token_entropy", layer, attention.class_entropy(whole, model.prefix))
        else:
            for name in ("class_token_self_attention", "class_token_entropy"):
                work.found.missing[name] = "skipped", "the model has no class token (mean pooling)"


def _attribution(work: _Work, heads: list[torch.Tensor], maps: torch.Tensor) -> None:
    for layer, whole in enumerate(heads, 1):
        work.put("attribution_agreement", layer, attribution.agreement(whole, maps, work.model))


def _frequency(work: _Work, tokens: list[torch.Tensor], grids: list[tuple[int, int]]) -> None:
    for layer, (some, grid) in enumerate(zip(tokens, grids, strict=True)):
        if min(grid) > 1:  # a convolution ends in a single position on small images
            work.put("high_frequency", layer, frequency.high_frequency(some, grid))


def _grams(work: _Work, tokens: list[list[torch.Tensor]]) -> None:
    grams = []
    for parts in zip(*tokens, strict=True):
        flat = torch.cat(parts).double().flatten(1)
        flat = flat - flat.mean(0)
        grams.append((flat @ flat.T).float().cpu())
    found = torch.stack(grams)
    if not found.isfinite().all():
        raise ValueError("the features are not finite")
    work.found.grams = found.numpy()


def _features(work: _Work, parts: list[torch.Tensor]) -> None:
    found = torch.cat(parts).float().cpu()
    if not found.isfinite().all():
        raise ValueError("the features are not finite")
    work.found.features = found.numpy()


def mean_tokens(model: Classifier | ConvClassifier, images: torch.Tensor) -> list[np.ndarray]:
    """The mean patch tokens of every layer, float64 [n, D]."""
    parts = [[layer.mean(1) for layer in observe.observe(model, batch)[0].tokens] for batch in observe.batches(images)]
    return [torch.cat(layer).double().cpu().numpy() for layer in zip(*parts, strict=True)]


def _probes(
    work: _Work, test: list[list[torch.Tensor]], labels: np.ndarray, train_labels: np.ndarray, neighbours: int
) -> None:
    for layer, (known, parts) in enumerate(zip(work.found.means, zip(*test, strict=True), strict=True)):
        arguments = known, train_labels, torch.cat(parts).double().cpu().numpy(), labels
        work.put("knn_accuracy", layer, torch.from_numpy(probes.nearest_neighbours(*arguments, neighbours)))
        work.put("linear_probe_accuracy", layer, torch.from_numpy(probes.linear(*arguments)))


def _masked(work: _Work, images: torch.Tensor, keep: torch.Tensor) -> None:
    from unmask.models.vit import MaskedImages

    for batch, visible in zip(observe.batches(images), observe.batches(keep.to(images.device)), strict=True):
        seen, _ = observe.observe(work.model, MaskedImages(batch, visible))
        for layer, tokens in enumerate(seen.tokens):
            work.put("mask_token_distance", layer, mask_token.separation(tokens, visible.flatten(1)))
    work.close()
