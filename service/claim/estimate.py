"""One answer a method: effects of every compound against DMSO in one profile space, with total intervals.

The space is fitted once, on true pictures, and frozen: median and MAD of true controls, features that are measured
and not doubled. So every method, allocation and model is judged on the same features in the same units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from causal.baselines import Estimate, aipw, naive_difference, regression_adjustment
from causal.gformula import Effects, contrast, with_estimation
from causal.mechanism import TabularMechanism, resample_wells
from causal.phenotype import DMSO
from causal.regression import NotEstimable
from profiling.combat import combat
from profiling.harmony import harmonise
from profiling.normalise import median_mad
from profiling.profiles import Profiles
from profiling.select import SelectConfig, select
from service.claim.config import ClaimConfig

CLIP = 30.0  # normalised features are clipped, so that one odd picture cannot be a whole effect
TABULAR = ("naive", "Harmony", "ComBat", "regression", "AIPW", "tabular g-formula")
DIFFUSION = {"free": "SCM-free diffusion", "aware": "SCM-aware diffusion + g-formula"}
ORACLE = "oracle"
METHODS = (*TABULAR, *DIFFUSION.values(), ORACLE)


@dataclass(frozen=True, eq=False)
class Space:
    """Features kept, and the median and MAD of true controls that they are measured in."""

    names: tuple[str, ...]
    centre: Float[np.ndarray, " k"]
    spread: Float[np.ndarray, " k"]

    def values(self, profiles: Profiles) -> Float[np.ndarray, "n k"]:
        """Profiles in this space, clipped; NaN where a picture has no cells."""
        z = (profiles.features(self.names).values - self.centre) / self.spread
        return np.asarray(np.clip(z, -CLIP, CLIP))


def fit_space(true: Profiles, correlation: float) -> Space:
    """The space of true profiles: `select` on rows with cells, in units of the controls among them."""
    control = true.column("compound") == DMSO
    centre, spread = median_mad(true.values[control])
    use = np.isfinite(centre) & (spread > 0)
    z = np.clip((true.values[:, use] - centre[use]) / spread[use], -CLIP, CLIP)
    alive = np.isfinite(z).any(axis=1)
    names = tuple(np.array(true.names, object)[use])
    table = Profiles(true.meta[alive].reset_index(drop=True), z[alive], names)
    kept = select(table, SelectConfig(missing=0.0, correlation=correlation, outlier=None)).names
    at = [true.names.index(name) for name in kept]
    return Space(kept, centre[at], spread[at])


@dataclass(frozen=True, eq=False)
class Answer:
    """Effects [m, k] of the compounds in order, ends of the total 95 % intervals, and effects by each seed [s, m, k]
    (one for methods without seeds). NaN where the method does not say: `defined` [m] is False, or `without` compounds
    are not determined by the wells.
    """

    method: str
    value: Float[np.ndarray, "m k"]
    low: Float[np.ndarray, "m k"]
    high: Float[np.ndarray, "m k"]
    members: Float[np.ndarray, "s m k"]
    defined: np.ndarray
    without: int = 0


def tabular_answers(
    z: Float[np.ndarray, "n k"],
    wells: pd.DataFrame,
    compounds: Sequence[str],
    draws: pd.DataFrame,
    config: ClaimConfig,
) -> list[Answer]:
    """Answers of all methods that read the observed wells (those with cells); unseen compounds are not defined there.

    z: observed profiles in the space. draws: contexts that the tabular g-formula averages over, one row each.
    """
    whole = np.isfinite(z).all(axis=1)
    z, wells = z[whole], wells[whole].reset_index(drop=True)
    covariates = list(config.tabular_covariates)

    def regression(compound: str) -> Estimate:
        return regression_adjustment(z, wells, compound, DMSO, covariates)

    return [
        _each("naive", compounds, wells, lambda t: naive_difference(z, wells, t, DMSO), z.shape[1]),
        _corrected("Harmony", z, wells, compounds, config, _harmony),
        _corrected("ComBat", z, wells, compounds, config, _combat),
        _each("regression", compounds, wells, regression, z.shape[1]),
        _each("AIPW", compounds, wells, lambda t: aipw(z, wells, t, DMSO, covariates), z.shape[1]),
        tabular_g_formula(z, wells, compounds, draws, config),
    ]


def _each(
    method: str, compounds: Sequence[str], wells: pd.DataFrame, answer: Callable[[str], Estimate], k: int
) -> Answer:
    """One estimator, compound by compound, with its own Student interval."""
    value = np.full((len(compounds), k), np.nan)
    ends, without = np.full((len(compounds), k, 2), np.nan), 0
    defined = np.isin(list(compounds), list(set(wells["compound"])))
    for i, compound in enumerate(compounds):
        if defined[i]:
            try:
                found = answer(compound)
            except NotEstimable:
                without += 1
                continue
            value[i], ends[i] = found.value, found.intervals()
    return Answer(method, value, ends[..., 0], ends[..., 1], value[None], defined, without)


def _harmony(z: Float[np.ndarray, "n k"], wells: pd.DataFrame, seed: int) -> Float[np.ndarray, "n k"]:
    return harmonise(z, wells[["batch"]], seed).values


def _combat(z: Float[np.ndarray, "n k"], wells: pd.DataFrame, seed: int) -> Float[np.ndarray, "n k"]:
    return combat(z, wells["batch"].to_numpy())


def differences(z: Float[np.ndarray, "n k"], wells: pd.DataFrame, compounds: Sequence[str]) -> Float[np.ndarray, "m k"]:
    """Mean of each compound's wells minus that of the controls; NaN for a compound without wells."""
    of = wells["compound"].to_numpy()
    control = z[of == DMSO].mean(0)
    rows = [z[of == t].mean(0) - control if (of == t).any() else np.full(z.shape[1], np.nan) for t in compounds]
    return np.stack(rows)


def _corrected(
    method: str,
    z: Float[np.ndarray, "n k"],
    wells: pd.DataFrame,
    compounds: Sequence[str],
    config: ClaimConfig,
    correct: Callable[[np.ndarray, pd.DataFrame, int], np.ndarray],
) -> Answer:
    """Differences after a batch correction; the interval is that of a bootstrap over wells with the correction refitted
    each time, so it covers that the correction was fitted.
    """
    value = differences(correct(z, wells, config.seed), wells, compounds)
    refits = []
    for b in range(config.refits):
        at = resample_wells(wells, b, within=("compound", "batch"))
        some = wells.iloc[at].reset_index(drop=True)
        refits.append(differences(correct(z[at], some, config.seed), some, compounds))
    se = np.std(np.stack(refits), axis=0, ddof=1)
    half = float(stats.t.ppf(0.975, config.refits - 1)) * se
    defined = np.isin(list(compounds), list(set(wells["compound"])))
    return Answer(method, value, value - half, value + half, value[None], defined)


def tabular_g_formula(
    z: Float[np.ndarray, "n k"],
    wells: pd.DataFrame,
    compounds: Sequence[str],
    draws: pd.DataFrame,
    config: ClaimConfig,
) -> Answer:
    """A linear mechanism of all compounds at once, fitted on the wells and averaged over the same draws as the models;
    total interval: draws and estimation.
    """
    mechanism = TabularMechanism.fit(z, wells, DMSO, config.tabular_covariates, config.tabular_interactions)
    known = [t for t in compounds if t in mechanism.compounds]
    value = np.full((len(compounds), z.shape[1]), np.nan)
    ends, without = np.full((*value.shape, 2), np.nan), 0
    rows = pd.concat([draws.assign(compound=t) for t in (DMSO, *known)], ignore_index=True)
    predicted = mechanism(rows)
    for t in known:
        mine = rows["compound"].isin([DMSO, t]).to_numpy()
        effects = contrast(predicted[mine], rows[mine], DMSO)
        try:
            total = mechanism.with_error(effects, draws)
        except NotEstimable:
            without += 1
            continue
        i, at = list(compounds).index(t), effects.compounds.index(t)
        value[i], ends[i] = total.value[at], total.intervals(covers="total")[at]
    defined = np.isin(list(compounds), known)
    return Answer("tabular g-formula", value, ends[..., 0], ends[..., 1], value[None], defined, without)


def ensemble_answer(
    method: str, by_seed: Sequence[Float[np.ndarray, "r k"]], design: pd.DataFrame, compounds: Sequence[str]
) -> Answer:
    """Effects of a trained mechanism: the mean over its seeds of the contrast over draws, paired by draw.

    Estimation error: the standard deviation between seeds of each feature, pooled over compounds (a few seeds tell
    little about one compound), with compounds x (seeds - 1) degrees of freedom. The error that all seeds share is not
    in it; the coverage says how much that is.
    """
    effects = [_ordered(contrast(values, design, DMSO), compounds) for values in by_seed]
    members = np.stack([e.value for e in effects])
    both = _ordered(contrast(_mean_of_rows(by_seed), design, DMSO), compounds)
    whole = np.isfinite(members).all(axis=0)
    variance = np.where(whole, np.where(whole, members, 0.0).var(axis=0, ddof=1), 0.0)
    pooled = np.sqrt(variance.sum(0) / np.maximum(whole.sum(0), 1))
    se = np.repeat(pooled[None], len(compounds), axis=0)
    total = with_estimation(both, se, df=float(len(compounds) * (len(by_seed) - 1)))
    ends = total.intervals(covers="total")
    return Answer(method, both.value, ends[..., 0], ends[..., 1], members, np.ones(len(compounds), bool))


def draws_answer(
    method: str, values: Float[np.ndarray, "r k"], design: pd.DataFrame, compounds: Sequence[str]
) -> Answer:
    """Effects of the true mechanism: nothing is estimated, so the interval over draws is the total one."""
    effects = _ordered(contrast(values, design, DMSO), compounds)
    ends = effects.intervals()
    return Answer(method, effects.value, ends[..., 0], ends[..., 1], effects.value[None], np.ones(len(compounds), bool))


def _mean_of_rows(by_seed: Sequence[Float[np.ndarray, "r k"]]) -> Float[np.ndarray, "r k"]:
    """Mean over the seeds that painted cells; NaN where none did."""
    stack = np.stack(by_seed)
    there = np.isfinite(stack)
    count = there.sum(0)
    total = np.where(there, stack, 0.0).sum(0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _ordered(effects: Effects, compounds: Sequence[str]) -> Effects:
    """The effects of these compounds, in this order."""
    at = [effects.compounds.index(t) for t in compounds]
    return Effects(
        tuple(compounds),
        effects.names,
        effects.value[at],
        effects.se[at],
        effects.df[at],
        effects.n_draws[at],
        effects.n_without_cells[at],
        effects.cells_value[at],
        effects.cells_se[at],
        effects.control,
    )
