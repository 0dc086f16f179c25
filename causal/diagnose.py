"""Refuters: what must not change an effect, and what must be zero, tried out.

Each takes the same question (an estimator of `causal.baselines`, values, table, compound) and answers with a finding:
the numbers, whether anything was detected at the stated level over all features (Holm), and a sentence. Not detecting
is no proof: a hidden confounder that no control shares cannot be seen (`causal.sensitivity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from causal.baselines import Estimate
from causal.regression import NotEstimable

Estimator = Callable[[np.ndarray, pd.DataFrame, str, str, Sequence[str]], Estimate]


@dataclass(frozen=True, eq=False)
class Question:
    """An estimator and what it is asked: the effect of one compound in a table of wells."""

    estimator: Estimator
    values: Float[np.ndarray, "n k"]
    table: pd.DataFrame
    compound: str
    control: str
    covariates: tuple[str, ...]

    def answer(self) -> Estimate:
        """The estimate."""
        return self.estimator(self.values, self.table, self.compound, self.control, self.covariates)

    def wells(self, kept: Bool[np.ndarray, "n"]) -> Question:
        """The same question about some of the wells."""
        return replace(self, values=self.values[kept], table=self.table[kept])


@dataclass(frozen=True, eq=False)
class Finding:
    """The outcome of one refuter."""

    name: str
    detected: bool
    """Whether something is wrong at the level asked for."""
    p: Float[np.ndarray, "j"]
    """p-value per feature (or per repetition, see the refuter), before correction."""
    shift: Float[np.ndarray, "j"]
    """The effect that should be zero, or the change that should be."""
    sentence: str


def placebo_compound(question: Question, placebo: str, alpha: float = 0.05) -> Finding:
    """An inert compound allocated like the real ones: its effect must be zero. Sees whatever its allocation shares."""
    answer = replace(question, compound=placebo).answer()
    return _zero("placebo compound", answer, alpha, f"the inert {placebo!r} has an effect")


def negative_control_outcome(question: Question, features: Sequence[int], alpha: float = 0.05) -> Finding:
    """Features that the compound cannot move but confounders can (background, blur): their effect must be zero."""
    answer = replace(question, values=question.values[:, list(features)]).answer()
    return _zero("negative-control outcome", answer, alpha, "the compound seems to move features that it cannot move")


def permuted_allocation(
    question: Question, *, within: Sequence[str] = (), repeats: int = 99, seed: int = 0, alpha: float = 0.05
) -> Finding:
    """Labels shuffled (within the columns ``within``): effects of shuffled labels must be centred on zero.

    ``p`` is the permutation p-value of the observed effect; ``shift`` the mean effect under shuffling; detected if that
    mean differs from zero, i.e. if the estimator itself makes effects out of nothing.
    """
    rng = np.random.default_rng(seed)
    both = question.wells(question.table["compound"].isin([question.compound, question.control]).to_numpy())
    strata = both.table.groupby(list(within)).ngroup().to_numpy() if within else np.zeros(len(both.table), int)
    sorted_wells = np.argsort(strata, kind="stable")
    labels = both.table["compound"].to_numpy()
    shuffled = []
    for _ in range(repeats):
        mixed = labels.copy()
        mixed[sorted_wells] = labels[np.lexsort((rng.random(len(labels)), strata))]
        shuffled.append(replace(both, table=both.table.assign(compound=mixed)).answer().value)
    null = np.array(shuffled)
    p = (1 + (np.abs(null) >= np.abs(both.answer().value)).sum(0)) / (1 + repeats)
    mean, error = null.mean(0), null.std(0, ddof=1) / np.sqrt(repeats)
    detected = _holm(_two_sided(mean, error, np.full(len(mean), repeats - 1.0)), alpha)
    text = "shuffled labels still give an effect" if detected else "shuffled labels give no effect"
    return Finding("permuted allocation", detected, p, mean, text)


def random_common_cause(question: Question, *, repeats: int = 10, seed: int = 0, tolerance: float = 0.5) -> Finding:
    """A random number as one more covariate: the effect may not move by more than ``tolerance`` standard errors.

    ``p`` is not a probability here but the share of repetitions that moved less than the tolerance, per feature.
    """
    rng = np.random.default_rng(seed)
    before = question.answer()
    more = (*question.covariates, "_random")
    tables = [question.table.assign(_random=rng.normal(size=len(question.table))) for _ in range(repeats)]
    moved = np.array([replace(question, table=t, covariates=more).answer().value - before.value for t in tables])
    within = (np.abs(moved) <= tolerance * before.se).mean(0)
    worst = np.abs(moved).max(0)
    text = f"a random covariate moves the effect by up to {(worst / before.se).max():.2f} standard errors"
    return Finding("random common cause", bool((within < 0.8).any()), within, worst, text)


def data_subset(
    question: Question, *, share: float = 0.8, repeats: int = 30, seed: int = 0, alpha: float = 0.05
) -> Finding:
    """Random subsets of the wells: the effect must scatter as its standard error says, not more.

    For independent wells the difference between a subset's and the whole estimate has variance se² (1/share - 1);
    ``p`` compares the observed scatter with it (chi-square).
    """
    rng = np.random.default_rng(seed)
    whole = question.answer()
    differences = []
    for _ in range(repeats):
        kept = np.zeros(len(question.table), bool)
        for arm in (question.compound, question.control):
            wells = np.flatnonzero(question.table["compound"] == arm)
            kept[rng.choice(wells, max(round(share * len(wells)), 2), replace=False)] = True
        differences.append(question.wells(kept).answer().value - whole.value)
    spread = np.array(differences)
    p = stats.chi2.sf((spread**2).sum(0) / (whole.se**2 * (1 / share - 1)), repeats)
    detected = _holm(p, alpha)
    text = "subsets scatter more than the standard error says" if detected else "subsets agree with the whole"
    return Finding("data subset", detected, p, spread.mean(0), text)


def dropped_confounders(question: Question) -> pd.DataFrame:
    """How far the effect moves when each covariate is left out: a row per (covariate, feature).

    A large move says that the covariate confounds; it tells which assumption matters, not which estimate is right.
    """
    full = question.answer()
    rows = []
    for left_out in question.covariates:
        rest = tuple(c for c in question.covariates if c != left_out)
        moved = replace(question, covariates=rest).answer().value - full.value
        rows += [(left_out, j, m, m / s) for j, (m, s) in enumerate(zip(moved, full.se, strict=True))]
    return pd.DataFrame(rows, columns=["left_out", "feature", "moved", "in_standard_errors"])


def leave_one_source_out(question: Question, alpha: float = 0.05) -> Finding:
    """Every source by itself, compared: effects that differ between sources (Cochran's Q, 1954) rest on one laboratory.

    ``shift`` is the largest change of the estimate when one source is left out. Sources that cannot give an estimate
    by themselves are left out of Q; the sentence says how many could.
    """
    whole = question.answer()
    asked = replace(question, covariates=tuple(c for c in question.covariates if c != "source"))
    source = question.table["source"].to_numpy()
    alone = [a for s in np.unique(source) if (a := _try(asked.wells(source == s))) is not None]
    without = [a for s in np.unique(source) if (a := _try(asked.wells(source != s))) is not None]
    moved = np.abs([a.value - whole.value for a in without]).max(0) if without else np.full_like(whole.value, np.nan)
    if len(alone) < 2:
        text = f"{len(alone)} source gives an estimate by itself: agreement between sources cannot be checked"
        return Finding("leave one source out", False, np.full_like(whole.value, np.nan), moved, text)
    value, weight = np.array([a.value for a in alone]), np.array([1 / a.se**2 for a in alone])
    pooled = (weight * value).sum(0) / weight.sum(0)
    p = stats.chi2.sf((weight * (value - pooled) ** 2).sum(0), len(alone) - 1)
    detected = _holm(p, alpha)
    text = f"{len(alone)} sources by themselves {'disagree' if detected else 'agree'}"
    return Finding("leave one source out", detected, p, moved, text)


def _try(question: Question) -> Estimate | None:
    """An estimate, or None where these wells do not determine one."""
    try:
        answer = question.answer()
    except NotEstimable:
        return None
    return answer if np.isfinite(answer.se).all() and (answer.se > 0).all() else None


def _zero(name: str, answer: Estimate, alpha: float, complaint: str) -> Finding:
    p = _two_sided(answer.value, answer.se, answer.df)
    detected = _holm(p, alpha)
    text = complaint if detected else f"{name}: nothing detected, which proves nothing"
    return Finding(name, detected, p, answer.value, text)


def _two_sided(value: np.ndarray, se: np.ndarray, df: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * stats.t.sf(np.abs(np.where(value == 0, 0.0, value / se)), df))


def _holm(p: np.ndarray, alpha: float) -> bool:
    """Whether any feature is significant under Holm's correction: the smallest p against alpha / k."""
    known = p[~np.isnan(p)]
    return bool(len(known)) and bool(known.min() <= alpha / len(known))
