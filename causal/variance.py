r"""Where the variance of a draw comes from: context, noise, cells; and what a better design can save at most.

With r noise seeds per context, :math:`f_{ij} = \mu + a_i + e_{ij}`, one-way analysis of variance gives the context part
Var(a) = (MS between - MS within) / r and the rest Var(e) = MS within (Searle, Casella and McCulloch 1992, section 3.5).
The rest is noise of the picture plus the sampling of its cells; the latter is known from the cells themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import CONTEXT_COLUMNS
from causal.design import InvalidDesign


@dataclass(frozen=True, eq=False)
class VarianceParts:
    """Variance of one draw of each of k features, split in three; unbiased, so small parts may come out negative."""

    context: Float[np.ndarray, "k"]
    noise: Float[np.ndarray, "k"]
    cells: Float[np.ndarray, "k"]

    @property
    def total(self) -> Float[np.ndarray, "k"]:
        """Variance of one draw."""
        return self.context + self.noise + self.cells

    @property
    def context_share(self) -> Float[np.ndarray, "k"]:
        """Share of the variance that contexts carry, in [0, 1]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.clip(np.where(self.total > 0, self.context / self.total, np.nan), 0, 1)

    @property
    def ceiling(self) -> Float[np.ndarray, "k"]:
        """The most that a design over contexts can divide the variance by: 1 / (1 - context share)."""
        with np.errstate(divide="ignore"):
            return 1 / (1 - self.context_share)


def split_variance(
    values: Float[np.ndarray, "n k"], draws: pd.DataFrame, cell_variance: Float[np.ndarray, "n k"] | None = None
) -> VarianceParts:
    """Context, noise and cell part of the variance of a draw.

    Args:
        values: features (or paired differences) of one compound, row i under draw i; no NaN.
        draws: the draws, several noise seeds per context (``seeds_per_context``).
        cell_variance: sampling variance of each value over its cells (`variance_of_median`); None: the cell part is
            not told apart and counts as noise.

    Raises:
        InvalidDesign: one seed per context only, fewer than two contexts, or NaN.
    """
    columns = [
        c for c in draws.columns if c in CONTEXT_COLUMNS or c not in ("draw", "seed", "scheme", "group", "compound")
    ]
    context = draws.groupby(columns, sort=False).ngroup().to_numpy()
    size = np.bincount(context)
    if len(size) < 2 or len(values) == len(size) or np.isnan(values).any():
        raise InvalidDesign(
            f"draws: {len(values)} draws of {len(size)} contexts and {int(np.isnan(values).sum())} missing values, "
            "expected two or more contexts, several seeds of a context (seeds_per_context) and no NaN"
        )
    means = np.stack([np.bincount(context, v) for v in values.T], axis=1) / size[:, None]
    within = ((values - means[context]) ** 2).sum(0) / (len(values) - len(size))
    between = (size[:, None] * (means - values.mean(0)) ** 2).sum(0) / (len(size) - 1)
    r = (len(values) - (size**2).sum() / len(values)) / (len(size) - 1)  # seeds per context, two draws may share one
    cells = np.zeros(values.shape[1]) if cell_variance is None else cell_variance.mean(0)
    return VarianceParts((between - within) / r, within - cells, cells)


def variance_of_median(cells: Float[np.ndarray, "c k"]) -> Float[np.ndarray, "k"]:
    """Sampling variance of the median over c cells, from its order statistics (McKean and Schrader 1984).

    NaN for fewer than 5 cells, where the order statistics do not exist.
    """
    n = len(cells)
    if n < 5:
        return np.full(cells.shape[1], np.nan)
    z = 1.959963984540054
    lower = max(round((n + 1) / 2 - z * np.sqrt(n / 4)), 1)
    ordered = np.sort(cells, axis=0)
    return np.asarray(((ordered[n - lower] - ordered[lower - 1]) / (2 * z)) ** 2)
