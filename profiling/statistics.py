"""Comparing methods: one-way ANOVA with Tukey's HSD as in the paper's Tables 1 and 2, and what its design asks for.

The paper compares image types by their scores in several folds. Folds share compounds, so the values of one fold are
not independent between methods: `paired_permutation` and `mixed_model` use the pairing and stand beside the ANOVA.
Effect sizes, letters for plots and the false discovery rate are here too. Values are float64 [n], groups and blocks
words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar
from scipy.stats import f as fisher
from scipy.stats import studentized_range
from scipy.stats import t as student

from profiling.profiles import Words


class InvalidComparison(ValueError):
    """Groups that cannot be compared: too few, too small, or values and groups that do not fit together."""


@dataclass(frozen=True)
class Anova:
    """F = (between / df_between) / (within / df_within); `eta_squared` = between / (between + within)."""

    f: float
    p: float
    df_between: int
    df_within: int
    mean_square_within: float
    eta_squared: float


def false_discovery_rate(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Benjamini-Hochberg q of each p; NaN stays NaN and does not count as a test."""
    out = np.full(len(p), np.nan)
    given = np.flatnonzero(~np.isnan(p))
    order = given[np.argsort(p[given], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out


def _split(values: Float[np.ndarray, " n"], groups: Words) -> dict[str, Float[np.ndarray, " m"]]:
    if len(values) != len(groups):
        raise InvalidComparison(f"values has {len(values)} entries, groups {len(groups)}: expected as many")
    if np.isnan(values).any():
        raise InvalidComparison(f"values has {int(np.isnan(values).sum())} NaN: leave those rows out first")
    names = np.array([str(g) for g in groups], dtype=object)
    parts = {g: values[names == g] for g in sorted(set(names))}
    if len(parts) < 2:
        raise InvalidComparison(f"groups has {len(parts)} different entries: expected at least two groups to compare")
    return parts


def anova(values: Float[np.ndarray, " n"], groups: Words) -> Anova:
    """One-way analysis of variance. Assumes independent, normal values of equal variance."""
    parts = _split(values, groups)
    within = float(sum(((x - x.mean()) ** 2).sum() for x in parts.values()))
    between = float(sum(len(x) * (x.mean() - values.mean()) ** 2 for x in parts.values()))
    free = len(values) - len(parts)
    if free < 1:
        raise InvalidComparison("every group has one value: expected repeats, which the within-group variance needs")
    mean_square = within / free
    if mean_square == 0.0:
        raise InvalidComparison("values do not vary within any group: the variance ratio is not defined")
    ratio = between / (len(parts) - 1) / mean_square
    p = float(fisher.sf(ratio, len(parts) - 1, free))
    return Anova(ratio, p, len(parts) - 1, free, mean_square, between / (between + within))


def tukey_hsd(values: Float[np.ndarray, " n"], groups: Words, level: float = 0.95) -> pd.DataFrame:
    """Tukey's honestly significant differences, one row a pair (Tukey-Kramer where group sizes differ).

    Columns `group1`, `group2`, `difference` (mean of 2 - mean of 1), `low`, `high` (simultaneous at `level`), `p`
    (adjusted for all pairs) and `cohen_d` (difference / sd within). Same assumptions as `anova`.
    """
    parts = _split(values, groups)
    fit = anova(values, groups)
    critical = float(studentized_range.ppf(level, len(parts), fit.df_within))
    rows = []
    for a, b in combinations(parts, 2):
        difference = float(parts[b].mean() - parts[a].mean())
        error = np.sqrt(fit.mean_square_within / 2 * (1 / len(parts[a]) + 1 / len(parts[b])))
        p = float(studentized_range.sf(abs(difference) / error, len(parts), fit.df_within))
        half = float(critical * error)
        size = difference / np.sqrt(fit.mean_square_within)
        rows.append((a, b, difference, difference - half, difference + half, p, float(size)))
    return pd.DataFrame(rows, columns=["group1", "group2", "difference", "low", "high", "p", "cohen_d"])


def letters(pairs: pd.DataFrame, alpha: float = 0.05) -> dict[str, str]:
    """Compact letters for plots: two groups share a letter exactly when their pair is not significant (p >= `alpha`).

    `pairs` as of `tukey_hsd`. Insert and absorb, after Piepho 2004 (doi 10.1198/1061860043515).
    """
    names = sorted(set(pairs["group1"]) | set(pairs["group2"]))
    sets: list[frozenset[str]] = [frozenset(names)]
    for a, b in pairs.loc[pairs["p"] < alpha, ["group1", "group2"]].itertuples(index=False):
        split = [part for s in sets for part in ((s - {a}, s - {b}) if {a, b} <= s else (s,))]
        sets = [s for s in dict.fromkeys(split) if not any(s < other for other in split)]
    ordered = sorted(sets, key=lambda s: [name not in s for name in names])
    return {name: "".join(chr(ord("a") + i) for i, s in enumerate(ordered) if name in s) for name in names}


def t_interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> tuple[float, float]:
    """Mean -+ t quantile x standard error; (NaN, NaN) with fewer than two values. Assumes independent normal values,
    which scores of folds that share compounds are not quite."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(student.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def cohen_d(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " m"]) -> float:
    """(mean x - mean y) / pooled standard deviation (divisor n + m - 2); NaN where nothing varies."""
    free = len(x) + len(y) - 2
    pooled = (((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / free if free > 0 else 0.0
    return float((x.mean() - y.mean()) / np.sqrt(pooled)) if pooled > 0 else float("nan")


def hedges_g(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " m"]) -> float:
    """Cohen's d times 1 - 3 / (4 (n + m) - 9), which removes most of its bias in small samples."""
    return cohen_d(x, y) * (1 - 3 / (4 * (len(x) + len(y)) - 9))


def paired_permutation(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], rng: np.random.Generator, permutations: int = 9999
) -> tuple[float, float]:
    """Mean of x - y, and its two-sided p when within every pair the two are exchanged at random.

    Pairs are the same fold (or compound) under two methods. All 2^n exchanges where these are not more than
    `permutations`, then p = share at least as far from 0; else a random sample, then (1 + count) / (1 + permutations).
    """
    difference = x - y
    if len(difference) == 0 or np.isnan(difference).any():
        raise InvalidComparison("x and y must be given in full, without NaN: leave incomplete pairs out first")
    n, observed = len(difference), float(difference.mean())
    tolerance = 1e-12 * float(np.abs(difference).max())
    if n < 62 and 2**n <= permutations:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        null = signs @ difference / n
        return observed, float((np.abs(null) >= abs(observed) - tolerance).mean())
    null = np.array([(rng.choice((-1.0, 1.0), n) * difference).mean() for _ in range(permutations)])
    return observed, float((1 + (np.abs(null) >= abs(observed) - tolerance).sum()) / (1 + permutations))


def mixed_model(values: Float[np.ndarray, " n"], groups: Words, blocks: Words) -> pd.DataFrame:
    """Random-intercept model, value = group + block + error with block ~ N(0, s_b^2), by restricted maximum likelihood.

    Blocks are folds (or compounds) that all methods share. One row a pair of groups: `difference` (2 - 1), `error`,
    `t`, `p` and `q` (over the pairs), and the two variances. t has n - groups - blocks + 1 degrees of freedom, exact in
    complete blocks. Patterson and Thompson 1971.
    """
    names = sorted(_split(values, groups))
    if len(blocks) != len(values):
        raise InvalidComparison(f"blocks has {len(blocks)} entries, values {len(values)}: expected as many")
    x = _indicators(groups, names).astype(np.float64)
    z = _indicators(blocks, sorted({str(b) for b in blocks})).astype(np.float64)
    free = len(values) - len(names) - z.shape[1] + 1
    if free < 1:
        raise InvalidComparison("groups and blocks use up all values: expected more groups in a block, or more blocks")

    def solve(ratio: float) -> tuple[float, Float[np.ndarray, " g"], Float[np.ndarray, "g g"], float]:
        # V = I + ratio Z Z'; its inverse and determinant block by block, as Z Z' is block diagonal
        size = z.sum(axis=0)
        shrink = z * (ratio / (1 + ratio * size))
        vx, vy = x - shrink @ (z.T @ x), values - shrink @ (z.T @ values)
        information = x.T @ vx
        beta = np.linalg.solve(information, x.T @ vy)
        rest = values - x @ beta
        variance = float(rest @ (rest - shrink @ (z.T @ rest))) / (len(values) - len(names))
        determinant = float(np.log1p(ratio * size).sum() + np.linalg.slogdet(information)[1])
        return (len(values) - len(names)) * np.log(variance) + determinant, beta, np.linalg.inv(information), variance

    found = minimize_scalar(lambda log: solve(np.exp(log))[0], bounds=(-14.0, 14.0), method="bounded")
    ratio = float(np.exp(found.x)) if found.fun < solve(0.0)[0] else 0.0
    _, beta, inverse, variance = solve(ratio)
    rows = []
    for a, b in combinations(range(len(names)), 2):
        error = float(np.sqrt(variance * (inverse[a, a] + inverse[b, b] - 2 * inverse[a, b])))
        t = float(beta[b] - beta[a]) / error
        p = float(2 * student.sf(abs(t), free))
        rows.append((names[a], names[b], float(beta[b] - beta[a]), error, t, p))
    table = pd.DataFrame(rows, columns=["group1", "group2", "difference", "error", "t", "p"])
    q = false_discovery_rate(table["p"].to_numpy())
    return table.assign(q=q, block_variance=ratio * variance, error_variance=variance)


def _indicators(words: Words, names: Sequence[str]) -> Bool[np.ndarray, "n g"]:
    return np.array([[str(word) == name for name in names] for word in words], dtype=bool)
