"""The families about concepts from the stage to tables, figures and page; and alone for one checkpoint."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unmask import inside
from unmask.cli import main
from unmask.config import Config, ModelId
from unmask.errors import UserError
from unmask.figures import dissection as curves
from unmask.figures import style, units
from unmask.figures.source import Source
from unmask.files import read_arrays, read_json, read_table, write_json, write_table
from unmask.internals.concepts import FEWEST, read
from unmask.layout import Layout
from unmask.page import concepts as page
from unmask.tables.concepts import COLUMNS, tables
from unmask.tables.inside import read_inside

FAMILIES = ["rank", "dissection", "concepts", "visualisation", "factors"]


def folder_of_images(folder, count=FEWEST, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng([seed, i]).integers(0, 120, (20, 20, 3), np.uint8)
        pixels[::4] = 255
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def config(made, tmp_path_factory):
    striped = folder_of_images(tmp_path_factory.mktemp("own") / "striped")
    found = made(
        encoders=("half", "most"),
        seeds=(0, 1),
        what=FAMILIES,
        images=15,
        train=60,
        concepts={"striped": str(striped)},
    )
    for model in found.models:
        inside.run(
            found,
            domain=model.domain,
            encoder=model.encoder,
            pretrain_seed=model.pretrain_seed,
            finetune_seed=model.finetune_seed,
        )
    return found


@pytest.fixture(scope="module")
def found(config):
    layout = Layout(config.results)
    return tables(config, layout, read_inside(config, layout))


def left(config, encoder="half", seed=0):
    return Layout(config.results).inside(ModelId("defect", encoder, 0, seed))


def test_tables_have_their_columns_encoders_and_phases(found):
    for name, columns in COLUMNS.items():
        assert list(found[name].columns) == columns
        assert set(found[name]["encoder"]) == {"half", "most"}
        assert (found[name]["status"] == "ok").any()
    for name in ("tcav", "dissection"):
        assert set(found[name]["phase"]) == {"before", "after"}
    assert set(found["dissection"]["concept"].dropna()) == {"b", "c", "smudge"}
    assert set(found["tcav"]["concept"].dropna()) == {"b", "c", "smudge", "striped"}


def test_detectors_and_the_best_ious_are_those_of_the_units(config, found):
    table = found["dissection"]
    for layer in (0, 1, 2):
        ious = []
        for seed in (0, 1):
            rows = read_table(left(config, seed=seed) / "dissection.parquet")
            rows = rows[(rows["phase"] == "after") & (rows["layer"] == layer) & (rows["status"] == "ok")]
            ious.append(rows.pivot(index="unit", columns=["kind", "name"], values="value"))
        own = table[(table["domain"] == "defect") & (table["encoder"] == "half") & (table["phase"] == "after")]
        own = own[own["layer"] == layer].set_index(["kind", "concept"])
        row = own.loc[("distractor", "smudge")]
        assert row["iou"] == pytest.approx(np.mean([one["distractor", "smudge"].max() for one in ious]))
        assert row["low"] <= row["iou"] <= row["high"]
        assert row["detectors"] == np.mean([(one["distractor", "smudge"] > 0.04).sum() for one in ious])
        whole = own[own.index.get_level_values("concept").isna() & (own.index.get_level_values("kind") == "evidence")]
        assert whole["detectors"].iloc[0] == np.mean([(one["evidence"] > 0.04).any(axis=1).sum() for one in ious])
        assert whole["share"].iloc[0] == whole["detectors"].iloc[0] / 12
        assert (row["units"], row["seeds"], row["n"]) == (12, 2, 15)


def test_one_seed_names_its_best_unit(config, found):
    table = found["dissection"]
    rows = table[(table["phase"] == "before") & (table["encoder"] == "half") & (table["concept"] == "b")]
    own = read_table(left(config) / "dissection.parquet")
    own = own[(own["phase"] == "before") & (own["name"] == "b")]
    best = own.loc[own.groupby("layer")["value"].idxmax()].set_index("layer")["unit"]
    assert rows.set_index("layer")["unit"].to_dict() == best.to_dict()
    assert (rows["seeds"] == 1).all()
    assert table.loc[table["phase"] == "after", "unit"].isna().all()


def test_over_the_domains_the_shares_of_a_kind_are_averaged(found):
    table = found["dissection"]
    rows = table[table["domain"].isna()]
    assert set(rows["kind"]) == {"evidence", "distractor"}
    assert rows["concept"].isna().all()
    key = ["encoder", "phase", "layer", "kind"]
    alone = table[table["domain"].notna() & table["concept"].isna()].set_index(key)["share"]
    assert rows.set_index(key)["share"].to_dict() == alone.to_dict()


def test_a_concept_that_is_not_represented_has_no_score_and_the_others_have_their_mean_share(config, found):
    table = found["tcav"]
    known = table[table["accuracy"].notna()]
    unknown = known[~known["represented"].astype(bool)]
    assert (unknown["verdict"] == "not represented").all()
    assert unknown["score"].isna().all()
    assert known.loc[known["phase"] == "before", "score"].isna().all()
    striped = known[(known["concept"] == "striped") & (known["phase"] == "after") & (known["encoder"] == "half")]
    assert striped["represented"].all()
    for row in striped.to_dict("records"):
        values = []
        for seed in (0, 1):
            rows = read_table(left(config, seed=seed) / "tcav.parquet")
            rows = rows[
                (rows["name"] == "striped") & (rows["layer"] == row["layer"]) & (rows["target"] == row["class"])
            ]
            values.append(rows.loc[rows["measure"] == "positive", "value"].mean())
        assert row["score"] == pytest.approx(np.mean(values))
        assert row["low"] <= row["score"] <= row["high"]
        assert (row["vectors"], row["seeds"]) == (6, 2)


def test_factors_come_with_their_fitness_and_importance_by_class(config, found):
    table = found["concept_factors"]
    for encoder in ("half", "most"):
        own = table[(table["encoder"] == encoder) & (table["finetune_seed"] == 1)]
        rows = read_table(left(config, encoder, 1) / "factors.parquet")
        error = rows.loc[rows["measure"] == "reconstruction_error", "value"].iloc[0]
        assert own["reconstruction_error"].to_numpy() == pytest.approx(error)
        assert 0 < error < 1
        assert own["agreement"].between(0, 1).all()
        means = rows[rows["measure"] == "importance"].groupby(["factor", "target"], observed=True)["value"].mean()
        assert own.set_index(["factor", "class"])["importance"].to_dict() == pytest.approx(means.to_dict())
        assert (own["low"] <= own["high"]).all()
        largest = own.groupby("factor", sort=False)["importance"].max().tolist()
        assert largest == sorted(largest, reverse=True)


def test_a_convolution_has_units_vectors_and_factors_too(made):
    config = made(encoders=("convolution",), what=["dissection", "concepts", "factors"], images=15, train=60)
    inside.run(config, domain="defect", encoder="convolution", pretrain_seed=0, finetune_seed=0)
    layout = Layout(config.results)
    found = tables(config, layout, read_inside(config, layout))
    units = found["dissection"].query("concept == 'smudge' and phase == 'after'")
    assert units.set_index("layer")["units"].to_dict() == {0: 64, 1: 64, 2: 128, 3: 256, 4: 512}
    assert set(found["tcav"]["layer"]) == {2, 4}
    assert (found["concept_factors"]["status"] == "ok").all()


def test_the_same_again_gives_the_same_bytes(config, tmp_path):
    names = ("dissection.parquet", "tcav.parquet", "factors.parquet", "concepts.safetensors")
    before = [(left(config) / name).read_bytes() for name in names]
    inside.run(config, domain="defect", encoder="half", pretrain_seed=0, finetune_seed=0)
    assert [(left(config) / name).read_bytes() for name in names] == before


def test_a_run_without_these_families_has_empty_tables(made):
    config = made(encoders=("half",), what=["rank"])
    inside.run(config, domain="defect", encoder="half", pretrain_seed=0, finetune_seed=0)
    layout = Layout(config.results)
    assert all(one.empty for one in tables(config, layout, read_inside(config, layout)).values())
    assert read_arrays(left(config) / "pictures.safetensors") == {}
    for name in ("dissection.parquet", "tcav.parquet", "factors.parquet", "concepts.safetensors"):
        (left(config) / name).unlink()  # as a run of an older version leaves it
    assert all(one.empty for one in tables(config, layout, read_inside(config, layout)).values())
    assert all(one.empty for one in tables(config, layout, None).values())


# --- the user's folders ----------------------------------------------------------------------------------------------


def with_concepts(config, **folders):
    return Config({**config.data, "inside": {**config.data["inside"], "concepts": folders}})


def test_a_folder_that_is_missing_or_too_small_is_one_sentence_before_any_work(config, tmp_path):
    with pytest.raises(UserError, match=r"inside.concepts.dotted: the folder 'nowhere' does not exist"):
        with_concepts(config, dotted="nowhere")
    small = folder_of_images(tmp_path / "small", 3)
    with pytest.raises(UserError, match=r"inside.concepts.dotted: the folder '.*' holds 3 images; give 20 or more"):
        with_concepts(config, dotted=str(small))


def test_a_changed_folder_reruns_the_stage(config, tmp_path):
    own = folder_of_images(tmp_path / "own")
    given = with_concepts(config, own=str(own))
    cell = {"domain": "defect", "encoder": "half", "pretrain_seed": 0, "finetune_seed": 0}
    before = inside.settings(given, **cell)
    assert inside.settings(given, **cell) == before
    folder_of_images(own, FEWEST + 1, seed=3)
    assert inside.settings(given, **cell) != before


# --- one checkpoint --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(config):
    path = Layout(config.results).model(ModelId("defect", "half", 0, 0)) / "model.json"
    sidecar = {**read_json(path), "classes": ["a", "b", "c"], "domain": "defect", "encoder": "half"}
    write_json(path, {**sidecar, "pretrain_seed": 0, "finetune_seed": 0})
    return str(path.with_suffix(".safetensors"))


def test_a_checkpoint_in_a_results_folder_is_asked_about_its_domains_concepts(checkpoint, tmp_path, capsys):
    what = ["--what", "concepts,dissection,visualisation,factors"]
    assert main(["inside", "--model", checkpoint, *what, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "smudge" in said
    assert "relative reconstruction error" in said
    for name in ("tcav", "dissection", "concept_factors"):
        assert len(pd.read_csv(tmp_path / f"{name}.csv"))
    assert (tmp_path / "visualisations.png").stat().st_size > 1000


def test_elsewhere_there_are_reasons_and_the_users_folders(checkpoint, tmp_path, capsys):
    images, striped = folder_of_images(tmp_path / "images", 30, seed=8), folder_of_images(tmp_path / "striped", 25)
    common = ["inside", "--model", checkpoint, "--images", str(images), "--what", "concepts,dissection"]
    assert main(common) == 0
    said = capsys.readouterr().out
    assert "tcav skipped: there are no training images" in said
    assert "dissection skipped: no concept's pixels are known" in said
    assert main([*common, "--concepts", f"striped={striped}", "--output", str(tmp_path)]) == 0
    assert set(pd.read_csv(tmp_path / "tcav.csv")["concept"]) == {"striped"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("striped", "write it as striped=path/to/images"), ("a=nowhere", "--concepts a: the folder 'nowhere'")],
)
def test_mistakes_in_concepts_are_one_sentence(checkpoint, capsys, given, sentence):
    assert main(["inside", "--model", checkpoint, "--concepts", given]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


# --- figures and page ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(config, found):
    layout = Layout(config.results)
    write_table(layout.domain("defect") / "test.csv", pd.DataFrame({"image_id": [f"test{i}" for i in range(15)]}))
    accuracy = pd.DataFrame([{**vars(model), "val": 0.5} for model in config.models])
    read_back = {}
    for name, table in found.items():
        write_table(layout.leaderboards / f"{name}.csv", table)
        read_back[name] = read_table(layout.leaderboards / f"{name}.csv")
    return Source(config, layout, {**read_back, "accuracy": accuracy})


def test_every_figure_fits_a_page(source):
    pictures = [*curves.pictures(source), *units.pictures(source)]
    names = [
        "dissection",
        "dissection_defect",
        "tcav_defect",
        "units_defect",
        "visualisations_defect",
        "factors_defect",
    ]
    assert [one.name for one in pictures] == names
    with style.styled():
        for one in pictures:
            assert one.draw().get_size_inches()[0] <= style.PAGE + 1e-6


def test_units_are_shown_on_the_images_that_they_answer_to_most(config):
    arrays, about = read(left(config))
    for place, unit in enumerate(about["units"]):
        peaks = arrays[f"unit_{place}"].max((1, 2))
        assert (np.diff(peaks) <= 0).all()
        assert len(unit["images"]) == len(set(unit["images"])) == len(peaks)


def test_the_page_says_what_is_known_and_escapes_names(source, config):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from unmask.page import build
    from unmask.page.embed import number

    section = page.concepts(config, source.layout)
    section["vectors"][0]["concept"] = "<b>"
    environment = Environment(
        loader=FileSystemLoader(build.Path(build.__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(number=number, words=str)
    text = '{% import "index.macros.html" as parts %}{% include "index.concepts.html" %}'
    made = environment.from_string(text).render(inside={"concepts": section}, confidence=0.95)
    assert "striped" in made
    assert "not represented" in made
    assert "&lt;b&gt;" in made
    assert len(section["vectors"]) == 4
    assert [row["concept"] for row in section["detectors"]] == ["b", "c", "smudge"]


def test_arrays_say_what_they_are_of(config):
    arrays, about = read(left(config))
    assert [one.get("class") for one in about["visualisations"][:3]] == ["a", "b", "c"]
    assert arrays["visualisations"].shape[1:] == (32, 32, 3)
    assert arrays["factors"].shape[0] == len(about["factors"]["images"]) == 3
    assert json.loads(json.dumps(about)) == about
