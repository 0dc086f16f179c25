"""The proofs: naive fails, the g-formula covers, a hidden cause is found where it can be and not where it cannot."""

import numpy as np
import pandas as pd
import pytest

from causal import studies
from causal.tabular import CONTROL, TabularWorlds


def by(table, *columns):
    return table.set_index(list(columns))


def test_coverage_over_2000_confounded_worlds():
    table = studies.known_mechanism(2000, schemes=())
    assert len(table) == 5
    assert table["holds"].all(), table[["setting", "estimator", "coverage", "wanted"]]
    coverage = by(table, "setting", "estimator")["coverage"]
    assert coverage["JUMP-like allocation", "naive"] < 0.5
    assert 0.93 <= coverage["randomised allocation", "naive"] <= 0.97
    assert 0.93 <= coverage["64 iid draws", "g-formula, draws"] <= 0.97
    assert 0.93 <= coverage["stopped at width 0.4, two-stage", "g-formula, draws"] <= 0.97


@pytest.mark.slow
def test_stratified_and_sobol_draws_cover_too():
    table = by(studies.known_mechanism(2000), "setting")
    for setting in ("64 stratified draws", "64 sobol draws"):
        assert 0.93 <= table.loc[setting, "coverage"] <= 0.97


def test_total_covers_where_the_mechanism_is_fitted_and_draws_alone_do_not():
    coverage = by(studies.fitted_mechanism(500), "estimator")["coverage"]
    assert 0.92 <= coverage["g-formula, total"] <= 0.98
    assert coverage["g-formula, draws"] < 0.7


def test_a_hidden_confounder_breaks_ours_and_is_seen_only_by_controls_that_share_it():
    table = by(studies.hidden_confounder(40), "setting", "estimator")
    shared, unshared = "hidden, shared by the controls", "hidden, shared by no control"
    for setting in (shared, unshared):
        assert table.loc[(setting, "g-formula, total"), "coverage"] < 0.5
    for control in ("diagnose: placebo compound", "diagnose: negative-control outcome"):
        assert table.loc[(shared, control), "detected"] > 0.75
        assert table.loc[(unshared, control), "detected"] < 0.2
        assert table.loc[("no hidden cause", control), "detected"] < 0.2
    # nothing can see it, so the report gives the strength that would explain the effect away
    assert 0 < table.loc[(unshared, "sensitivity: robustness value"), "robustness"] < 1


def test_the_dial_separates_the_estimators():
    table = by(studies.allocation_dial(30, dial=(0.0, 0.75)), "setting", "estimator")
    rmse, coverage = table["rmse"], table["coverage"]
    assert coverage["0.00", "naive"] > 0.85
    assert coverage["0.75", "naive"] < 0.5
    assert rmse["0.75", "naive"] > 2 * rmse["0.75", "g-formula, fitted"] > 2 * rmse["0.75", "g-formula, simulator"]
    assert rmse["0.75", "plate-corrected"] > rmse["0.75", "g-formula, fitted"]  # the edge is still in it
    assert rmse["0.75", "g-formula, batch and plate left out"] > rmse["0.75", "g-formula, fitted"]
    assert coverage["0.75", "g-formula, fitted"] > 0.85


def test_adjusting_for_cell_count_answers_another_question():
    table = by(studies.cell_count(150), "setting", "estimator")["bias"]
    assert abs(table["truth: effect 0", "batch adjusted"]) < 0.06
    assert abs(table["truth: direct effect 1", "batch and cell count adjusted"]) < 0.08
    assert table["truth: effect 0", "batch and cell count adjusted"] == pytest.approx(1.0, abs=0.08)


def test_centred_plates_have_controls_of_mean_zero():
    values, table = TabularWorlds.make(1, seed=0).screens(0.5, seed=0)
    centred = studies.centre_plates(values, table)
    control = (table["compound"] == CONTROL).to_numpy()
    means = pd.DataFrame(centred[control]).groupby(table["plate"].to_numpy()[control]).mean()
    np.testing.assert_allclose(means, 0, atol=1e-12)
