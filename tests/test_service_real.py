"""Studies on published tables: the parts by hand, the page, and the published numbers where the data are there."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from service import benchmark_real
from service.errors import InvalidRequest, UnknownName
from service.real import bbbc021, hub
from service.real.chart import Cloud, clouds, score_chart
from service.real.study import Study, corrected, write

SCORES = pd.DataFrame(
    {
        "method": ["plain & <bare>", "other"],
        "metric": ["mAP", "mAP"],
        "value": [0.5, 0.25],
        "chance": [0.1, 0.1],
        "null": [0.2, 0.1],
        "low": [0.4, np.nan],
        "high": [0.6, np.nan],
        "p": [0.01, np.nan],
        "n_groups": [7, 7],
        "n_queries": [14, 14],
        "features": [3, 0],
        "fitted": ["transductive", ""],
    }
)


def test_page_is_whole_and_escapes_what_it_is_given(tmp_path):
    figures = {"a < b": score_chart(SCORES)}
    study = Study("one", "Title & more", ("Text <b>",), SCORES, {"Table": pd.DataFrame({"x": [1.23456, 2]})}, figures)
    page = write([study], tmp_path, {"version": "0"}).read_text(encoding="utf-8")
    assert "Title &amp; more" in page
    assert "<b>0.500</b>" in page
    assert "0.400 to 0.600" in page
    assert "shuffled 0.200, p 0.01" in page
    assert "Text &lt;b&gt;" in page
    assert "plain &amp; &lt;bare&gt;" in page
    assert "1.235" in page
    for outside in ("http://", "https://", "<script", "src="):
        assert outside not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    made = json.loads((tmp_path / "real.json").read_text(encoding="utf-8"))
    assert made["studies"]["one"]["scores"][0]["value"] == 0.5
    assert "p" not in made["studies"]["one"]["scores"][1]
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html",
        "real.json",
        "one_scores.csv",
        "one_table_1.csv",
    }


def test_chart_places_values_on_one_scale():
    svg = score_chart(SCORES)
    dots = [float(part.split('"')[1]) for part in svg.split("<circle")[1:] for part in [part.split("cx=")[1]]]
    ticks = [float(p.split('x1="')[1].split('"')[0]) for p in svg.split("<line")[1:] if "#8b949e" in p]
    zero = ticks[0] - (dots[0] - ticks[0]) * 0.1 / 0.4
    assert dots[1] - zero == pytest.approx((dots[0] - zero) / 2, abs=0.2)
    cloud = clouds({"one": Cloud(np.array([[0.0, 0.0], [1.0, 2.0]]), ["lab 1", "lab 10"])})
    assert cloud.count("<circle") == 4


def test_nearest_neighbours_by_hand():
    # c1 and c2 are of one mechanism and close; c3 is alone in its mechanism; c4 is of the first one, in another batch
    similar = np.array([[1, 0.9, 0.8, 0.1], [0.9, 1, 0.2, 0.3], [0.8, 0.2, 1, 0.5], [0.1, 0.3, 0.5, 1]], dtype=float)
    labels = np.array(["m", "m", "x", "m"], dtype=object)
    compound = np.array(["c1", "c2", "c3", "c4"], dtype=object)
    batch = np.array(["b1", "b1", "b2", "b2"], dtype=object)
    free, right = bbbc021.nearest(similar, labels, [compound], compound, 0, 9)
    assert right.to_dict() == {0: True, 1: True, 3: False}  # c3 has no partner; the nearest of c4 is c3
    assert free.value == pytest.approx(2 / 3)
    assert free.chance == pytest.approx(2 / 3)
    apart, right = bbbc021.nearest(similar, labels, [compound, batch], compound, 0, 9)
    assert right.to_dict() == {0: False, 1: True, 3: True}  # c1 now finds c3; c2 and c4 find each other
    assert apart.chance == pytest.approx((0.5 + 0.5 + 1) / 3)


def pairs():
    rows = [
        ("J1", "AAAAAAAAAAAAAA-A", "one", "m1", "t1|t2", True, True),
        ("J2", "BBBBBBBBBBBBBB-A", "two", "m1|m2", "t1", False, True),
        ("J3", "CCCCCCCCCCCCCC-A", "three", "m1", None, False, False),
        ("J4", "DDDDDDDDDDDDDD-A", "four", None, "t3", True, True),
        ("J1", "AAAAAAAAAAAAAA-A", "uno", "m1", "t3", False, True),
    ]
    columns = ["Metadata_JCP2022", "InChIKey", "pert_iname", "moa", "target", "full", "standardised"]
    return pd.DataFrame(rows, columns=columns)


def test_annotation_rules_by_hand(monkeypatch):
    monkeypatch.setattr(hub, "LEAST", 2)
    assert hub.labels(pairs(), "target")["J1"] == {"t1", "t2", "t3"}
    assert len(hub.matched(pairs(), "full InChIKey")) == 2
    assert len(hub.matched(pairs(), "standardised InChIKey")) == 4
    either = hub.counted(pairs(), hub.Rules(both=False, single=True))
    assert (either["with a mechanism"], either["with a target"], either["with both"]) == (3, 3, 2)
    assert (either["with a single mechanism"], either["moa_compounds"], either["moas"]) == (2, 2, 1)
    assert (either["of these, with a target"], either["their targets"]) == (1, 3)
    both = hub.counted(pairs(), hub.Rules(both=True, single=False))
    assert (both["moa_compounds"], both["moas"]) == (2, 1)
    assert (both["target_compounds"], both["targets"]) == (2, 1)


def test_a_correction_that_cannot_be_made_says_why():
    rng = np.random.default_rng(0)
    meta = pd.DataFrame({"Metadata_Plate": ["p"] * 9})
    table = bbbc021.Profiles(meta, rng.normal(size=(9, 3)), ("a", "b", "c"))
    none, why = corrected(table, [{"name": "harmony", "by": ["Plate"]}], np.ones(9, dtype=bool))
    assert none is None
    assert "one value only" in why
    done, how = corrected(table, [{"name": "rank_normal_all"}], np.ones(9, dtype=bool))
    assert done is not None
    assert how == "transductive"


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(UnknownName, match="nothing"):
        benchmark_real.run(tmp_path, tmp_path, ("nothing",))
    with pytest.raises(InvalidRequest, match="permutations is 0"):
        benchmark_real.run(tmp_path, tmp_path, permutations=0)
    monkeypatch.delenv("DOPAINT_DATA", raising=False)
    with pytest.raises(InvalidRequest, match="give --data"):
        benchmark_real.run(tmp_path)
    with pytest.raises(InvalidRequest, match="hub needs jump_x_repurposing_hub"):
        benchmark_real.run(tmp_path, tmp_path, ("hub",))


def test_the_command_refuses_in_one_line(tmp_path):
    from service.cli import app

    result = CliRunner().invoke(app, ["benchmark", "real", "--out", str(tmp_path), "--data", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "no folder of published tables" in result.output


def test_bbbc021_published_table_gives_94_of_103_and_92_remain(real_data: Path):
    made = bbbc021.score("published", bbbc021.treatments(bbbc021.read_published(real_data / "bbbc021")), 9)
    by_metric = {one["metric"]: one for one in made}
    free, apart = by_metric[bbbc021.NSC], by_metric[bbbc021.NSCB]
    assert (round(free["value"] * free["n_queries"]), free["n_queries"]) == (94, 103)
    assert (round(apart["value"] * apart["n_queries"]), apart["n_queries"]) == (68, 92)
    raw = bbbc021.read_raw(real_data / "bbbc021")
    assert raw.values.shape == (632, 516)
    assert len(bbbc021.treatments(raw)) == 103


def test_hub_counts_of_the_development_data(real_data: Path):
    """Numbers counted once with this code; the totals of the keys are those of the data's own README."""
    found = hub.read(real_data)
    assert found["Metadata_JCP2022"].nunique() == 4233
    assert hub.matched(found, "full InChIKey")["Metadata_JCP2022"].nunique() == 2107
    strict = hub.counted(hub.matched(found, "full InChIKey"), hub.Rules(True, True))
    assert (strict["moa_compounds"], strict["moas"]) == (430, 26)
    loose = hub.counted(found, hub.Rules(True, True))
    assert (loose["moa_compounds"], loose["moas"]) == (1104, 55)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpjump1", "cpg0016"])
def test_studies_of_jump_run_and_signal_is_beyond_chance(real_data: Path, tmp_path, name, monkeypatch):
    from importlib import import_module

    module = import_module(f"service.real.{name}")
    first = next(iter(module.CORRECTIONS))
    monkeypatch.setattr(module, "CORRECTIONS", {first: module.CORRECTIONS[first]})
    done = module.study(real_data, 19)
    own = done.scores[done.scores["method"] == first].set_index("metric")
    best = own.iloc[0]
    assert best["value"] > 2 * best["chance"]
    assert best["p"] == pytest.approx(1 / 20)
    assert write([done], tmp_path, {}).exists()
