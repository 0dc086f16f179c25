"""Worlds with closed-form truth, and the g-formula on them, exact and fitted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.design import cross, draw_contexts
from causal.gformula import g_formula, with_estimation
from causal.mechanism import TabularMechanism, resample_wells
from causal.regression import NotEstimable, UnknownLevel
from causal.tabular import (
    COMPOUND,
    CONTROL,
    PLACEBO,
    TabularWorlds,
    WorldSettings,
    edge_of,
    linear_gaussian,
    normal,
    strata_table,
    uniform,
)


def test_strata_give_0575_and_0415():
    values, table = strata_table()
    assert len(table) == 200
    mechanism = TabularMechanism.fit(values, table, "DMSO", ["stratum"], ["stratum"])
    draws = table[["stratum"]].assign(draw=np.arange(200))  # p*(C) = the strata of the 200
    means = g_formula(mechanism, lambda v: v, ["A", "DMSO"], draws, None, ["y"])
    assert means.value[0, 0] == pytest.approx(0.575, abs=1e-12)
    assert means.value[1, 0] == pytest.approx(0.415, abs=1e-12)
    effect = g_formula(mechanism, lambda v: v, ["A"], draws, "DMSO", ["y"])
    assert effect.value[1, 0] == pytest.approx(0.16, abs=1e-12)
    # the crude difference answers another question: 43/75 - 52/125
    crude = values[table["compound"] == "A"].mean() - values[table["compound"] == "DMSO"].mean()
    assert crude == pytest.approx(43 / 75 - 52 / 125, abs=1e-12)
    # delta method by hand: the strata shares times the binomial variance of each cell (HC2: over n - 1)
    error = mechanism.with_error(effect, draws).estimation_se[1, 0]
    cells = [(0.625, 28, 50), (0.625, 30, 75), (0.375, 15, 25), (0.375, 22, 50)]
    by_hand = sum(w**2 * (y / n) * (1 - y / n) / (n - 1) for w, y, n in cells)
    assert error == pytest.approx(np.sqrt(by_hand), rel=1e-10)


def test_linear_gaussian_world_fitted_from_confounded_data():
    sample = linear_gaussian(0.8, -3.0, 2.0).sample(20_000, seed=3)
    table = pd.DataFrame({"compound": np.where(sample["t"] > 0, "A", "DMSO"), "c": sample["c"], "t": sample["t"]})
    x = np.column_stack([np.ones(20_000), sample["t"], sample["c"]])
    slope = np.linalg.lstsq(x, sample["y"].to_numpy(), rcond=None)[0][1]
    assert slope == pytest.approx(2.0, abs=0.03)  # adjusted
    crude = np.polyfit(table["t"], sample["y"], 1)[0]
    assert crude == pytest.approx(2.0 - 3.0 * 0.8 / 1.64, abs=0.06)


def test_truth_by_formula_is_truth_by_brute_force():
    worlds = TabularWorlds.make(3, seed=0)
    for distribution in ("valid", "uniform", "stratified"):
        draws = draw_contexts(worlds.contexts, 40_000, "iid", distribution, seed=1)
        for w in range(3):
            world = np.full(40_000, w)
            one = worlds.outcome(world, np.ones(40_000, bool), draws)
            zero = worlds.outcome(world, np.zeros(40_000, bool), draws)
            difference = one - zero
            error = difference.std(0) / 200
            assert (np.abs(difference.mean(0) - worlds.truth(distribution)[w]) < 4 * error).all()
    assert (worlds.truth()[:, 1] == 0).all()  # the negative control has no effect


def test_noise_is_a_function_of_seed_and_position():
    seed = np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64)
    u = uniform(seed, 3)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(uniform(seed[::-1], 3)[::-1], u)
    z = np.stack([normal(np.arange(50_000, dtype=np.uint64), p) for p in range(4)])
    np.testing.assert_allclose(np.corrcoef(z), np.eye(4), atol=0.02)  # neighbouring seeds and positions: independent
    assert abs(np.corrcoef(z[0][:-1], z[0][1:])[0, 1]) < 0.02


def test_a_screen_is_confounded_as_the_dial_says():
    worlds = TabularWorlds.make(1, seed=0)
    _, free = worlds.screens(0.0, seed=1, n_treated=600)
    _, jump = worlds.screens(1.0, seed=1)
    batches = {a: t[t["compound"] == COMPOUND]["batch"].nunique() for a, t in (("free", free), ("jump", jump))}
    assert batches == {"free": 12, "jump": 2}
    edges = jump.groupby("compound")["edge"].mean()
    assert edges[COMPOUND] > 1.5 * edges[CONTROL]
    assert (jump.groupby("compound")["batch"].nunique()[[CONTROL, PLACEBO]] == [12, 2]).all()


def test_edges_of_both_formats():
    rows = pd.DataFrame({"plate_format": [384, 384, 1536, 1536], "row": [0, 8, 31, 16], "column": [5, 12, 9, 24]})
    np.testing.assert_allclose(edge_of(rows), np.exp([0, -3.5, 0, -7.5]))


def test_a_mechanism_fitted_on_a_confounded_table_recovers_the_effect():
    settings = WorldSettings(source_interaction_sd=0.0)
    worlds = TabularWorlds.make(1, seed=4, settings=settings)
    values, table = worlds.screens(0.8, seed=2, n_treated=400, controls_per_plate=40)
    fitted = TabularMechanism.fit(values, table, CONTROL, ["plate", "edge"], ["edge"])
    draws = draw_contexts(worlds.contexts, 64, "sobol", seed=3)
    draws["edge"] = edge_of(draws)
    effects = fitted.with_error(g_formula(fitted, lambda v: v, [COMPOUND, PLACEBO], draws, CONTROL, ["a", "b"]), draws)
    low, high = np.moveaxis(effects.intervals(0.999, "total"), -1, 0)
    truth = worlds.truth()[0]
    i = effects.compounds.index(COMPOUND)
    assert (low[i] <= truth).all()
    assert (truth <= high[i]).all()
    assert np.ptp(effects.intervals(covers="total")[i, 0]) < 1.0
    naive = values[table["compound"] == COMPOUND].mean(0) - values[table["compound"] == CONTROL].mean(0)
    assert abs(naive[0] - truth[0]) > 2 * abs(effects.value[i, 0] - truth[0])


def test_refits_on_resampled_wells_give_the_error_of_the_fit():
    """The bootstrap over wells and the sandwich are two routes to one number."""
    worlds = TabularWorlds.make(1, seed=4, settings=WorldSettings(source_interaction_sd=0.0))
    values, table = worlds.screens(0.5, seed=2, controls_per_plate=16)
    draws = draw_contexts(worlds.contexts, 16, seed=3)
    draws["edge"] = edge_of(draws)

    def effects_of(index):
        fitted = TabularMechanism.fit(values[index], table.iloc[index], CONTROL, ["batch", "edge"], ["edge"])
        return fitted, g_formula(fitted, lambda v: v, [COMPOUND], draws, CONTROL, ["a", "b"], draws_at_once=16)

    fitted, effects = effects_of(np.arange(len(table)))
    refits = [effects_of(resample_wells(table, seed))[1] for seed in range(120)]
    by_refits = with_estimation(effects, refits)
    by_formula = fitted.with_error(effects, draws)
    np.testing.assert_allclose(by_refits.estimation_se[1], by_formula.estimation_se[1], rtol=0.25)
    assert by_refits.estimation_df == 119
    sample = table.iloc[resample_wells(table, 5)]
    assert sample["compound"].value_counts().equals(table["compound"].value_counts())
    whole = table.iloc[resample_wells(table, 5, cluster="plate")].groupby("plate").size()
    assert (whole % table.groupby("plate").size()[whole.index] == 0).all()


def test_what_the_table_cannot_tell_is_refused():
    worlds = TabularWorlds.make(1, seed=4)
    values, table = worlds.screens(1.0, seed=2)
    fitted = TabularMechanism.fit(values, table, CONTROL, ["plate"], ["batch"])
    draws = draw_contexts(worlds.contexts, 8, seed=3)
    effects = g_formula(fitted, lambda v: v, [COMPOUND], draws, CONTROL, ["a", "b"])
    with pytest.raises(NotEstimable, match="never seen where the model asks"):
        fitted.with_error(effects, draws)
    with pytest.raises(UnknownLevel, match="compound: 'X' is not in the table"):
        fitted(cross(["X"], draws))
