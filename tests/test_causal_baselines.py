"""Baselines against statsmodels, stacked estimating equations written out, and what each promises."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.treatment.treatment_effects import TreatmentEffect

from causal.baselines import (
    BASELINES,
    aipw,
    corrected_difference,
    ipw,
    naive_difference,
    outcome_g_formula,
    regression_adjustment,
)
from causal.regression import Encoding, LeastSquares, Logistic, NotEstimable, UnknownLevel


def wells(n=300, seed=0, effect=1.0, interaction=0.0, confounding=1.5):
    """Wells with a batch (3) and a number z; treatment is likelier in batch b2 and for large z."""
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, 3, n)
    z = rng.normal(size=n)
    t = rng.random(n) < 1 / (1 + np.exp(0.7 - 0.8 * (batch == 2) * confounding - 0.7 * z * confounding))
    y = 2.0 * batch + 1.5 * z + t * (effect + interaction * z) + rng.normal(size=n) * (1 + 0.5 * t)
    table = pd.DataFrame({"compound": np.where(t, "A", "DMSO"), "batch": [f"b{i}" for i in batch], "z": z})
    table["plate"] = [f"p{i % 24}" for i in range(n)]
    return np.column_stack([y, -3 * y]), table


def dense(table):
    """The design matrix by pandas, as an oracle for the encoding."""
    return np.column_stack(
        [np.ones(len(table)), table["compound"] == "A", pd.get_dummies(table["batch"]).iloc[:, 1:], table["z"]]
    ).astype(float)


def test_naive_is_welchs_t():
    values, table = wells()
    a = values[table["compound"] == "A", 0]
    b = values[table["compound"] == "DMSO", 0]
    answer = naive_difference(values, table, "A", "DMSO")
    oracle = stats.ttest_ind(a, b, equal_var=False)
    assert answer.value[0] / answer.se[0] == pytest.approx(oracle.statistic, rel=1e-12)
    np.testing.assert_allclose(answer.intervals()[0], oracle.confidence_interval(), rtol=1e-12)


def test_regression_is_statsmodels_hc2_and_clustered():
    values, table = wells()
    oracle = sm.OLS(values[:, 0], dense(table)).fit(cov_type="HC2")
    answer = regression_adjustment(values, table, "A", "DMSO", ["batch", "z"])
    assert answer.value[0] == pytest.approx(oracle.params[1], rel=1e-10)
    assert answer.se[0] == pytest.approx(oracle.bse[1], rel=1e-10)
    np.testing.assert_allclose(answer.se[1], 3 * answer.se[0], rtol=1e-10)
    groups = pd.factorize(table["plate"])[0]
    clustered = sm.OLS(values[:, 0], dense(table)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    answer = regression_adjustment(values, table, "A", "DMSO", ["batch", "z"], cluster="plate")
    assert answer.se[0] == pytest.approx(clustered.bse[1], rel=1e-10)


def test_logistic_is_statsmodels_logit():
    _, table = wells()
    x, t = np.delete(dense(table), 1, axis=1), (table["compound"] == "A").to_numpy(float)
    oracle = sm.Logit(t, x).fit(disp=0)
    fit = Logistic.fit(x, t, ridge=0.0)
    np.testing.assert_allclose(fit.beta, oracle.params, rtol=1e-6)
    # the influence functions reproduce the robust covariance
    np.testing.assert_allclose(
        fit.influence.T @ fit.influence / len(t) ** 2,
        sm.Logit(t, x).fit(disp=0, cov_type="HC0").cov_params(),
        rtol=1e-5,
    )


def test_g_formula_without_interaction_is_regression_and_with_it_is_predict_then_average():
    values, table = wells(interaction=1.0)
    plain = outcome_g_formula(values, table, "A", "DMSO", ["batch", "z"])
    adjusted = regression_adjustment(values, table, "A", "DMSO", ["batch", "z"])
    np.testing.assert_allclose([plain.value, plain.se], [adjusted.value, adjusted.se], rtol=1e-10)
    x = np.column_stack([dense(table), (table["compound"] == "A") * table["z"]])
    oracle = sm.OLS(values[:, 0], x).fit(cov_type="HC2")
    target = table[table["compound"] == "DMSO"]
    one, zero = dense(target), dense(target)
    one[:, 1], zero[:, 1] = 1, 0
    one, zero = np.column_stack([one, target["z"]]), np.column_stack([zero, np.zeros(len(target))])
    answer = outcome_g_formula(values, table, "A", "DMSO", ["batch", "z"], interactions=["z"])
    assert answer.value[0] == pytest.approx((oracle.predict(one) - oracle.predict(zero)).mean(), rel=1e-10)
    a = (one - zero).mean(0)
    assert answer.se[0] == pytest.approx(np.sqrt(a @ oracle.cov_params() @ a), rel=1e-10)


def test_ipw_is_statsmodels_and_its_error_is_the_stacked_sandwich():
    values, table = wells()
    answer = ipw(values, table, "A", "DMSO", ["batch", "z"])
    x, t, y = np.delete(dense(table), 1, axis=1), (table["compound"] == "A").to_numpy(float), values[:, 0]
    outcome = sm.OLS(y, x)
    oracle = TreatmentEffect(outcome, t, results_select=sm.Logit(t, x).fit(disp=0)).ipw(
        return_results=False, effect_group=0
    )
    assert answer.value[0] == pytest.approx(oracle[0], rel=1e-3)  # ours has a small ridge

    def equations(theta):  # one row per well: the estimating equations as published, nothing simplified
        beta, mu1, mu0 = theta[:-2], theta[-2], theta[-1]
        e = 1 / (1 + np.exp(-x @ beta))
        return np.column_stack(
            [x * (t - e)[:, None] - 1e-3 * beta / len(t), t * (1 - e) / e * (y - mu1), (1 - t) * (y - mu0)]
        )

    mu0 = y[t == 0].mean()
    theta = np.concatenate([Logistic.fit(x, t).beta, [answer.value[0] + mu0, mu0]])
    np.testing.assert_allclose(equations(theta).mean(0), 0, atol=1e-9)
    step = 1e-6
    slope = np.stack(
        [
            (equations(theta + step * d).mean(0) - equations(theta - step * d).mean(0)) / (2 * step)
            for d in np.eye(len(theta))
        ],
        1,
    )
    bread = np.linalg.inv(slope)
    cov = bread @ (equations(theta).T @ equations(theta) / len(t)) @ bread.T / len(t)
    a = np.r_[np.zeros(len(theta) - 2), 1, -1]
    assert answer.se[0] == pytest.approx(np.sqrt(a @ cov @ a), rel=1e-5)


def test_aipw_is_the_formula_written_out():
    values, table = wells()
    answer = aipw(values, table, "A", "DMSO", ["batch", "z"])
    x, t, y = np.delete(dense(table), 1, axis=1), (table["compound"] == "A").to_numpy(float), values[:, 0]
    e = Logistic.fit(x, t).probability
    w = t * (1 - e) / e
    fit = sm.OLS(y, dense(table)).fit()
    treated = dense(table)
    treated[:, 1] = 1
    m1 = fit.predict(treated)
    mu1 = m1[t == 0].mean() + (w * (y - m1)).sum() / w.sum()
    assert answer.value[0] == pytest.approx(mu1 - y[t == 0].mean(), rel=1e-10)


def test_every_adjustment_recovers_the_effect_and_naive_does_not():
    """Truth 1; over 120 tables each adjusted estimator is centred and covers, the naive one is far off."""
    errors, covered = {}, {}
    for name, estimate in BASELINES.items():
        answers = [estimate(*wells(seed=s), "A", "DMSO", ["batch", "z"]) for s in range(120)]
        value = np.array([a.value[0] for a in answers])
        ends = np.array([a.intervals()[0] for a in answers])
        errors[name] = (value.mean() - 1, value.std(ddof=1) / np.sqrt(120))
        covered[name] = np.mean((ends[:, 0] <= 1) & (ends[:, 1] >= 1))
    assert errors["naive"][0] > 1.0
    assert covered["naive"] < 0.05
    for name in ("regression", "g-formula", "aipw"):
        assert abs(errors[name][0]) < 4 * errors[name][1], name
        assert 0.90 <= covered[name] <= 0.985, (name, covered[name])
    assert abs(errors["ipw"][0]) < 0.15
    assert 0.85 <= covered["ipw"] <= 0.99


def test_aipw_is_doubly_robust():
    """Wrong outcome model (z left out of it): regression is biased, AIPW is not, and conversely."""

    def squared(seed):
        values, table = wells(seed=seed)
        return values + 2.0 * (table["z"].to_numpy()[:, None] ** 2) * [1, -3], table

    value = np.array(
        [[f(*squared(s), "A", "DMSO", ["batch", "z"]).value[0] for f in (aipw, outcome_g_formula)] for s in range(60)]
    )
    bias = np.abs(value.mean(0) - 1)
    assert bias[0] < bias[1]


def test_a_correction_is_a_callable_and_randomised_naive_covers():
    values, table = wells(confounding=0.0)
    means = pd.DataFrame(values).groupby(table["batch"].to_numpy()).transform("mean").to_numpy()
    answer = corrected_difference(values, table, "A", "DMSO", lambda v, t: v - means)
    assert answer.method == "corrected"
    assert answer.se[0] < naive_difference(values, table, "A", "DMSO").se[0]
    hits = 0
    for s in range(200):
        low, high = naive_difference(*wells(seed=s, confounding=0.0), "A", "DMSO").intervals()[0]
        hits += low <= 1 <= high
    assert 0.91 <= hits / 200 <= 0.985


def test_what_the_table_does_not_determine_is_refused():
    values, table = wells()
    never = table["compound"].where(table["batch"] != "b2", "DMSO")  # the compound is never in batch b2
    alone = table.assign(compound=never)
    with pytest.raises(NotEstimable, match="not determined by the table"):
        outcome_g_formula(values, alone, "A", "DMSO", ["batch"], interactions=["batch"])
    with pytest.raises(NotEstimable, match="'B' has 0 wells"):
        naive_difference(values, table, "B", "DMSO")
    encoding = Encoding.of(table, ["batch"])
    with pytest.raises(UnknownLevel, match="batch: 'b9' is not in the table"):
        encoding.matrix(pd.DataFrame({"batch": ["b9"]}))
    with pytest.raises(UnknownLevel, match="no column 'dose'"):
        Encoding.of(table, ["dose"])


def test_collinear_covariates_do_not_matter():
    values, table = wells()
    table = table.assign(twin=table["batch"])
    one = regression_adjustment(values, table, "A", "DMSO", ["batch", "z"])
    two = regression_adjustment(values, table, "A", "DMSO", ["batch", "twin", "z"])
    np.testing.assert_allclose([two.value, two.se, two.df], [one.value, one.se, one.df], rtol=1e-8)
    fit = LeastSquares.fit(dense(table), values)
    assert fit.df == 300 - 5
