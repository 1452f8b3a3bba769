"""Tables, figures and the page's words of counterfactual sets, from planted ones."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from unmask.config import Config
from unmask.errors import UserError
from unmask.figures import counterfactual_sets, counterfactuals, style
from unmask.figures.source import Source
from unmask.files import write_arrays, write_json, write_table
from unmask.internals.counterfactuals import COLUMNS
from unmask.internals.removed import frame
from unmask.layout import Layout
from unmask.page import decisions as page
from unmask.tables import decisions

IMAGES, LARGEST = 12, 6
ENCODERS = {"simmim_30": 0.3, "simmim_60": 0.6, "scratch": None}
CLASSES = ["none", "<b>hole</b>", "stain"]


def configuration(folder) -> Config:
    return Config(
        {
            "results": str(folder),
            "image": {"size": 32, "patch": 8},
            "domains": {"medical": {}, "defect": {}},
            "encoders": {
                name: {"method": "simmim", "mask_ratio": ratio} if ratio else {"method": "scratch"}
                for name, ratio in ENCODERS.items()
            },
            "explain": {"groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
            "aggregate": {"bootstrap": 1000},
        }
    )


def size_of(domain, encoder, image):
    """The planted size, None where there is no set: every fourth image; one patch more for each step of the ratio."""
    more = {"simmim_30": 1, "simmim_60": 2, "scratch": 0}[encoder]
    return None if image % 4 == 3 else 1 + image % 3 + more


def plant_images(config: Config) -> None:
    layout = Layout(config.results)
    for domain in config["domains"]:
        folder, draw = layout.domain(domain), np.random.default_rng(0)
        masks = np.zeros((IMAGES, 32, 32), bool)
        masks[:, 8:16, 8:16] = True
        images = draw.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
        write_arrays(
            folder / "test.safetensors",
            {"images": images, "labels": np.arange(IMAGES) % 3, "masks": masks},
        )
        write_table(folder / "test.csv", pd.DataFrame({"image_id": [f"{domain}{i}" for i in range(IMAGES)]}))
        write_json(folder / "card.json", {"classes": CLASSES})


def plant(config: Config) -> Config:
    layout = Layout(config.results)
    plant_images(config)
    for model in config.models:
        rows = []
        for image in range(IMAGES):
            size = size_of(model.domain, model.encoder, image)
            row = {"removal": "mean", "image_id": f"{model.domain}{image}", "decision": image % 3, "largest": LARGEST}
            if size is None:
                row |= {"outcome": "never" if image % 8 == 3 else "larger", "reason": "none found"}
            else:
                row |= {"outcome": "flipped", "new_class": (image + 1) % 3, "size": size, "greedy_size": size + 1}
                row |= {"proven": size < 3, "patches": " ".join(map(str, range(5, 5 + size)))}
                row |= {"evidence": 1 / size, "evidence_everywhere": 1 / 16}
            rows.append(row)
        if model.encoder == "scratch":
            rows.append({"removal": "mask_token", "status": "skipped", "reason": "no <mask> token"})
        rows += [
            {"removal": "zero", "image_id": row["image_id"], "status": "failed", "reason": "came back"}
            for row in rows[:IMAGES]
        ]
        write_table(layout.inside(model) / "counterfactuals.parquet", frame(rows, COLUMNS))
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return plant(configuration(tmp_path_factory.mktemp("flips")))


@pytest.fixture(scope="module")
def apart(config):
    return decisions.read(config, Layout(config.results))


@pytest.fixture(scope="module")
def found(apart):
    return decisions.tables(apart)["counterfactuals"]


def pick(table, **keys):
    for key, value in keys.items():
        table = table[table[key].isna() if value is None else table[key] == value]
    return table


def test_an_image_without_a_set_counts_as_the_largest_one(found):
    sizes = np.array([size_of("medical", "simmim_60", i) or LARGEST for i in range(IMAGES)], float)
    row = pick(found, domain="medical", encoder="simmim_60", quantity="counterfactual_size").iloc[0]
    assert row["value"] == pytest.approx(sizes.mean())
    half = t(IMAGES - 1).ppf(0.975) * sizes.std(ddof=1) / np.sqrt(IMAGES)
    assert (row["low"], row["high"]) == pytest.approx((sizes.mean() - half, sizes.mean() + half), abs=0.15 * half)
    assert (row["n"], row["unit"], row["mask_ratio"]) == (IMAGES, "patches", 10 / 16)
    greedy = pick(found, domain="medical", encoder="simmim_60", quantity="greedy_size").iloc[0]
    assert greedy["value"] == pytest.approx(np.minimum(sizes + 1, LARGEST).mean())


def test_the_curve_is_the_share_of_images_whose_set_is_no_larger(found):
    curve = pick(found, domain="defect", encoder="scratch", quantity="flipped").set_index("patches")["value"]
    sizes = np.array([size_of("defect", "scratch", i) or np.inf for i in range(IMAGES)])
    assert curve.to_dict() == pytest.approx({k: (sizes <= k).mean() for k in range(1, LARGEST + 1)})


def test_shares_of_sets_are_over_the_changed_decisions_alone(found):
    keys = {"domain": "defect", "encoder": "scratch"}
    sizes = np.array([size or 0 for size in (size_of("defect", "scratch", i) for i in range(IMAGES))])
    flipped = sizes[sizes > 0]
    row = pick(found, **keys, quantity="counterfactual_evidence").iloc[0]
    assert (row["value"], row["n"]) == (pytest.approx((1 / flipped).mean()), len(flipped))
    assert pick(found, **keys, quantity="evidence_by_chance")["value"].iloc[0] == pytest.approx(1 / 16)
    assert pick(found, **keys, quantity="proven_smallest")["value"].iloc[0] == pytest.approx((flipped < 3).mean())
    never = pick(found, **keys, quantity="never_flipped").iloc[0]
    assert never["value"] == pytest.approx(2 / 12)
    assert "all but one" in never["reason"]


def test_new_classes_are_a_domains_own_and_add_up_to_1(found):
    shares = pick(found, domain="medical", encoder="scratch", quantity="new_class")
    assert shares["new_class"].tolist() == CLASSES
    assert shares["value"].sum() == pytest.approx(1)
    assert pick(found, domain=None, quantity="new_class").empty


def test_pooled_rows_are_the_mean_of_the_domains(found):
    row = pick(found, domain=None, encoder="simmim_30", quantity="counterfactual_size").iloc[0]
    parts = pick(found, encoder="simmim_30", quantity="counterfactual_size").dropna(subset="domain")["value"]
    assert row["value"] == pytest.approx(parts.mean())
    assert row["n"] == 2 * IMAGES


def test_what_was_not_searched_is_a_row_with_the_reason(found):
    row = pick(found, domain="defect", encoder="scratch", removal="mask_token").iloc[0]
    assert (row["status"], row["reason"], row["n"]) == ("skipped", "no <mask> token", 0)
    row = pick(found, domain="defect", encoder="scratch", removal="zero").iloc[0]
    assert (row["status"], row["reason"]) == ("failed", "12 images: came back")


def test_effects_are_differences_of_the_same_images(apart):
    rows = pd.DataFrame(decisions.effects(apart))
    row = pick(rows, domain="medical", quantity="counterfactual_size", encoder="simmim_30").iloc[0]
    sizes = {
        name: np.array([size_of("medical", name, i) or LARGEST for i in range(IMAGES)])
        for name in ("simmim_30", "scratch")
    }
    assert row["estimate"] == pytest.approx((sizes["simmim_30"] - sizes["scratch"]).mean())
    assert (row["removal"], row["reference"], row["verdict"]) == ("mean", "scratch", "higher")
    flipped = pick(rows, domain=None, quantity="flipped")
    assert len(flipped) == 3, "of the curve the last point alone: two differences and a slope"


def test_the_same_files_give_the_same_bytes(config, found):
    again = decisions.tables(decisions.read(config, Layout(config.results)))["counterfactuals"]
    assert again.to_csv() == found.to_csv()


def test_models_without_the_table_are_named(tmp_path):
    config = plant(configuration(tmp_path))
    layout = Layout(config.results)
    (layout.inside(config.models[-1]) / "counterfactuals.parquet").unlink()
    with pytest.raises(UserError, match=f"lacks counterfactuals of {config.models[-1].folder}"):
        decisions.read(config, layout)
    for model in config.models:
        (layout.inside(model) / "counterfactuals.parquet").unlink(missing_ok=True)
    empty = decisions.read(config, layout)
    assert empty.counterfactuals is None
    assert decisions.tables(empty)["counterfactuals"].empty


def test_figures_show_the_tables_values_and_are_the_same_bytes_each_time(config, found, tmp_path):
    source = Source(config, Layout(config.results), {"counterfactuals": found})
    drawn = {one.name: one for kind in (counterfactuals, counterfactual_sets) for one in kind.pictures(source)}
    assert list(drawn) == [
        "counterfactuals", "counterfactuals_medical", "counterfactuals_defect",
        "counterfactual_sets_medical", "counterfactual_sets_defect",
    ]  # fmt: skip
    with style.styled():
        for name in ("counterfactuals_defect", "counterfactual_sets_defect"):
            paths = [style.save(drawn[name].draw(), tmp_path / f"{name}{i}") for i in range(2)]
            assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]
        figure = drawn["counterfactuals_defect"].draw()
        assert figure.get_size_inches()[0] <= style.PAGE
        own = pick(found, domain="defect", encoder="simmim_30")
        curve = own[own["quantity"] == "flipped"].sort_values("patches")
        assert any(
            len(line.get_ydata()) == len(curve) and np.allclose(line.get_ydata(), curve["value"])
            for line in figure.axes[0].lines
        )
        sets = drawn["counterfactual_sets_defect"].draw()
    words = [axes.get_xlabel() for axes in sets.axes]
    assert "none\n\N{RIGHTWARDS ARROW} <b>hole</b>" in words
    assert any("never changed" in word for word in words)


def test_the_page_says_what_was_found_and_what_was_not_searched(config, found):
    layout = Layout(config.results)
    write_table(layout.leaderboards / "counterfactuals.csv", found)
    made = page.counterfactuals(config, layout)
    first = made["rows"][0]
    assert (first["removal"], first["encoder"]) == ("mean", "simmim_30")
    row = pick(found, domain=None, encoder="simmim_30", quantity="flipped", patches=LARGEST).iloc[0]
    assert first["flipped"]["value"] == pytest.approx(row["value"])
    assert made["largest"] == LARGEST
    assert {one["reason"] for one in made["missing"]} == {"no <mask> token", "12 images: came back"}
    assert page.counterfactuals(config, Layout(layout.results / "nowhere")) is None
