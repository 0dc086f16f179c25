"""Refuters: silent on a sound analysis, loud on a broken one; what nothing can see stays unseen."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.baselines import Estimate, naive_difference, outcome_g_formula, regression_adjustment
from causal.diagnose import (
    Question,
    data_subset,
    dropped_confounders,
    leave_one_source_out,
    negative_control_outcome,
    permuted_allocation,
    placebo_compound,
    random_common_cause,
)
from causal.tabular import COMPOUND, CONTROL, PLACEBO, TabularWorlds, WorldSettings

SOUND = WorldSettings(source_interaction_sd=0.0, edge_interaction=0.0, own_noise_sd=0.0)


def ask(settings=SOUND, seed=0, allocation=0.7, estimator=regression_adjustment, covariates=("plate", "edge")):
    worlds = TabularWorlds.make(1, seed, settings)
    values, table = worlds.screens(allocation, seed, n_treated=60)
    return Question(estimator, values, table, COMPOUND, CONTROL, tuple(covariates))


def rate(settings, finder, worlds=24, **kwargs):
    return np.mean([finder(ask(settings, seed, **kwargs)).detected for seed in range(worlds)])


@pytest.mark.parametrize(
    "finder",
    [lambda q: placebo_compound(q, PLACEBO), lambda q: negative_control_outcome(q, [1])],
    ids=["placebo", "outcome"],
)
def test_controls_are_silent_when_adjusted_and_loud_when_not_or_when_hidden(finder):
    assert rate(SOUND, finder) <= 0.15
    assert rate(SOUND, finder, estimator=naive_difference, covariates=(), allocation=1.0) > 0.5
    hidden = replace(SOUND, hidden=1.5)
    assert rate(hidden, finder) > 0.9
    # a hidden cause that the control does not share cannot be seen by it
    assert rate(replace(hidden, hidden_shared=False), finder) <= 0.15


def test_shuffled_labels_give_nothing_and_the_real_effect_stands_out():
    question = ask(replace(SOUND, effect_sd=40.0))
    finding = permuted_allocation(question, within=["batch"], repeats=60)
    assert not finding.detected
    assert finding.p[0] == pytest.approx(1 / 61)

    def crooked(values, table, compound, control, covariates):
        answer = regression_adjustment(values, table, compound, control, covariates)
        return replace(answer, value=answer.value + 1.0)

    assert permuted_allocation(replace(question, estimator=crooked), repeats=30).detected


def test_permutation_stays_within_strata():
    seen = []

    def spy(values, table, compound, control, covariates):
        seen.append(table.groupby(["batch", "compound"]).size())
        return regression_adjustment(values, table, compound, control, covariates)

    permuted_allocation(replace(ask(), estimator=spy), within=["batch"], repeats=3)
    for counts in seen[1:]:
        pd.testing.assert_series_equal(counts, seen[0])


def test_a_random_common_cause_and_subsets_change_little():
    finding = random_common_cause(ask())
    assert not finding.detected
    assert "standard errors" in finding.sentence
    assert not data_subset(ask()).detected

    def overconfident(values, table, compound, control, covariates):
        answer = regression_adjustment(values, table, compound, control, covariates)
        return Estimate(answer.method, answer.value, answer.se / 4, answer.df, 1, 1, 1.0)

    assert data_subset(replace(ask(), estimator=overconfident)).detected


def test_the_dropped_confounder_that_matters_moves_the_effect():
    """In one world the confounded plates may happen to agree; over twelve they do not."""
    world = replace(SOUND, batch_sd=3.0, edge=0.0)
    moved = {"plate": [], "edge": []}
    for seed in range(12):
        table = dropped_confounders(ask(world, seed=seed, allocation=1.0)).set_index(["left_out", "feature"])
        for name, found in moved.items():
            found.append(table.loc[(name, 0), "in_standard_errors"])
    assert np.sqrt(np.mean(np.square(moved["plate"]))) > 4
    assert np.sqrt(np.mean(np.square(moved["edge"]))) < 1


def test_sources_that_disagree_are_noticed():
    assert rate(SOUND, leave_one_source_out, worlds=20, allocation=0.0) <= 0.15
    assert rate(replace(SOUND, source_interaction_sd=2.0), leave_one_source_out, worlds=20, allocation=0.0) > 0.8
    values, table = ask(allocation=0.0).values, ask(allocation=0.0).table
    one = (table["source"] == "S0").to_numpy()
    finding = leave_one_source_out(Question(outcome_g_formula, values[one], table[one], COMPOUND, CONTROL, ("plate",)))
    assert not finding.detected
    assert finding.sentence.startswith("1 source gives an estimate by itself")


def test_cochrans_q_by_hand():
    question = ask(replace(SOUND, source_interaction_sd=1.0), allocation=0.0, covariates=("edge",))
    answers = [question.wells((question.table["source"] == s).to_numpy()).answer() for s in ("S0", "S1", "S2")]
    value, weight = np.array([a.value[0] for a in answers]), np.array([a.se[0] ** -2 for a in answers])
    q = (weight * (value - (weight * value).sum() / weight.sum()) ** 2).sum()
    assert leave_one_source_out(question).p[0] == pytest.approx(stats.chi2.sf(q, 2), rel=1e-10)
