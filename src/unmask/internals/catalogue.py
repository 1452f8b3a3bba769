"""Every quantity of the stage `inside` by name: what it is called and measured in, and which family computes it.

`families` are what the config's `inside.what` and `--what` choose from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unmask.domains import BACKGROUND, EVIDENCE, TAG


@dataclass(frozen=True)
class Quantity:
    """A quantity: the words for it in figures and tables, its unit, what high and low values say, and its source."""

    family: str
    title: str
    unit: str
    says: str
    source: str


FAMILIES = {
    "attention": "reach, evenness and diversity of the attention heads",
    "attribution": "whether heads attend to what the decision depends on",
    "frequency": "high frequencies in the tokens",
    "rank": "effective rank of the tokens",
    "cka": "likeness of layers, and of encoders, by linear CKA",
    "probes": "k-NN and linear probes on every layer",
    "norms": "tokens of high norm",
    "mask_token": "masked against visible tokens",
    "pictures": "attention head by head, patch filters, maps of the images by PCA and t-SNE",
    "missingness": "predictions and features against the fraction of the image removed, per removal",
    "causes": "true effects of evidence, distractors, background and tag, by rendering images again",
    "counterfactuals": "the fewest patches whose removal changes the decision, per removal",
    "surrogates": "small trees and sparse linear models in place of the model, and how faithful they are",
    "dissection": "single units that mark the pixels of a known concept (Network Dissection)",
    "concepts": "concepts that a layer represents, and whether decisions follow them (TCAV)",
    "visualisation": "images that drive classes and units as high as can be (activation maximisation)",
    "factors": "concepts that nobody named: non-negative factors of the activations, and their importance",
}
QUANTITIES = {
    "attention_distance": Quantity(
        "attention",
        "attention distance",
        "px",
        "how far from itself a patch looks, on average; low = local",
        "Dosovitskiy et al. 2021; Xie et al. 2023",
    ),
    "attention_entropy": Quantity(
        "attention",
        "attention entropy",
        "of log N",
        "0 = every patch looks at one patch, 1 = at all alike",
        "Xie et al. 2023",
    ),
    "head_divergence": Quantity(
        "attention",
        "head divergence",
        "nats",
        "mean KL divergence of a head's attention from the other heads'; 0 = all heads do the same",
        "Xie et al. 2023",
    ),
    "mutual_information": Quantity(
        "attention",
        "mutual information",
        "normalised",
        "of queries and keys; 0 = every patch has the same attention map (collapse), 1 = each its own key",
        "Park et al. 2023",
    ),
    "class_token_self_attention": Quantity(
        "attention",
        "class token on itself",
        "share",
        "how much attention the class token gives itself, and so not the image",
        "Przewiezlikowski et al. 2024",
    ),
    "class_token_entropy": Quantity(
        "attention",
        "class token entropy",
        "of log N",
        "how evenly the class token looks at the patches; 1 = it selects nothing",
        "Przewiezlikowski et al. 2024",
    ),
    "attribution_agreement": Quantity(
        "attribution",
        "attribution agreement",
        "correlation",
        "between a head's attention and |input x gradient|; 0 = the head does not look where the decision comes from",
        "Park & Choi 2022",
    ),
    "high_frequency": Quantity(
        "frequency",
        "high frequency",
        "\N{GREEK CAPITAL LETTER DELTA} log amplitude",
        "amplitude of the highest spatial frequency of the tokens over that of their mean; high = detail, low = one"
        " value for the whole image",
        "Park et al. 2023",
    ),
    "effective_rank": Quantity(
        "rank",
        "effective rank",
        "dimensions",
        "in how many directions the tokens vary; low = collapsed",
        "Roy & Vetterli 2007; Zhang et al. 2022",
    ),
    "knn_accuracy": Quantity(
        "probes",
        "k-NN accuracy",
        "share",
        "of the label from the nearest training images in feature space",
        "Wu et al. 2018",
    ),
    "linear_probe_accuracy": Quantity(
        "probes",
        "linear probe accuracy",
        "share",
        "of the label by logistic regression on the layer's mean token",
        "Alain & Bengio 2017",
    ),
    "high_norm_share": Quantity(
        "norms",
        "high-norm tokens",
        "share",
        "tokens whose norm lies five robust deviations above the median, as in registers; mostly 0",
        "Darcet et al. 2024",
    ),
    "mask_token_distance": Quantity(
        "mask_token",
        "masked from visible",
        "relative",
        "distance of masked tokens from visible ones over that between visible ones, half of the patches masked;"
        " 1 = they cannot be told apart",
        "Choi et al. 2024",
    ),
}
MISSINGNESS = {
    "unchanged_prediction": Quantity(
        "missingness",
        "unchanged predictions",
        "share",
        "images whose predicted class is still that of the whole image; high = removal is tolerated",
        "Jain et al. 2022",
    ),
    "class_entropy": Quantity(
        "missingness",
        "class entropy",
        "of log C",
        "how evenly the predictions spread over the classes; falls where removal drives everything into one class",
        "Jain et al. 2022",
    ),
    "prediction_entropy": Quantity(
        "missingness",
        "prediction entropy",
        "of log C",
        "how undecided single predictions are",
        "Jain et al. 2022",
    ),
    "feature_distance": Quantity(
        "missingness",
        "feature distance",
        "relative",
        "how far removal moves the penultimate features, in units of their length",
        "Crabbe & van der Schaar 2022",
    ),
    "accuracy": Quantity("missingness", "accuracy", "share", "of the label from what is left", "Jain et al. 2022"),
}
COUNTERFACTUALS = {
    "flipped": Quantity(
        "counterfactuals",
        "decisions changed",
        "share",
        "images whose decision some set of so many patches changes",
        "after Martens & Provost 2014",
    ),
    "counterfactual_size": Quantity(
        "counterfactuals",
        "size of the set",
        "patches",
        "the smallest set of patches found whose removal changes the decision; an image without one counts as the"
        " largest set that was searched for (a restricted mean). Small = the decision hangs on little",
        "after Martens & Provost 2014; restricted mean: Royston & Parmar 2013",
    ),
    "greedy_size": Quantity(
        "counterfactuals",
        "size of greedy's set",
        "patches",
        "the same before the set is refined",
        "after Martens & Provost 2014",
    ),
    "proven_smallest": Quantity(
        "counterfactuals",
        "proven smallest",
        "share",
        "changed decisions of which every smaller set was tried",
        "",
    ),
    "counterfactual_evidence": Quantity(
        "counterfactuals",
        "on the evidence",
        "share",
        "patches of the set that touch the evidence",
        "",
    ),
    "evidence_by_chance": Quantity(
        "counterfactuals",
        "evidence by chance",
        "share",
        "of all patches of these images: what a set drawn at random would have",
        "",
    ),
    "never_flipped": Quantity(
        "counterfactuals",
        "never changed",
        "share",
        "images whose decision stays whichever single patch is left",
        "",
    ),
    "new_class": Quantity("counterfactuals", "new class", "share", "changed decisions that became this class", ""),
}
SURROGATES = {
    "r2": Quantity(
        "surrogates",
        "R\N{SUPERSCRIPT TWO}",
        "of variance",
        "how much of the class's logit the surrogate explains on subsets that it was not fitted to; 1 = all,"
        " 0 = nothing",
        "Ribeiro et al. 2016",
    ),
    "agreement": Quantity(
        "surrogates",
        "agreement",
        "share",
        "of inputs that it was not fitted to on which the surrogate decides as the model does",
        "Craven & Shavlik 1996",
    ),
    "baseline": Quantity(
        "surrogates",
        "agreement by habit",
        "share",
        "the agreement of always giving the model's most frequent answer",
        "",
    ),
    "fit": Quantity("surrogates", "fit", "share", "surrogates that are faithful enough to be read", ""),
}
CAUSES = {
    "effect_logit": Quantity(
        "causes",
        "effect on the logit",
        "logit",
        "of the predicted class: with the factor, less with it changed; positive = it speaks for the prediction",
        "Pearl 2009; Goyal et al. 2019",
    ),
    "effect_probability": Quantity(
        "causes",
        "effect on the probability",
        "probability",
        "the same of the predicted class's softmax probability",
        "Pearl 2009; Goyal et al. 2019",
    ),
    "changed_prediction": Quantity(
        "causes",
        "changed predictions",
        "share",
        "images that are given another class once the factor is changed",
        "Pearl 2009",
    ),
}


def ordered(factors: Iterable[str]) -> list[str]:
    """Factors as they are told: evidence, the tag, the distractors, the background."""
    places = {EVIDENCE: -2, TAG: -1, BACKGROUND: 1}
    return sorted(dict.fromkeys(factors), key=lambda name: places.get(name, 0))


# Families whose quantities have a value per head.
OVER_HEADS = ("attention", "attribution")
SEEN = 4  # images whose attention is kept as pictures
PICTURED_UNITS, PICTURED_CLASSES = 4, 8  # for which images are made by activation maximisation, at most
