r"""What people do with observed profiles instead: one function, one estimator, each with its standard error.

All answer the same question, the effect of one compound against the control standardised to the contexts of the
control wells (controls lie on every plate, so theirs is the design's p*(C)), given values [n, k] and a table of wells
with the columns ``compound`` and the covariates. Assumptions of all but `naive_difference`: the covariates close every
back door (`causal.scm.check_adjustment`), positivity, no interference between wells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from causal.regression import Encoding, LeastSquares, Logistic, NotEstimable


@dataclass(frozen=True, eq=False)
class Estimate:
    """An effect per feature, its standard error, and how much data stood behind it."""

    method: str
    value: Float[np.ndarray, "k"]
    se: Float[np.ndarray, "k"]
    df: Float[np.ndarray, "k"]
    n_treated: int
    n_control: int
    effective_n: float
    """Effective number of treated wells after weighting (Kish 1965)."""

    def intervals(self, level: float = 0.95) -> Float[np.ndarray, "k 2"]:
        """Low and high end of the Student interval, per feature."""
        half = stats.t.ppf(0.5 + level / 2, self.df) * self.se
        return np.stack([self.value - half, self.value + half], axis=-1)


def naive_difference(
    values: Float[np.ndarray, "n k"], table: pd.DataFrame, compound: str, control: str, covariates: Sequence[str] = ()
) -> Estimate:
    r"""Mean of the compound's wells minus mean of the control's, Welch's standard error; ignores every confounder.

    Estimand: :math:`E[Y \mid T=t] - E[Y \mid T=0]`, which is not the effect unless allocation is randomised.
    """
    treated, controls = _arms(values, table, compound, control)
    a, b = treated.var(0, ddof=1) / len(treated), controls.var(0, ddof=1) / len(controls)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = (a + b) ** 2 / (a**2 / (len(treated) - 1) + b**2 / (len(controls) - 1))
    value = treated.mean(0) - controls.mean(0)
    return Estimate("naive", value, np.sqrt(a + b), df, len(treated), len(controls), float(len(treated)))


def regression_adjustment(
    values: Float[np.ndarray, "n k"],
    table: pd.DataFrame,
    compound: str,
    control: str,
    covariates: Sequence[str],
    *,
    cluster: str | None = None,
) -> Estimate:
    r"""Least squares of Y on treatment and covariates; the coefficient of treatment, HC2 or clustered.

    Estimating equation :math:`\sum_i (1, T_i, X_i)' (Y_i - \alpha - \tau T_i - X_i \beta) = 0`. Equals the effect
    if it does not vary with the covariates; otherwise a variance-weighted average of it (Angrist 1998).
    """
    x, t, y, groups = _prepare(values, table, compound, control, covariates, cluster)
    fit = LeastSquares.fit(np.column_stack([np.ones(len(t)), t, x]), y, groups)
    value, se = fit.function(np.eye(2 + x.shape[1])[1])
    return _estimate("regression", value, se, float(fit.df), t)


def outcome_g_formula(
    values: Float[np.ndarray, "n k"],
    table: pd.DataFrame,
    compound: str,
    control: str,
    covariates: Sequence[str],
    *,
    interactions: Sequence[str] = (),
    target: pd.DataFrame | None = None,
    cluster: str | None = None,
) -> Estimate:
    r"""Fitted outcome model, standardised: the g-formula with a linear mechanism (Robins 1986; Snowden et al. 2011).

    :math:`\hat E[Y \mid t, x] = \alpha + \tau t + x\beta + t z\gamma`, effect :math:`\tau + \bar z^* \gamma` with the
    mean of the interactions over ``target`` (None: the control wells), delta-method variance from the sandwich.
    """
    x, t, y, groups = _prepare(values, table, compound, control, covariates, cluster)
    both = table[table["compound"].isin([compound, control])]
    encoding = Encoding.of(both, interactions)
    z = encoding.matrix(both)
    where = both[both["compound"] == control] if target is None else target
    weight = where["weight"].to_numpy(float) if "weight" in where.columns else np.ones(len(where))
    z_mean = weight @ encoding.matrix(where) / weight.sum()
    fit = LeastSquares.fit(np.column_stack([np.ones(len(t)), t, x, t[:, None] * z]), y, groups)
    a = np.concatenate([[0.0, 1.0], np.zeros(x.shape[1]), z_mean])
    value, se = fit.function(a)
    return _estimate("g-formula", value, se, float(fit.df), t)


def ipw(
    values: Float[np.ndarray, "n k"], table: pd.DataFrame, compound: str, control: str, covariates: Sequence[str]
) -> Estimate:
    r"""Inverse probability weighting, normalised (Hajek), variance by stacked estimating equations.

    Treated wells get odds weights :math:`w = (1 - e(x)) / e(x)`, so that they stand for the control wells' contexts:
    :math:`\sum T w (Y - \mu_1) = 0`, :math:`\sum (1 - T)(Y - \mu_0) = 0`, and the score of the logistic model of T
    (Lunceford and Davidian 2004; the estimated e(x) enters the variance).
    """
    x, t, y, _ = _prepare(values, table, compound, control, covariates, None)
    model = _propensity(x, t)
    weight = t * np.exp(-model.logit)
    mu1, mu0 = weight @ y / weight.sum(), y[t == 0].mean(0)
    influence = weight[:, None] * (y - mu1) / weight.mean() - (1 - t)[:, None] * (y - mu0) / (1 - t).mean()
    # d w / d beta = -w x: how the estimated propensity moves mu1
    slope = -(model.x * weight[:, None]).T @ (y - mu1) / len(t) / weight.mean()
    influence = influence + model.fit.influence @ slope
    return _from_influence("ipw", mu1 - mu0, influence, t, weight)


def aipw(
    values: Float[np.ndarray, "n k"],
    table: pd.DataFrame,
    compound: str,
    control: str,
    covariates: Sequence[str],
    *,
    interactions: Sequence[str] = (),
) -> Estimate:
    r"""Augmented IPW, doubly robust: right if the outcome model or the propensity model is right.

    :math:`\mu_1 = \frac{1}{n_0} \sum_{T=0} m_1(x) + \frac{\sum T w (Y - m_1(x))}{\sum T w}` with odds weights w
    and the linear outcome model m of `outcome_g_formula` (Robins, Rotnitzky and Zhao 1994); variance from the efficient
    influence function, valid when both models are right and conservative when only the propensity is.
    """
    x, t, y, _ = _prepare(values, table, compound, control, covariates, None)
    both = table[table["compound"].isin([compound, control])]
    z = Encoding.of(both, interactions).matrix(both)
    model = _propensity(x, t)
    weight = t * np.exp(-model.logit)
    design = np.column_stack([np.ones(len(t)), t, x, t[:, None] * z])
    fit = LeastSquares.fit(design, y)
    m1 = np.column_stack([np.ones(len(t)), np.ones(len(t)), x, z]) @ fit.beta
    untreated = (1 - t)[:, None]
    correction = weight @ (y - m1) / weight.sum()
    value = (untreated * (m1 - y)).sum(0) / (1 - t).sum() + correction
    influence = (
        untreated * (m1 - y - (value - correction)) / (1 - t).mean()
        + weight[:, None] * (y - m1 - correction) / weight.mean()
    )
    return _from_influence("aipw", value, influence, t, weight)


def corrected_difference(
    values: Float[np.ndarray, "n k"],
    table: pd.DataFrame,
    compound: str,
    control: str,
    correct: Callable[[np.ndarray, pd.DataFrame], np.ndarray],
) -> Estimate:
    """The naive difference after a batch correction, ``correct(values, table) -> values``, for example from profiling.

    The standard error takes the corrected values as if measured: it leaves out that the correction was fitted.
    """
    answer = naive_difference(np.asarray(correct(values, table), float), table, compound, control)
    return Estimate(
        "corrected", answer.value, answer.se, answer.df, answer.n_treated, answer.n_control, answer.effective_n
    )


BASELINES: dict[str, Callable[..., Estimate]] = {
    "naive": naive_difference,
    "regression": regression_adjustment,
    "ipw": ipw,
    "aipw": aipw,
    "g-formula": outcome_g_formula,
}


@dataclass(frozen=True, eq=False)
class _Propensity:
    fit: Logistic
    x: Float[np.ndarray, "n p"]
    logit: Float[np.ndarray, "n"]


def _propensity(x: Float[np.ndarray, "n p"], t: Float[np.ndarray, "n"]) -> _Propensity:
    design = np.column_stack([np.ones(len(t)), x])
    fit = Logistic.fit(design, t)
    return _Propensity(fit, design, np.clip(design @ fit.beta, -30, 30))


def _arms(
    values: Float[np.ndarray, "n k"], table: pd.DataFrame, compound: str, control: str
) -> tuple[Float[np.ndarray, "a k"], Float[np.ndarray, "b k"]]:
    of = table["compound"].to_numpy()
    treated, controls = values[of == compound], values[of == control]
    if len(treated) < 2 or len(controls) < 2:
        raise NotEstimable(
            f"{compound!r} has {len(treated)} wells and the control {control!r} {len(controls)}, expected two or more "
            "of each"
        )
    return treated, controls


def _prepare(
    values: Float[np.ndarray, "n k"],
    table: pd.DataFrame,
    compound: str,
    control: str,
    covariates: Sequence[str],
    cluster: str | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Covariates, treatment, features and clusters of the wells of the two compounds."""
    _arms(values, table, compound, control)
    mine = table["compound"].isin([compound, control]).to_numpy()
    both = table[mine]
    x = Encoding.of(both, covariates).matrix(both)
    groups = None if cluster is None else pd.factorize(both[cluster])[0]
    return x, (both["compound"] == compound).to_numpy(float), values[mine], groups


def _estimate(method: str, value: np.ndarray, se: np.ndarray, df: float, t: np.ndarray) -> Estimate:
    n = int(t.sum())
    return Estimate(method, value, se, np.full(len(value), float(max(df, 1))), n, len(t) - n, float(n))


def _from_influence(
    method: str, value: np.ndarray, influence: np.ndarray, t: np.ndarray, weight: np.ndarray
) -> Estimate:
    """Standard error from the influence function; degrees of freedom from the effective number of treated wells."""
    se = np.sqrt((influence**2).sum(0)) / len(t)
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    n = int(t.sum())
    return Estimate(method, value, se, np.full(len(value), max(effective - 1, 1.0)), n, len(t) - n, effective)
