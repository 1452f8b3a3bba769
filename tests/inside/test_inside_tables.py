"""The tables and hypotheses on planted values: what the stage writes, without any model."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from unmask.config import Config
from unmask.errors import UserError
from unmask.files import write_arrays, write_table
from unmask.inside import LAYERS, MISSINGNESS, _table
from unmask.internals import cka
from unmask.layout import Layout
from unmask.statistics import inside_hypotheses
from unmask.statistics.hypotheses import hypothesis_rows, verdict
from unmask.statistics.inside import curve_weights
from unmask.tables.inside import COLUMNS, read_inside, tables

IMAGES, FRACTIONS = 30, (0.0, 0.25, 0.5, 0.75, 0.9)
RATIOS = {"simmim_30": 0.3125, "simmim_60": 0.609375, "simmim_75": 0.75}
QUANTITY_LAYERS = {
    "attention_distance": (1, 2, 3),
    "head_divergence": (1, 2, 3),
    "mutual_information": (1, 2, 3),
    "attention_entropy": (1, 2, 3),
    "attribution_agreement": (1, 2, 3),
    "high_frequency": (0, 1, 2, 3),
    "effective_rank": (0, 1, 2, 3),
}
REMOVALS = ("zero", "mean", "blur", "mask_token", "token_drop")


def configuration(folder, domains=("medical", "defect"), seeds=(0,), encoders=(*RATIOS, "scratch")) -> Config:
    return Config(
        {
            "results": str(folder),
            "domains": {name: {} for name in domains},
            "encoders": {
                name: {"method": "simmim", "mask_ratio": RATIOS[name]} if name in RATIOS else {"method": "scratch"}
                for name in encoders
            },
            "seeds": {"finetune": list(seeds)},
            "explain": {"groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
            "aggregate": {"bootstrap": 1000},
        }
    )


def plant(config: Config, shift=lambda *where: 0.0, gone=lambda *where: 0.0) -> Config:
    """Values = an image effect that all models share + some noise + `shift(domain, encoder, phase, quantity, layer)`.

    `gone(encoder, removal, quantity, fraction)` is added to the missingness.
    """
    layout = Layout(config.results)
    for model in config.models:
        rng = np.random.default_rng([len(model.domain), *model.seeds.encode(), *model.encoder.encode()])
        shared = np.random.default_rng(len(model.domain)).normal(size=IMAGES)
        ids = [f"{model.domain}{i}" for i in range(IMAGES)]
        rows = []
        for phase in ("before", "after") if model.finetune_seed == config["seeds"]["finetune"][0] else ("after",):
            for quantity, layers in QUANTITY_LAYERS.items():
                for layer in layers:
                    plus = shift(model.domain, model.encoder, phase, quantity, layer)
                    values = shared + 0.1 * rng.normal(size=IMAGES) + plus
                    rows.append(
                        {"phase": phase, "quantity": quantity, "layer": layer, "image_id": ids, "value": values}
                    )
            rows.append({"phase": phase, "quantity": "class_token_entropy", "status": "skipped", "reason": "none"})
        curves = []
        for removal in REMOVALS:
            if removal == "mask_token" and model.encoder == "scratch":
                curves.append({"removal": removal, "status": "skipped", "reason": "no mask token"})
                continue
            for quantity in ("unchanged_prediction", "class_entropy"):
                for fraction in FRACTIONS:
                    plus = gone(model.encoder, removal, quantity, fraction)
                    values = 1 - fraction + 0.05 * shared + 0.01 * rng.normal(size=IMAGES) + plus
                    curves.append(
                        {
                            "removal": removal,
                            "fraction": fraction,
                            "quantity": quantity,
                            "image_id": ids,
                            "value": values,
                        }
                    )
        folder = layout.inside(model)
        write_table(folder / "layers.parquet", _table(rows, LAYERS))
        write_table(folder / "missingness.parquet", _table(curves, MISSINGNESS))
        features = rng.normal(size=(4, IMAGES, 6)) * 0.3 + np.random.default_rng(5).normal(size=(IMAGES, 6))
        grams = (features @ features.transpose(0, 2, 1)).astype(np.float32)
        phases = dict.fromkeys(row["phase"] for row in rows)
        write_arrays(folder / "grams.safetensors", dict.fromkeys(phases, grams), {"images": "\n".join(ids)})
    return config


def made(config):
    inside = read_inside(config, Layout(config.results))
    return inside, tables(config, inside)


def pick(table, **keys):
    for key, value in keys.items():
        table = table[table[key].isna() if value is None else table[key] == value]
    return table


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    def shift(domain, encoder, phase, quantity, layer):
        return 3.0 + layer if domain == "medical" else 5.0 + layer

    return plant(configuration(tmp_path_factory.mktemp("inside")), shift)


@pytest.fixture(scope="module")
def found(config):
    return made(config)[1]


def test_tables_have_their_columns_domains_and_encoders(found):
    for name, columns in COLUMNS.items():
        assert list(found[name].columns) == columns
        if name in ("causes", "causal_model"):
            assert found[name].empty, "nothing of it was planted"
            continue
        assert set(found[name]["domain"].dropna()) == {"medical", "defect"}
        assert found[name]["domain"].isna().any(), "all domains pooled"
    assert set(found["inside"]["encoder"]) == {*RATIOS, "scratch"}


def test_means_and_intervals_are_those_of_the_images(config, found):
    row = pick(
        found["inside"], domain="medical", encoder="simmim_30", phase="after", quantity="effective_rank", layer=2
    ).iloc[0]
    model = next(m for m in config.models if (m.domain, m.encoder) == ("medical", "simmim_30"))
    table = pd.read_parquet(Layout(config.results).inside(model) / "layers.parquet")
    values = pick(table, phase="after", quantity="effective_rank", layer=2)["value"].to_numpy()
    assert row["value"] == pytest.approx(values.mean())
    half = t(IMAGES - 1).ppf(0.975) * values.std(ddof=1) / np.sqrt(IMAGES)
    assert (row["low"], row["high"]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert (row["n"], row["seeds"], row["status"]) == (IMAGES, 1, "ok")


def test_pooled_rows_are_the_mean_of_the_domains(found):
    keys = {"encoder": "scratch", "phase": "after", "quantity": "high_frequency", "layer": 0}
    parts = [pick(found["inside"], domain=domain, **keys)["value"].iloc[0] for domain in ("medical", "defect")]
    whole = pick(found["inside"], domain=None, **keys).iloc[0]
    assert whole["value"] == pytest.approx(np.mean(parts))
    assert whole["n"] == 2 * IMAGES
    assert whole["high"] - whole["low"] < 1, "the difference between domains is no part of the interval"


def test_distances_are_given_in_patches_too(found):
    keys = {"domain": "defect", "encoder": "scratch", "phase": "after", "layer": 1}
    pixels, patches = (
        pick(found["inside"], quantity=quantity, **keys).iloc[0]
        for quantity in ("attention_distance", "attention_distance_patches")
    )
    for name in ("value", "low", "high"):
        assert patches[name] == pytest.approx(pixels[name] / 8)
    assert (pixels["unit"], patches["unit"]) == ("px", "patches")


def test_what_was_not_measured_is_a_row_with_the_reason(found):
    row = pick(found["inside"], domain="defect", encoder="scratch", quantity="class_token_entropy", phase="after").iloc[
        0
    ]
    assert (row["status"], row["reason"], row["n"]) == ("skipped", "none", 0)
    assert np.isnan(row["value"])
    row = pick(found["missingness"], domain="defect", encoder="scratch", removal="mask_token").iloc[0]
    assert (row["status"], row["reason"]) == ("skipped", "no mask token")


def test_the_mean_over_a_curve_is_its_area_by_trapezoids(found):
    keys = {"domain": "medical", "encoder": "simmim_60", "removal": "blur", "quantity": "class_entropy"}
    rows = pick(found["missingness"], **keys)
    curve = rows.dropna(subset="fraction").sort_values("fraction")
    mean = pick(rows, fraction=None)["value"].iloc[0]
    assert mean == pytest.approx(np.trapezoid(curve["value"], curve["fraction"]) / 0.9)
    assert curve_weights([0.0, 0.2, 1.0]).tolist() == pytest.approx([0.1, 0.5, 0.4])


def test_cka_is_that_of_the_gram_matrices(config, found):
    layout = Layout(config.results)
    from unmask.files import read_arrays

    one, other = (
        read_arrays(layout.inside(m) / "grams.safetensors")["after"]
        for name in ("simmim_30", "scratch")
        for m in config.models
        if (m.domain, m.encoder) == ("medical", name)
    )
    expected = cka.influence(one, other).mean(-1)
    keys = {
        "domain": "medical",
        "encoder_a": "simmim_30",
        "phase_a": "after",
        "encoder_b": "scratch",
        "phase_b": "after",
    }
    rows = pick(found["cka"], **keys)
    assert rows.pivot(index="layer_a", columns="layer_b", values="value").to_numpy() == pytest.approx(expected)
    own = pick(
        found["cka"], domain="medical", encoder_a="scratch", encoder_b="scratch", phase_a="after", phase_b="after"
    )
    assert pick(own, layer_a=2, layer_b=2)["value"].iloc[0] == pytest.approx(1)
    within = own[(own["layer_a"] > 0) & (own["layer_b"] > own["layer_a"])]["value"].mean()
    similarity = pick(found["inside"], domain="medical", encoder="scratch", phase="after", quantity="layer_similarity")
    assert similarity["value"].iloc[0] == pytest.approx(within)
    across = pick(found["cka"], encoder_a="scratch", encoder_b="scratch", phase_a="before", phase_b="after")
    assert len(pick(across, domain="medical")) == 16
    assert pick(found["cka"], phase_a="after", phase_b="before").empty, "each pair stands once"


def test_the_same_files_give_the_same_bytes(config, found):
    again = made(config)[1]
    assert all(again[name].to_csv() == table.to_csv() for name, table in found.items())


def test_effects_are_the_differences_of_the_same_images_and_the_slope_over_the_ratio(tmp_path):
    def shift(domain, encoder, phase, quantity, layer):
        return 2.0 * RATIOS.get(encoder, 0.0) if quantity == "high_frequency" and phase == "after" else 0.0

    config = plant(configuration(tmp_path), shift, lambda encoder, *rest: 0.3 if encoder == "simmim_30" else 0.0)
    _, found = made(config)
    table = found["inside_effects"]
    keys = {"domain": "medical", "phase": "after", "quantity": "high_frequency", "layers": "mean over layers"}
    images = []
    for encoder in (*RATIOS, "scratch"):
        model = next(m for m in config.models if (m.domain, m.encoder) == ("medical", encoder))
        rows = pick(pd.read_parquet(Layout(config.results).inside(model) / "layers.parquet"), phase="after")
        rows = rows[(rows["quantity"] == "high_frequency") & (rows["layer"] > 0)]
        images.append(rows.groupby("image_id", observed=True)["value"].mean())
    for place, encoder in enumerate(RATIOS):
        row = pick(table, **keys, contrast="difference", encoder=encoder).iloc[0]
        difference = images[place] - images[-1]
        assert row["estimate"] == pytest.approx(difference.mean())
        half = t(IMAGES - 1).ppf(0.975) * difference.std() / np.sqrt(IMAGES)
        assert row["high"] - row["estimate"] == pytest.approx(half, rel=0.15)
        assert (row["reference"], row["verdict"], row["n"]) == ("scratch", "higher", IMAGES)
    slope = pick(table, **keys, contrast="slope").iloc[0]
    means = [one.mean() for one in images[:-1]]
    assert slope["estimate"] == pytest.approx(0.1 * np.polyfit(list(RATIOS.values()), means, 1)[0])
    before = pick(table, domain=None, phase="before", quantity="high_frequency", contrast="slope")
    assert before["estimate"].abs().max() < 0.02
    curve = pick(table, domain=None, removal="blur", quantity="class_entropy", encoder="simmim_30").iloc[0]
    assert curve["estimate"] == pytest.approx(0.3, abs=0.02)
    masked = pick(table, domain=None, removal="mask_token", quantity="class_entropy")
    assert set(masked["contrast"]) == {"slope"}, "the model from scratch has no mask token to compare with"


def verdicts(config):
    inside, _ = made(config)
    from unmask.statistics.hypotheses import HYPOTHESES

    answers = {}
    for one in HYPOTHESES:
        if one["test"] in inside_hypotheses.TESTS:
            answer = inside_hypotheses.TESTS[one["test"]](inside, **one["options"])
            answers[one["id"]] = answer, verdict(one["direction"], one["threshold"], answer)
    return answers


def test_planted_differences_decide_the_hypotheses_and_their_opposites_too(tmp_path):
    effects = {
        "attention_distance": -1.0,
        "attention_entropy": -0.5,
        "head_divergence": 0.8,
        "mutual_information": 0.4,
        "high_frequency": 0.3,
        "attribution_agreement": 0.6,
    }

    def shift(sign):
        def of(domain, encoder, phase, quantity, layer):
            if quantity == "effective_rank":
                return sign * 4 * (1 - ((RATIOS[encoder] - 0.53125) / 0.21875) ** 2) if encoder in RATIOS else 50.0
            return sign * effects[quantity] if encoder in RATIOS and phase == "after" else 0.0

        return of

    def gone(sign):
        def of(encoder, removal, quantity, fraction):
            native = removal in ("mask_token", "token_drop")
            return sign * fraction * (0.2 * native + (0.1 * RATIOS.get(encoder, 0) if not native else 0))

        return of

    for sign, word in ((1, "supported"), (-1, "not supported")):
        config = plant(configuration(tmp_path / word), shift(sign), gone(sign))
        answers = verdicts(config)
        assert set(answers) == {"H1", "H1b", "H2", "H3", "H4", "H5", "H6", "H9b", "H9c", "H11b", "H13"}
        for name, quantity in (("H1", "attention_distance"), ("H2", "head_divergence"), ("H4", "high_frequency")):
            answer, said = answers[name]
            assert answer.estimate == pytest.approx(sign * effects[quantity], abs=0.05)
            assert answer.low < sign * effects[quantity] < answer.high
            assert (said, answer.n) == (word, 2 * IMAGES)
        for name in ("H1b", "H3", "H6", "H9b", "H9c", "H11b"):
            assert answers[name][1] == word
        assert answers["H6"][0].estimate == pytest.approx(sign * 4, abs=0.1)
        # Whichever way attention and attribution differ, it tells the encoders apart.
        assert answers["H13"][1] == "supported"
        assert answers["H13"][0].estimate == pytest.approx(0.6, abs=0.05)
        assert answers["H5"][1] == "undecided", "the features were drawn alike"


def test_the_last_layers_are_the_last_ones():
    layers = {name: take([1, 2, 3, 4, 5, 6]) for name, take in inside_hypotheses.LAYERS.items()}
    assert layers == {"all": [1, 2, 3, 4, 5, 6], "last": [6], "last three": [4, 5, 6], "last third": [5, 6]}
    assert inside_hypotheses.LAYERS["last third"]([1, 2, 3, 4]) == [4]


def test_no_difference_leaves_h13_undecided_with_an_interval_from_0(tmp_path):
    answer, said = verdicts(plant(configuration(tmp_path)))["H13"]
    assert (answer.low, said) == (0.0, "undecided")
    assert 0 <= answer.estimate < answer.high


def test_seeds_are_nested_and_before_counts_once(tmp_path):
    config = plant(configuration(tmp_path, seeds=(0, 1, 2), domains=("medical",)), lambda *where: 1.0)
    _, found = made(config)
    rows = pick(found["inside"], domain="medical", encoder="scratch", quantity="high_frequency", layer=1)
    assert rows.set_index("phase")["seeds"].to_dict() == {"before": 1, "after": 3}
    assert (rows["n"] == IMAGES).all()


def test_without_the_stage_the_tables_are_empty_and_the_hypotheses_say_so(tmp_path):
    config = configuration(tmp_path)
    inside, found = made(config)
    assert inside is None
    assert all(len(table) == 0 and list(table.columns) == COLUMNS[name] for name, table in found.items())


def test_hypotheses_without_encoders_to_compare_are_not_measured(tmp_path):
    config = plant(configuration(tmp_path, encoders=("simmim_30", "simmim_60")))
    rows = {row["hypothesis"]: row for row in hypothesis_rows_of(config)}
    assert rows["H1"]["reason"] == "it needs an encoder trained from scratch"
    assert rows["H6"]["reason"] == "it needs encoders of three mask ratios"
    assert rows["H9b"]["verdict"] in ("supported", "not supported", "undecided")


def hypothesis_rows_of(config):
    inside, _ = made(config)
    accuracy = pd.DataFrame(columns=["domain", "encoder", "pretrain_seed", "finetune_seed", "test"])
    return hypothesis_rows(inside.study, accuracy, inside)


def test_a_model_that_was_left_out_is_named(tmp_path):
    config = plant(configuration(tmp_path))
    folder = Layout(config.results).inside(config.models[3])
    (folder / "layers.parquet").unlink()
    with pytest.raises(UserError, match=r"lacks medical/scratch/p0f0; run the stage inside"):
        made(config)


def test_models_measured_on_different_images_are_refused(tmp_path):
    config = plant(configuration(tmp_path))
    path = Layout(config.results).inside(config.models[1]) / "grams.safetensors"
    from unmask.files import read_arrays

    write_arrays(path, read_arrays(path), {"images": "\n".join(f"other{i}" for i in range(IMAGES))})
    with pytest.raises(UserError, match="are of different images"):
        made(config)
