"""Pearson correlations among thousands of features, and which of a correlated pair goes.

The product of a table with itself is nearly all of the cost of feature selection. For big tables it is taken in
float32 over blocks of rows, the blocks added in float64. That decides most pairs at once; the few whose correlation
lies within the rounding bound of the threshold, and the features whose order of preference is within the error seen,
are computed again in float64. So the features kept are those of float64. No copy of the table is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg.blas import dsyrk, ssyrk

ROWS = 8192  # rows multiplied at once
CELLS = 65_536  # numbers centred at once: they stay in the cache
SCREEN_FROM = 2e10  # multiplications (rows x features^2) from which float32 comes first
PROBES = 32  # features whose sums are computed in both precisions, to see the error
SAFETY = 8.0  # how much larger than the largest error seen an error may be
ROUNDING = 2.0**-24  # of float32


@dataclass(frozen=True)
class _Table:
    """Chosen columns of a table with their means, root sums of squares (NaN: does not vary) and gaps."""

    values: Float[np.ndarray, "n all"]
    columns: Int[np.ndarray, " k"]
    mean: Float[np.ndarray, " k"]
    spread: Float[np.ndarray, " k"]
    holes: Bool[np.ndarray, " k"]

    def standardised(self, dtype: str) -> Iterator[Float[np.ndarray, "m k"]]:
        """Up to `ROWS` rows minus the mean, over the spread, 0 for no value; the next overwrite the last."""
        scale = 1.0 / self.spread
        block = np.empty((ROWS, len(self.columns)), dtype=dtype)
        filled = 0
        for x in _blocks(self.values, self.columns):
            part = x - self.mean
            part *= scale
            if self.holes.any():
                part[np.isnan(x)] = 0.0
            if filled + len(x) > ROWS:
                yield block[:filled]
                filled = 0
            block[filled : filled + len(x)] = part
            filled += len(x)
        yield block[:filled]


def _blocks(values: Float[np.ndarray, "n all"], columns: Int[np.ndarray, " k"]) -> Iterator[Float[np.ndarray, "m k"]]:
    step = min(ROWS, max(1, CELLS // max(len(columns), 1)))
    every = len(columns) == values.shape[1]
    for start in range(0, len(values), step):
        rows = values[start : start + step]
        yield rows if every else rows[:, columns]


def _table(values: Float[np.ndarray, "n all"], columns: Int[np.ndarray, " k"] | None) -> _Table:
    at = np.arange(values.shape[1]) if columns is None else columns
    total, missing = np.zeros(len(at)), np.zeros(len(at), dtype=np.int64)
    for x in _blocks(values, at):
        gaps = np.isnan(x)
        missing += gaps.sum(axis=0)
        total += np.where(gaps, 0.0, x).sum(axis=0) if gaps.any() else x.sum(axis=0)
    present = len(values) - missing
    mean = total / np.maximum(present, 1)
    square, rest = np.zeros(len(at)), np.zeros(len(at))
    add = np.nansum if missing.any() else np.sum
    for x in _blocks(values, at):
        part = x - mean
        rest += add(part, axis=0)
        part *= part
        square += add(part, axis=0)
    rest /= np.maximum(present, 1)  # what the rounding of a long sum left of the mean
    mean += rest
    spread = np.sqrt(np.maximum(square - present * rest**2, 0.0))
    spread[spread <= 1e-14 * np.abs(mean) * np.sqrt(len(values))] = np.nan  # no more than the rounding of the mean
    return _Table(values, at, mean, spread, missing > 0)


def correlations(
    values: Float[np.ndarray, "n all"], columns: Int[np.ndarray, " k"] | None = None
) -> Float[np.ndarray, "k k"]:
    """Pearson correlation of each pair of features (all, or the `columns` given) over the rows where both have a value.

    In float64. NaN where one does not vary.
    """
    return _correlations(_table(values, columns), "float64")


def _correlations(table: _Table, dtype: str) -> Float[np.ndarray, "k k"]:
    """Pairs without gaps in `dtype`, pairs with gaps in float64."""
    k = len(table.columns)
    upper, product = np.zeros((k, k), order="F"), np.zeros((k, k), dtype=dtype, order="F")
    multiply = ssyrk if dtype == "float32" else dsyrk
    for x in table.standardised(dtype):
        # a block in row order is its own transpose in the column order that the library wants
        product = multiply(1.0, x.T, beta=0.0, c=product, overwrite_c=1)
        upper += product
    c = np.triu(upper)
    c += np.triu(c, 1).T
    if table.holes.any():
        at = np.flatnonzero(table.holes)
        c[:, at] = _with_gaps(table, at)
        c[at] = c[:, at].T
    return c


def _with_gaps(table: _Table, at: Int[np.ndarray, " h"]) -> Float[np.ndarray, "k h"]:
    """Correlations of every feature with the features `at`, which have gaps, over the rows where both have a value."""
    shape = (len(table.columns), len(at))
    count, xy, sx, sy, sxx, syy = (np.zeros(shape) for _ in range(6))
    for start in range(0, len(table.values), ROWS // 4):
        x = table.values[start : start + ROWS // 4][:, table.columns] - table.mean
        w = (~np.isnan(x)).astype(np.float64)
        x[w == 0] = 0.0
        v, y = w[:, at], x[:, at]
        count += w.T @ v
        xy += x.T @ y
        sx += x.T @ v
        sy += w.T @ y
        sxx += (x**2).T @ v
        syy += w.T @ y**2
    count[count == 0] = np.nan
    variance_x, variance_y = sxx - sx**2 / count, syy - sy**2 / count
    variance_x[variance_x <= 0], variance_y[variance_y <= 0] = np.nan, np.nan
    return np.asarray((xy - sx * sy / count) / np.sqrt(variance_x * variance_y))


def _exact_columns(table: _Table, at: Int[np.ndarray, " h"]) -> Float[np.ndarray, "k h"]:
    """Correlations of every feature with the features `at` (without gaps) in float64; for pairs without gaps."""
    product = np.zeros((len(table.columns), len(at)))
    for x in table.standardised("float64"):
        product += x.T @ x[:, at]
    return product


def _exact_pairs(table: _Table, first: Int[np.ndarray, " p"], second: Int[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    product = np.zeros(len(first))
    for x in table.standardised("float64"):
        product += np.einsum("np,np->p", x[:, first], x[:, second])
    return product


def too_correlated(
    values: Float[np.ndarray, "n all"],
    threshold: float = 0.9,
    absolute: bool = True,
    columns: Int[np.ndarray, " k"] | None = None,
) -> Bool[np.ndarray, " k"]:
    """Of each pair correlated above `threshold`, the feature with the larger sum of |correlation| to all others.

    `columns` chooses features without a copy of the table; `absolute` judges |correlation|. Of equal sums the later
    feature goes.
    """
    table = _table(values, columns)
    found = None
    if len(values) * float(len(table.columns)) ** 2 >= SCREEN_FROM:
        found = _screened(table, threshold, absolute)
    if found is None:
        c = _correlations(table, "float64")
        first, second = np.nonzero(np.tril(np.abs(c) if absolute else c, k=-1) > threshold)
        found = first, second, np.nansum(np.abs(c), axis=0)
    first, second, sums = found
    out = np.zeros(len(table.columns), dtype=bool)
    out[np.where(sums[first] >= sums[second], first, second)] = True
    return out


def _screened(
    table: _Table, threshold: float, absolute: bool
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " k"]] | None:
    """The pairs above the threshold and sums that order them as float64 does; None where too much is in doubt."""
    k, whole = len(table.columns), ~table.holes
    # |error| of a sum of ROWS products of rounded numbers is below (ROWS + 3) u |x| |y| (Higham 2002, section 3.1), and
    # the lengths are 1 over all blocks
    bound = (ROWS + 3) * ROUNDING
    c = _correlations(table, "float32")
    size = np.abs(c) if absolute else c
    first, second = np.nonzero(np.tril(size, k=-1) > threshold - bound)
    doubt = (size[first, second] <= threshold + bound) & whole[first] & whole[second]
    above = np.where(doubt, False, size[first, second] > threshold)
    sums = np.nansum(np.abs(c), axis=0)
    del c, size
    probes = np.flatnonzero(whole)[:: max(1, int(whole.sum()) // PROBES)]
    if doubt.sum() > 4 * k or len(probes) == 0:
        return None
    if doubt.any():
        exact = _exact_pairs(table, first[doubt], second[doubt])
        above[doubt] = (np.abs(exact) if absolute else exact) > threshold
    first, second = first[above], second[above]
    exact_sums = _sums(table, probes)
    margin = 2 * SAFETY * float(np.abs(exact_sums - sums[probes]).max())
    close = np.abs(sums[first] - sums[second]) <= margin
    unsure = np.unique(np.concatenate([first[close], second[close]]))
    if len(unsure) > k // 4 or table.holes[unsure].any():
        return None
    sums[probes] = exact_sums
    if len(unsure):
        sums[unsure] = _sums(table, unsure)
    return first, second, sums


def _sums(table: _Table, at: Int[np.ndarray, " h"]) -> Float[np.ndarray, " h"]:
    """Sums of |correlation| of the features `at` to all, in float64."""
    c = _exact_columns(table, at)
    holes = np.flatnonzero(table.holes)
    if len(holes):
        c[holes] = _with_gaps(table, holes)[at].T
    return np.asarray(np.nansum(np.abs(c), axis=0))
