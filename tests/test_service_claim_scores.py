"""Scores of the claim on answers whose errors are known, and estimators on wells whose effects are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal.phenotype import DMSO
from profiling.profiles import Profiles
from service.claim.config import ClaimConfig
from service.claim.estimate import (
    CLIP,
    Answer,
    differences,
    draws_answer,
    ensemble_answer,
    fit_space,
    tabular_answers,
)
from service.claim.score import Truth, effect_row, mechanism_rows, score_all, verdict

CONFIG = ClaimConfig(
    moas=("A", "B"),
    seen=6,
    unseen=2,
    references=3,
    folds=2,
    refits=3,
    resamples=200,
    tabular_covariates=("batch",),
    tabular_interactions=(),
)
RNG = np.random.default_rng(5)


def answer(method: str, value: np.ndarray, half: float = 1.0, defined: np.ndarray | None = None) -> Answer:
    there = np.ones(len(value), bool) if defined is None else defined
    return Answer(method, value, value - half, value + half, value[None], there)


def test_numbers_of_known_errors() -> None:
    true = RNG.standard_normal((20, 4)) * 3.0
    held = true + 2.0
    error = np.tile([1.0, -1.0, 0.0, 0.0], (20, 1))
    row = effect_row(answer("m", true + error, half=0.5), Truth(true, held), np.ones(20, bool), CONFIG)
    assert row["bias"] == pytest.approx(0.0)
    assert row["bias_of_features"] == pytest.approx(np.sqrt(0.5))
    assert row["rmse"] == row["rmse_low"] == row["rmse_high"] == pytest.approx(np.sqrt(0.5))
    assert row["rmse_held_out"] == pytest.approx(np.sqrt(((error - 2.0) ** 2).mean()))
    assert row["relative"] == pytest.approx(np.sqrt(0.5) / np.sqrt(true.var(0).mean()))
    assert row["coverage"] == pytest.approx(0.5)
    assert row["width"] == pytest.approx(1.0)


def test_what_is_not_defined_is_none_and_what_is_not_estimable_is_counted() -> None:
    true = RNG.standard_normal((6, 3))
    value = true.copy()
    value[2] = np.nan
    defined = np.array([True] * 4 + [False] * 2)
    value[~defined] = np.nan
    one, truth = answer("m", value, defined=defined), Truth(true, true)
    row = effect_row(one, truth, np.arange(6) < 4, CONFIG)
    assert (row["compounds"], row["not_estimable"], row["rmse"]) == (3, 1, 0.0)
    assert set(effect_row(one, truth, np.arange(6) >= 4, CONFIG).values()) == {None}


def test_a_verdict_needs_the_interval_on_one_side() -> None:
    true = RNG.standard_normal((40, 30))
    good = answer("good", true + 0.3 * RNG.standard_normal(true.shape))
    bad = answer("bad", true + 0.6 * RNG.standard_normal(true.shape))
    twin = answer("twin", true + 0.3 * RNG.standard_normal(true.shape))
    everyone = np.ones(40, bool)
    assert verdict(good, bad, true, everyone, CONFIG)["says"] == "beats"
    assert verdict(bad, good, true, everyone, CONFIG)["says"] == "loses to"
    assert verdict(good, twin, true, everyone, CONFIG)["says"] == "is not told apart from"
    difference = verdict(good, bad, true, everyone, CONFIG)
    assert difference["low"] < difference["difference"] < difference["high"] < 0.0
    none = answer("none", np.full_like(true, np.nan), defined=np.zeros(40, bool))
    assert verdict(good, none, true, everyone, CONFIG)["says"] == "is not defined beside"


def test_seeds_that_disagree_widen_interval_and_verdict() -> None:
    draws, compounds = 6, ["K0", "K1", "K2", "K3"]
    design = pd.DataFrame(
        [{"compound": t, "draw": d, "scheme": "iid", "group": 0} for d in range(draws) for t in (DMSO, *compounds)]
    )
    context = RNG.standard_normal((draws, 3))[design["draw"]]
    effect = {DMSO: np.zeros(3)} | {t: RNG.standard_normal(3) for t in compounds}
    values = context + np.stack([effect[t] for t in design["compound"]])
    shift = np.where((design["compound"] != DMSO).to_numpy(), 1.0, 0.0)[:, None]
    exact = draws_answer("oracle", values, design, compounds)
    assert np.allclose(exact.value, np.stack([effect[t] for t in compounds]))
    same = ensemble_answer("m", [values, values], design, compounds)
    apart = ensemble_answer("m", [values + shift, values - shift], design, compounds)
    assert np.allclose(same.value, exact.value)
    assert np.allclose(apart.value, exact.value)
    # two seeds at ±1: standard deviation sqrt(2), 4 x 1 degrees of freedom, t quantile 2.776
    assert np.allclose((apart.high - apart.low) / 2, 2.7764 * np.sqrt(2.0), rtol=1e-3)
    assert np.allclose(same.high - same.low, 0.0, atol=1e-9)
    assert np.allclose(apart.members[0] - apart.members[1], 2.0)


def wells(confounded: bool) -> tuple[np.ndarray, pd.DataFrame, dict[str, np.ndarray], list[str]]:
    """Wells of two compounds and controls in four batches with shifts; one compound mostly keeps to one batch."""
    rng = np.random.default_rng(1)
    effect = {DMSO: np.zeros(12), "K0": rng.standard_normal(12), "K1": rng.standard_normal(12)}
    shift = 3.0 * rng.standard_normal((4, 12))
    parts = []
    for name in effect:
        batch = rng.integers(0, 4, 200)
        if confounded and name == "K0":
            batch = np.where(rng.random(200) < 0.9, 0, batch)
        parts.append(pd.DataFrame({"compound": name, "batch": [f"B{b}" for b in batch]}))
    table = pd.concat(parts, ignore_index=True)
    at = table["batch"].str[1:].astype(int).to_numpy()
    z = np.stack([effect[t] for t in table["compound"]]) + shift[at] + 0.5 * rng.standard_normal((len(table), 12))
    return z, table, effect, ["K0", "K1", "unseen"]


def test_estimators_that_know_the_batch_find_the_effect_and_naive_does_not() -> None:
    z, table, effect, compounds = wells(confounded=True)
    z[5] = np.nan  # a field without cells
    draws = pd.DataFrame({"draw": range(4), "batch": [f"B{i}" for i in range(4)], "scheme": "iid", "group": 0})
    found = {one.method: one for one in tabular_answers(z, table, compounds, draws, CONFIG)}
    error = {name: float(np.abs(one.value[0] - effect["K0"]).max()) for name, one in found.items()}
    assert error["naive"] > 1.0
    # standard error of a difference within batches: 0.5 sqrt(1/200 + 1/50), about 0.08; eight batches' worth of room
    assert max(error["regression"], error["tabular g-formula"], error["AIPW"]) < 0.4
    assert found["tabular g-formula"].low[0].min() < found["tabular g-formula"].value[0].min()
    for one in found.values():
        assert one.defined.tolist() == [True, True, False]
        assert np.isnan(one.value[2]).all()
        assert np.isfinite(one.low[:2]).all()


def test_without_confounding_naive_is_right_too() -> None:
    z, table, effect, compounds = wells(confounded=False)
    assert np.abs(differences(z, table, compounds)[1] - effect["K1"]).max() < 1.0
    assert np.isnan(differences(z, table, compounds)[2]).all()


def test_mechanisms_are_found_from_seen_references_only() -> None:
    table = pd.DataFrame(
        {"compound": [f"K{i}" for i in range(16)], "moa": ["A", "B"] * 8, "seen": [True] * 12 + [False] * 4}
    )
    direction = np.stack([RNG.standard_normal(40) for _ in range(2)])
    value = direction[[0, 1] * 8] + 0.05 * RNG.standard_normal((16, 40))
    found = mechanism_rows(answer("m", value), table, CONFIG)
    assert found["seen"]["queries"] == 6
    assert found["unseen"]["queries"] == 4
    for name in ("seen", "unseen"):
        assert found[name]["roc_auc"] == pytest.approx(1.0)
        assert found[name]["map_per_sample"] == pytest.approx(1.0)
        assert found[name]["map_per_sample_chance"] == pytest.approx(0.75, abs=0.1)  # of two labels: 1 or 1/2
    swapped = value.copy()
    swapped[12:] = value[[13, 12, 15, 14]]  # unseen compounds look like the other mechanism
    assert mechanism_rows(answer("m", swapped), table, CONFIG)["unseen"]["roc_auc"] == pytest.approx(0.0)
    defined = table["seen"].to_numpy()
    blind = mechanism_rows(answer("m", np.where(defined[:, None], value, np.nan), defined=defined), table, CONFIG)
    assert set(blind["unseen"].values()) == {None}
    assert blind["seen"]["roc_auc"] == pytest.approx(1.0)


def test_a_table_holds_a_row_for_everything() -> None:
    table = pd.DataFrame({"compound": list("abcdefgh"), "moa": ["A", "B"] * 4, "seen": [True] * 6 + [False] * 2})
    value = RNG.standard_normal((8, 20))
    config = ClaimConfig(moas=("A", "B"), references=2, folds=2, resamples=20)
    scores = score_all({"jump-like": [answer("m", value)]}, Truth(value, value), table, config)
    assert scores[["allocation", "method", "set"]].to_numpy().tolist() == [
        ["jump-like", "m", "seen"],
        ["jump-like", "m", "unseen"],
    ]
    assert scores["rmse"].tolist() == [0.0, 0.0]


def test_the_space_is_that_of_the_controls() -> None:
    n = 60
    values = RNG.standard_normal((n, 4)) * [1.0, 5.0, 1.0, 0.0] + [0.0, 10.0, 0.0, 1.0]
    values[:, 2] = values[:, 0] * 2.0 + 1e-3 * values[:, 2]  # a double
    compound = np.where(np.arange(n) < 40, DMSO, "K0")
    values[40:, 1] += 1e6
    true = Profiles(pd.DataFrame({"Metadata_compound": compound}), values, ("a", "b", "double", "flat"))
    space = fit_space(true, 0.9)
    assert "flat" not in space.names
    assert len({"a", "double"} & set(space.names)) == 1
    z = space.values(true)
    at = space.names.index("b")
    assert np.median(z[:40, at]) == pytest.approx(0.0, abs=1e-9)
    assert np.abs(np.median(np.abs(z[:40, at])) * 1.4826 - 1.0) < 1e-6
    assert (z[40:, at] == CLIP).all()


def test_paths_of_a_configuration_may_be_folders(tmp_path: Path) -> None:
    from service.claim.config import model_folder
    from service.errors import MissingModel

    (tmp_path / "mine").mkdir()
    assert model_folder("mine", tmp_path) == (tmp_path / "mine").resolve()
    assert model_folder("simulation-128", tmp_path).name == "simulation-128"
    with pytest.raises(MissingModel, match="neither a folder"):
        model_folder("nobody's", tmp_path)
