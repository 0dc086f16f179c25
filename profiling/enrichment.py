"""Are the neighbours of a profile enriched for its own label? The odds ratio among the closest 1 %.

DeepProfiler (Moshkov et al. 2024) and PhenoProfiler call it folds of enrichment.

`folds_of_enrichment` gives each query its ratio and Fisher's p; `enrichment` the mean with what shuffled labels give.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import fisher_exact

from profiling.profiles import InvalidProfiles
from profiling.statistics import false_discovery_rate


def folds_of_enrichment(
    similarity: Float[np.ndarray, "n n"], match: Bool[np.ndarray, "n n"], top: float = 0.01
) -> pd.DataFrame:
    """For each query with a match: `odds_ratio` of a match above against below the (1 - `top`) quantile of its
    similarities.

    One-sided Fisher `p`, `q` over the queries; the query itself is left out. Where the table has an empty cell that
    makes the ratio infinite it is replaced by the number of non-matches below the threshold, as the published code
    does; `infinite` says so. The reported figure is the mean of `odds_ratio`, and its chance level is 1.
    """
    rows = []
    for i in range(len(similarity)):
        others = np.arange(len(similarity)) != i
        s, m = similarity[i, others], match[i, others]
        if not m.any() or m.all():
            continue
        above = s > np.quantile(s, 1 - top)
        counts = [
            [int((above & m).sum()), int((above & ~m).sum())],
            [int((~above & m).sum()), int((~above & ~m).sum())],
        ]
        ratio, p = fisher_exact(counts, alternative="greater")
        endless = bool(np.isinf(ratio))
        rows.append((i, float(counts[1][1]) if endless else float(ratio), endless, float(p)))
    table = pd.DataFrame(rows, columns=["query", "odds_ratio", "infinite", "p"])
    return table.assign(q=false_discovery_rate(table["p"].to_numpy(dtype=np.float64)))


@dataclass(frozen=True)
class Enrichment:
    """Mean odds ratio over queries, what shuffled labels give, one-sided p, and the bootstrap interval over queries."""

    value: float
    chance: float
    p: float
    low: float
    high: float
    n_queries: int


def _odds_ratios(above: Bool[np.ndarray, "n n"], match: Bool[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Odds ratios of `folds_of_enrichment` for all queries at once; NaN for a query without match or non-match."""
    others = ~np.eye(len(match), dtype=bool)
    a, b = (above & match & others).sum(axis=1), (above & ~match & others).sum(axis=1)
    c, d = (~above & match & others).sum(axis=1), (~above & ~match & others).sum(axis=1)
    ratio = np.divide(a * d, b * c, out=d.astype(np.float64), where=(b > 0) & (c > 0))
    return np.where((a + c > 0) & (b + d > 0) & (a + b > 0), ratio, np.nan)


def enrichment(
    similarity: Float[np.ndarray, "n n"],
    match: Bool[np.ndarray, "n n"],
    rng: np.random.Generator,
    top: float = 0.01,
    permutations: int = 1000,
    resamples: int = 1000,
    level: float = 0.95,
) -> Enrichment:
    """The mean of `folds_of_enrichment` with chance: labels are shuffled among the profiles, which keeps how many
    matches there are and moves them. Raises `InvalidProfiles` where no query has both a match and a non-match."""
    n = len(similarity)
    others = np.where(np.eye(n, dtype=bool), np.nan, similarity)
    above = others > np.nanquantile(others, 1 - top, axis=1)[:, None]
    ratios = _odds_ratios(above, match)
    known = ratios[~np.isnan(ratios)]
    if len(known) == 0:
        raise InvalidProfiles("match: no query has both a match and a non-match, so nothing can be enriched")
    null = np.empty(permutations)
    for i in range(permutations):
        order = rng.permutation(n)
        null[i] = np.nanmean(_odds_ratios(above, match[np.ix_(order, order)]))
    means = known[rng.integers(0, len(known), (resamples, len(known)))].mean(axis=1)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    value = float(known.mean())
    p = float((1 + (null >= value - 1e-12).sum()) / (1 + permutations))
    return Enrichment(value, float(null.mean()), p, float(low), float(high), len(known))
