"""Pipelines from TOML: frozen where they can be, honest where they cannot; ComBat; batch-mixing scorecard."""

import tomllib

import numpy as np
import pandas as pd
import pytest

from profiling.combat import combat, combat_profiles
from profiling.mixing import (
    ScorecardConfig,
    graph_connectivity,
    kbet_acceptance,
    lisi,
    neighbours,
    scorecard,
    silhouette_batch,
)
from profiling.normalise import fit, transform
from profiling.profiles import InvalidProfiles, Profiles
from profiling.steps import FITTED, TRANSDUCTIVE, read_steps, run_steps

TOML = """
[[step]]
name = "mad_robustise"
by = ["Plate"]

[[step]]
name = "select"
fit_on = "all"
correlation = 0.95

[[step]]
name = "sphering"
"""


def screen(seed=0, n=240, k=8, batches=3):
    rng = np.random.default_rng(seed)
    plate = np.arange(n) % batches
    kind = rng.integers(0, 4, n)
    values = 2.0 * rng.normal(size=(4, k))[kind] + rng.normal(size=(n, k)) * (1 + 0.5 * plate[:, None])
    values += 3.0 * rng.normal(size=(batches, k))[plate]
    meta = pd.DataFrame({"Metadata_Plate": [f"p{i}" for i in plate], "Metadata_Well": [f"A{i % 6}" for i in range(n)]})
    meta["Metadata_Count_Cells"] = rng.poisson(60, n)
    meta["Metadata_Kind"] = kind
    return Profiles(meta, values, tuple(f"Cells_f{i}" for i in range(k))), kind == 0


def test_a_pipeline_is_fitted_on_controls_and_frozen(tmp_path):
    (tmp_path / "p.toml").write_text(TOML)
    steps = read_steps(tmp_path / "p.toml")
    p, control = screen()
    made = run_steps(p, steps, control)
    assert made.log["step"].tolist() == ["mad_robustise", "select", "sphering"]
    assert made.log["fitted_on"].tolist() == [control.sum(), 240, control.sum()]
    assert not made.transductive
    np.testing.assert_allclose(made.transform(p.rows([3])).values[0], made.profiles.values[3], atol=1e-9)
    np.testing.assert_allclose(np.cov(made.profiles.values[control], rowvar=False), np.eye(8), atol=1e-4)
    first = transform(p, fit(p, control, by=["Plate"]))
    np.testing.assert_array_equal(run_steps(p, steps[:1], control).profiles.values, first.values)


OPTIONS = {
    "harmony": {"by": ["Plate"], "clusters": 4, "rounds": 2},
    "combat": {"batch": "Plate"},
    "mnn": {"batch": "Plate", "components": 5},
    "scanorama": {"batch": "Plate"},
}


# a result made elsewhere needs a file: tests/test_profiling_mnn.py
@pytest.mark.parametrize("name", sorted(FITTED) + sorted(set(TRANSDUCTIVE) - {"external"}))
def test_every_step_runs_and_says_whether_it_is_transductive(name):
    p, control = screen(1)
    made = run_steps(p, [{"name": name, "fit_on": "all", **OPTIONS.get(name, {})}], control)
    assert np.isfinite(made.profiles.values).all()
    assert made.transductive == (name in TRANSDUCTIVE)
    if made.transductive:
        with pytest.raises(InvalidProfiles, match="are transductive"):
            made.transform(p)
    else:
        np.testing.assert_allclose(made.transform(p).values, made.profiles.values, atol=1e-12)


def test_rows_are_excluded_and_aggregated_with_counts_and_reasons():
    p, control = screen(6)
    p.values[3] = np.nan
    p.meta.loc[5, "Metadata_Count_Cells"] = 0
    steps = [
        {"name": "exclude", "cells": 1},
        {"name": "mad_robustise", "by": ["Plate"]},
        {"name": "aggregate", "by": ["Plate", "Kind"]},
    ]
    made = run_steps(p, steps, control)
    assert made.log["rows_in"].tolist() == [240, 238, 238]
    assert made.log["rows"].tolist() == [238, 238, 12]
    assert made.excluded["Metadata_Excluded_By"].tolist() == ["not measured", "too few cells"]
    assert set(made.excluded["Metadata_Excluded_In"]) == {"step 1"}
    assert made.controls.tolist() == [kind == 0 for kind in made.profiles.meta["Metadata_Kind"]]
    assert made.profiles.meta["Metadata_Rows_In"].sum() == 238
    assert not [c for c in made.profiles.meta.columns if "__" in c]
    group = (p.meta["Metadata_Plate"] == "p1") & (p.meta["Metadata_Kind"] == 2)
    keep = np.isfinite(p.values).all(axis=1) & (p.meta["Metadata_Count_Cells"] > 0)
    whole = transform(p.rows(keep.to_numpy()), fit(p.rows(keep.to_numpy()), control[keep], by=["Plate"]))
    want = whole.values[group[keep].to_numpy()].mean(axis=0)
    at = (made.profiles.meta["Metadata_Plate"] == "p1") & (made.profiles.meta["Metadata_Kind"] == 2)
    np.testing.assert_allclose(made.profiles.values[at.to_numpy()][0], want)
    with pytest.raises(InvalidProfiles, match="mixes controls"):
        run_steps(p, [{"name": "aggregate", "by": ["Plate"]}], control)


def test_pipeline_refusals(tmp_path):
    p, control = screen(2)
    with pytest.raises(InvalidProfiles, match=r"step 1 \(sphere\): name must be one of"):
        run_steps(p, [{"name": "sphere"}], control)
    with pytest.raises(InvalidProfiles, match=r"step 1 \(pca\)"):
        run_steps(p, [{"name": "pca", "components": 3}], control)
    with pytest.raises(InvalidProfiles, match="fit_on must be"):
        run_steps(p, [{"name": "pca", "fit_on": "dmso"}], control)
    (tmp_path / "p.toml").write_text("steps = []")
    with pytest.raises(InvalidProfiles, match="tables only"):
        read_steps(tmp_path / "p.toml")


def combat_data():
    rng = np.random.default_rng(12)
    v = rng.normal(size=(14, 5)) * [1, 2, 3, 1, 0.5] + np.repeat([0, 1.5, -1], [5, 5, 4])[:, None]
    t = np.arange(14) % 2
    return v + 0.8 * t[:, None], np.repeat(["x", "y", "z"], [5, 5, 4]), t[:, None].astype(np.float64)


# Rows 0, 7 and 13 as given by neuroCombat 0.2.12 for `combat_data`, without and with the covariate
GOLDEN = {
    False: [
        [0.30724565, 2.0955856, 2.3922837, 0.91483793, 0.98826459],
        [0.79430018, 2.19548319, 0.03917258, 1.18621928, 2.06895857],
        [0.25062746, 1.17343329, 0.57379008, -0.19448985, 0.19108047],
    ],
    True: [
        [0.19808015, 1.68734499, 2.20708188, 0.74046329, 0.88234424],
        [0.74821985, 2.51223402, 0.18348047, 1.31208008, 2.15752322],
        [0.34386924, 1.20156085, 0.39498555, -0.00274139, 0.35430293],
    ],
}


@pytest.mark.parametrize("covariate", [False, True])
def test_combat_equals_neurocombat(covariate):
    v, batch, t = combat_data()
    got = combat(v, batch, t if covariate else None)
    np.testing.assert_allclose(got[[0, 7, 13]], GOLDEN[covariate], atol=2e-6)  # both iterate to 1e-4


def test_combat_removes_location_and_scale_and_keeps_what_is_to_be_kept():
    p, _ = screen(3, n=600)
    done = combat_profiles(p, "Plate", keep=["Kind"]).values
    plate, kind = p.column("Plate"), p.column("Kind")
    rest = done - np.stack([done[kind == j].mean(axis=0) for j in range(4)])[kind]
    sd = np.stack([rest[plate == b].std(axis=0) for b in ("p0", "p1", "p2")])
    assert sd.max() / sd.min() < 1.35
    means = np.stack([rest[plate == b].mean(axis=0) for b in ("p0", "p1", "p2")])
    assert np.abs(means).max() < 0.25
    p.values[:, 2] = 7.0
    np.testing.assert_array_equal(combat(p.values, plate)[:, 2], 7.0)
    with pytest.raises(InvalidProfiles, match="two rows or more"):
        combat(p.values, ["a"] + ["b"] * 599)
    with pytest.raises(InvalidProfiles, match="determined by the batches"):
        combat(p.values, plate, (plate == "p0").astype(np.float64)[:, None])


def test_scorecard_separates_mixed_from_unmixed():
    rng = np.random.default_rng(4)
    label, batch = np.arange(300) % 3, rng.integers(0, 2, 300)
    mixed = 6.0 * np.eye(3)[label] + rng.normal(size=(300, 3))
    apart = mixed + 5.0 * batch[:, None] * np.array([1.0, 1.0, 1.0])
    few = ScorecardConfig(permutations=9, resamples=2)
    good = scorecard(mixed, batch, label, np.random.default_rng(0), few).set_index("metric")
    bad = scorecard(apart, batch, label, np.random.default_rng(0), few).set_index("metric")
    for metric in ("kbet", "lisi_batch", "silhouette_batch"):
        assert good.loc[metric, "value"] > bad.loc[metric, "value"] + 0.1
        assert abs(good.loc[metric, "value"] - good.loc[metric, "chance"]) < 0.1
    for metric in ("graph_connectivity", "lisi_label", "silhouette_label", "kmeans_ari", "leiden_nmi"):
        assert good.loc[metric, "value"] > good.loc[metric, "chance"] + 0.1
    assert good.loc["kmeans_ari", "value"] > 0.95
    with pytest.raises(InvalidProfiles, match="batch has one value"):
        scorecard(mixed, ["a"] * 300, label, rng)


def test_scorecard_numbers_by_hand():
    x = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.5]])
    near, distance = neighbours(x, 2)
    np.testing.assert_array_equal(np.sort(near, axis=1), [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    np.testing.assert_allclose(distance[0], [1, 2])
    assert graph_connectivity(near, np.array([0, 0, 0, 0, 1, 1])) == pytest.approx((0.75 + 1) / 2)
    word = np.array([0, 0, 1, 1, 0, 1])
    flat = lisi(near, np.ones((6, 2)), word)
    np.testing.assert_allclose(flat, [2, 2, 1, 2, 1, 2])  # equal weights on the two neighbours
    assert kbet_acceptance(near, word) == 1.0  # two neighbours reject nothing
    many = np.tile(np.arange(20), (40, 1))
    batch = np.repeat([0, 1], 20)
    assert kbet_acceptance(many, batch) == 0.0  # all neighbours of one batch
    assert np.isnan(silhouette_batch(x, np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1])))


def test_shipped_pipelines_name_known_steps(repository):
    files = sorted((repository / "configs" / "profiling").glob("*.toml"))
    pipelines = [f for f in files if "step" in tomllib.loads(f.read_text())]
    assert len(pipelines) >= 4
    p, control = screen(5)
    p = Profiles(p.meta.assign(Metadata_Time="4h", Metadata_Batch=p.meta["Metadata_Plate"]), p.values, p.names)
    p.meta.loc[np.arange(len(p)) % 2 == 0, "Metadata_Time"] = "8h"
    p.meta["Metadata_Replicate"], p.meta["Metadata_Site"] = np.arange(len(p)) // 80, np.arange(len(p)) % 4
    for file in pipelines:
        steps = [{k: min(v, 4) if k in ("clusters", "rounds") else v for k, v in s.items()} for s in read_steps(file)]
        assert len(run_steps(p, steps, control).log) == len(steps)
