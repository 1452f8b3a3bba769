"""The figures of the stage, and its section of the page, from planted tables."""

import numpy as np
import pandas as pd
import pytest

from unmask.config import Config
from unmask.figures import inside as layers
from unmask.figures import missingness, similarity, style
from unmask.figures.source import Source
from unmask.files import write_table
from unmask.internals.catalogue import MISSINGNESS as CURVES
from unmask.internals.catalogue import QUANTITIES
from unmask.layout import Layout
from unmask.page import inside
from unmask.tables.inside import COLUMNS

ENCODERS = {"simmim_30": 0.3, "simmim_60": 0.6, "scratch": None}


def configuration(folder, encoders=ENCODERS) -> Config:
    return Config(
        {
            "results": str(folder),
            "domains": {"medical": {}, "defect": {}},
            "encoders": {
                name: {"method": "simmim", "mask_ratio": ratio} if ratio else {"method": "scratch"}
                for name, ratio in encoders.items()
            },
            "explain": {"groups": {"one": ["saliency"]}},
            "score": {"metrics": ["sparseness"]},
        }
    )


def planted(config) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    found = {"n": 10, "seeds": 1, "status": "ok"}

    def bounds():
        value = rng.random()
        return {"value": value, "low": value - 0.1, "high": value + 0.1, **found}

    rows = {name: [] for name in COLUMNS}
    for domain in (None, "medical", "defect"):
        for encoder in config["encoders"]:
            where = {"domain": domain, "encoder": encoder, "mask_ratio": config.mask_ratio(encoder)}
            for phase in ("before", "after"):
                for quantity, about in QUANTITIES.items():
                    if encoder == "scratch" and quantity == "mask_token_distance":
                        continue
                    first = about.family in ("attention", "attribution")
                    rows["inside"] += [
                        {**where, "phase": phase, "quantity": quantity, "unit": about.unit, "layer": layer, **bounds()}
                        for layer in range(int(first), 4)
                    ]
            for removal in ("zero", "mean", "token_drop"):
                for quantity in CURVES:
                    rows["missingness"] += [
                        {**where, "removal": removal, "quantity": quantity, "fraction": fraction, **bounds()}
                        for fraction in (0.0, 0.5, 0.9, None)
                    ]
        names = list(config["encoders"])
        for a, one in enumerate(names):
            for other in names[a:]:
                for phase in ("before", "after"):
                    rows["cka"] += [
                        {"domain": domain, "encoder_a": one, "phase_a": phase, "layer_a": i, "encoder_b": other,
                         "phase_b": phase, "layer_b": j, **bounds()}
                        for i in range(4) for j in range(4)
                    ]  # fmt: skip
    rows["inside"].append(
        {"domain": "defect", "encoder": "scratch", "phase": "after", "quantity": "mask_token_distance", "n": 0,
         "status": "skipped", "reason": "no <mask> token"}
    )  # fmt: skip
    return {name: pd.DataFrame(rows[name], columns=columns) for name, columns in COLUMNS.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    config = configuration(tmp_path_factory.mktemp("report"))
    return Source(config, Layout(config.results), planted(config))


def names(source):
    return [picture.name for kind in (layers, missingness, similarity) for picture in kind.pictures(source)]


def test_there_is_a_figure_for_all_domains_and_for_each(source):
    kinds = ("inside_attention", "inside_features", "missingness", "cka")
    assert names(source) == [f"{kind}{suffix}" for kind in kinds for suffix in ("", "_medical", "_defect")]


def test_nothing_is_drawn_of_empty_tables(source):
    empty = {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
    assert names(Source(source.config, source.layout, empty)) == []


def picture(source, kind, name):
    return next(one for one in kind.pictures(source) if one.name == name)


@pytest.mark.parametrize(
    ("kind", "name"), [(layers, "inside_features"), (missingness, "missingness"), (similarity, "cka")]
)
def test_figures_fit_a_page_and_are_the_same_bytes_each_time(source, kind, name, tmp_path):
    with style.styled():
        one = picture(source, kind, name).draw()
        assert one.get_size_inches()[0] <= style.PAGE + 1e-6
        paths = style.save(one, tmp_path / "one")
        again = style.save(picture(source, kind, name).draw(), tmp_path / "two")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]


def test_every_encoder_has_a_line_of_its_values_in_every_panel(source):
    with style.styled():
        figure = picture(source, layers, "inside_attention_medical").draw()
    table = source.tables["inside"]
    panel = figure.axes[len(layers.SHOWN["inside_attention"][1])]  # the first of the lower row
    own = table[
        (table["domain"] == "medical") & (table["phase"] == "after") & (table["quantity"] == "attention_distance")
    ]
    drawn = {tuple(line.get_ydata()) for line in panel.lines}
    assert drawn == {tuple(own.loc[own["encoder"] == encoder, "value"]) for encoder in ENCODERS}


def test_many_encoders_get_several_figures_of_missingness(tmp_path):
    config = configuration(tmp_path, {**{f"s{i}": 0.1 + 0.05 * i for i in range(7)}, "scratch": None})
    made = Source(config, Layout(config.results), planted(config))
    found = [one.name for one in missingness.pictures(made)]
    assert found[:2] == ["missingness.1", "missingness.2"]
    with style.styled():
        assert picture(made, similarity, "cka").draw().get_size_inches()[0] <= style.PAGE + 1e-6


def test_the_matrix_between_encoders_is_symmetric_and_of_the_last_layers(source):
    rows = source.tables["cka"]
    rows = rows[(rows["domain"] == "medical") & (rows["phase_a"] == "after")]
    matrix = similarity.between(rows, list(ENCODERS))
    last = rows[(rows["layer_a"] == 3) & (rows["layer_b"] == 3)].set_index(["encoder_a", "encoder_b"])["value"]
    assert matrix[0, 2] == matrix[2, 0] == last["simmim_30", "scratch"]


def rendered(section):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from unmask.page import build
    from unmask.page.embed import number

    environment = Environment(
        loader=FileSystemLoader(build.Path(build.__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(number=number, words=lambda name: str(name).replace("_", " "))
    text = '{% import "index.macros.html" as parts %}{% include "index.inside.html" %}'
    return environment.from_string(text).render(inside=section, confidence=0.95, pictures={"inside": {}})


@pytest.fixture(scope="module")
def section(source):
    for name in ("inside", "missingness"):
        write_table(source.layout.leaderboards / f"{name}.csv", source.tables[name])
    row = {"hypothesis": "H4", "statement": "more frequencies", "measure": "amplitude", "estimate": 0.3, "low": 0.1,
           "high": 0.5, "verdict": "supported", "reason": None}  # fmt: skip
    other = {**row, "hypothesis": "H12"}
    return inside.inside(source.config, source.layout, pd.DataFrame([row, other]))


def test_the_section_answers_the_hypotheses_that_the_stage_measures(section):
    assert [row["hypothesis"] for row in section["answers"]] == ["H4"]
    page = rendered(section)
    assert "more frequencies" in page
    assert "no &lt;mask&gt; token" in page, "a reason is escaped"


def test_the_section_lists_removals_by_how_much_they_are_tolerated(section):
    own = [row for row in section["removals"] if row["encoder"] == "simmim_60"]
    values = [row["unchanged_prediction"]["value"] for row in own]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)
    assert "token drop" in rendered(section)


def test_a_run_without_the_stage_has_no_section(tmp_path):
    config = configuration(tmp_path)
    layout = Layout(config.results)
    assert inside.inside(config, layout, None) is None
    for name, columns in COLUMNS.items():
        write_table(layout.leaderboards / f"{name}.csv", pd.DataFrame(columns=columns))
    assert inside.inside(config, layout, None) is None
    assert rendered(None).strip() == ""
